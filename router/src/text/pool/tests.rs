use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::*;

const LARGE: usize = 10 << 20;

fn client() -> ClientId {
    ClientId::default()
}

/// Keeps a thread of the pool at work until released.
fn block(
    pool: &Arc<TextPool>,
    bytes: usize,
) -> (SyncSender<()>, tokio_util::task::AbortOnDropHandle<()>) {
    let (release, wait) = sync_channel::<()>(0);
    let (begun, begins) = sync_channel::<()>(1);
    let pool = Arc::clone(pool);
    let task = tokio_util::task::TaskTracker::new().spawn(async move {
        let work = move |_: &Cancelled| {
            begun.send(()).unwrap();
            let _ = wait.recv();
        };
        pool.run(client(), bytes, work).await.unwrap();
    });
    received(&begins);
    (release, tokio_util::task::AbortOnDropHandle::new(task))
}

fn received<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(Duration::from_secs(10)).expect("the job runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once_and_recovers() {
    let pool = Arc::new(TextPool::new(1, 1).unwrap());
    let (release, busy) = block(&pool, LARGE);
    assert_eq!(pool.run(client(), 1, |_| 1).await, Err(PoolFull::Full));
    release.send(()).unwrap();
    busy.await.unwrap();
    assert_eq!(pool.run(client(), 1, |_| 2).await, Ok(2));
}

#[tokio::test]
async fn a_panic_is_an_error_and_the_pool_lives_on() {
    let pool = TextPool::new(1, 4).unwrap();
    let panic = |_: &Cancelled| panic!("on purpose");
    assert_eq!(pool.run(client(), 1, panic).await, Err::<(), _>(PoolFull::Panicked));
    assert_eq!(pool.run(client(), 1, |_| 3).await, Ok(3));
    assert_eq!(pool.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_text_does_not_wait_for_large_ones() {
    let pool = Arc::new(TextPool::new(1, 16).unwrap());
    let (_release, _busy) = block(&pool, LARGE);
    assert_eq!(pool.run(client(), 100, |_| "small").await, Ok("small"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_frees_the_place_in_line_and_stops_the_work() {
    let pool = Arc::new(TextPool::new(1, 2).unwrap());
    let (release, busy) = block(&pool, LARGE);
    let mut in_line = Box::pin(pool.run(client(), LARGE, |_| ()));
    assert!(futures::poll!(in_line.as_mut()).is_pending());
    assert_eq!(pool.waiting(), 2);
    drop(in_line);
    assert_eq!(pool.waiting(), 1, "at once, while the thread is still at work");
    release.send(()).unwrap();
    busy.await.unwrap();

    let (begun, begins) = sync_channel::<()>(1);
    let (stopped, stops) = sync_channel::<()>(1);
    let mut running = Box::pin(pool.run(client(), LARGE, move |cancelled: &Cancelled| {
        begun.send(()).unwrap();
        while !cancelled.is_set() {
            std::thread::yield_now();
        }
        stopped.send(()).unwrap();
    }));
    assert!(futures::poll!(running.as_mut()).is_pending());
    received(&begins);
    drop(running);
    received(&stops);
}
