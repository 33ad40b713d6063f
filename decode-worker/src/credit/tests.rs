use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use futures::future::join_all;
use futures::poll;
use tokio::time::timeout;

use super::*;

const SOON: Duration = Duration::from_secs(5);

fn idle() -> u32 {
    0
}

#[tokio::test]
async fn a_credit_is_given_back_when_dropped() {
    let (pool, credits) = (BlockPool::new(8, 4), Credits::new(4));
    let credit = credits.take(&pool, 5, idle).await.unwrap();
    assert_eq!(pool.counts().available(), 3);
    drop(credit);
    assert_eq!(pool.counts().available(), 8);
    assert_eq!(credits.waiting(), 0);
}

#[tokio::test]
async fn whoever_finds_the_pool_full_waits_for_blocks() {
    let (pool, credits) = (BlockPool::new(8, 4), Credits::new(4));
    let first = credits.take(&pool, 6, idle).await.unwrap();
    let mut second = Box::pin(credits.take(&pool, 3, idle));
    assert!(poll!(&mut second).is_pending());
    assert_eq!(credits.waiting(), 1);
    drop(first);
    assert_eq!(timeout(SOON, second).await.unwrap().unwrap().remaining(), 3);
}

#[tokio::test]
async fn a_small_prompt_does_not_overtake_a_large_one() {
    let (pool, credits) = (BlockPool::new(8, 4), Credits::new(4));
    let first = credits.take(&pool, 4, idle).await.unwrap();
    let mut large = Box::pin(credits.take(&pool, 8, idle));
    let mut small = Box::pin(credits.take(&pool, 1, idle));
    assert!(poll!(&mut large).is_pending());
    assert!(poll!(&mut small).is_pending());
    drop(first);
    let large = timeout(SOON, large).await.unwrap().unwrap();
    assert!(poll!(&mut small).is_pending());
    drop(large);
    timeout(SOON, small).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_gives_up_leaves_the_line() {
    let (pool, credits) = (BlockPool::new(8, 4), Credits::new(4));
    let first = credits.take(&pool, 8, idle).await.unwrap();
    let mut impatient = Box::pin(credits.take(&pool, 8, idle));
    assert!(poll!(&mut impatient).is_pending());
    drop(impatient);
    assert_eq!(credits.waiting(), 0);
    drop(first);
    timeout(SOON, credits.take(&pool, 8, idle)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_line_that_is_full_refuses() {
    let (pool, credits) = (BlockPool::new(4, 4), Credits::new(1));
    let _all = credits.take(&pool, 4, idle).await.unwrap();
    let mut waiting = Box::pin(credits.take(&pool, 1, idle));
    assert!(poll!(&mut waiting).is_pending());
    let error = credits.take(&pool, 1, idle).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Busy);
}

#[tokio::test]
async fn a_prompt_larger_than_the_pool_is_refused_at_once() {
    let (pool, credits) = (BlockPool::new(4, 4), Credits::new(1));
    let error = credits.take(&pool, 5, idle).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidRequest);
}

#[tokio::test]
async fn room_is_left_for_running_sequences_to_grow() {
    let (pool, credits) = (BlockPool::new(8, 4), Credits::new(4));
    let running = pool.reserve(2).unwrap();
    let mut crowded = Box::pin(credits.take(&pool, 5, || 2));
    assert!(poll!(&mut crowded).is_pending(), "6 are free, 5 and 2 are wanted");
    drop((crowded, running));
    // A prompt that takes the whole pool can only wait until nobody else is there.
    timeout(SOON, credits.take(&pool, 8, || 3)).await.unwrap().unwrap();
}

#[tokio::test]
async fn everybody_gets_a_turn() {
    let (pool, credits) = (BlockPool::new(8, 4), Arc::new(Credits::new(64)));
    let turns = (0..40u32).map(|turn| {
        let (pool, credits) = (pool.clone(), credits.clone());
        async move {
            let credit = credits.take(&pool, 1 + turn % 8, idle).await.unwrap();
            tokio::task::yield_now().await;
            drop(credit);
        }
    });
    timeout(Duration::from_secs(30), join_all(turns)).await.unwrap();
    assert_eq!(pool.counts().available(), 8);
}
