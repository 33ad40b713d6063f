//! Timers that judge others.
//!
//! A process that was stopped (SIGSTOP, a frozen machine) finds all of its timers over when it goes on, and hears of
//! them before it hears what came meanwhile: `epoll_wait` returns without an event. So a timer by which somebody
//! is found silent is not believed before the sockets were asked once more.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// For the sockets to be asked, and for their tasks to run.
const LISTEN: Duration = Duration::from_millis(50);
/// How often, where each time ends late, too: a machine that is always late must come to an end.
const LISTENINGS_MAX: u32 = 4;

/// Ends when this much time has passed of which the process heard what there was to hear.
#[derive(Debug)]
pub struct Patience {
    sleep: Pin<Box<time::Sleep>>,
    listenings: u32,
}

/// Gives a connection of hyper its [`Patience`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PatientTimer;

// === impl Patience ===

impl Patience {
    /// From now on.
    #[must_use]
    pub fn lasting(patience: Duration) -> Self {
        // What no clock can count lasts for ever.
        const EVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
        Self::until(time::Instant::now() + patience.min(EVER))
    }

    /// To be over at `deadline`.
    #[must_use]
    pub fn until(deadline: time::Instant) -> Self {
        Self { sleep: Box::pin(time::sleep_until(deadline)), listenings: 0 }
    }
}

impl Future for Patience {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = time::Instant::now();
            let late = now.duration_since(self.sleep.deadline()) >= LISTEN;
            let heard = self.listenings > 0 && (!late || self.listenings >= LISTENINGS_MAX);
            if heard {
                return Poll::Ready(());
            }
            self.listenings += 1;
            self.sleep.as_mut().reset(now + LISTEN);
        }
    }
}

impl Sleep for Patience {}

// === impl PatientTimer ===

impl Timer for PatientTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(Patience::lasting(duration))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Patience::until(deadline.into()))
    }

    fn now(&self) -> Instant {
        crate::clock::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn it_ends_a_moment_after_its_time() {
        let start = time::Instant::now();
        Patience::lasting(PATIENCE).await;
        let over = start.elapsed() - PATIENCE;
        assert!(over >= LISTEN && over < 2 * LISTEN, "{over:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_pause_the_sockets_are_asked_first() {
        let mut patience = Patience::lasting(PATIENCE);
        assert!(time::timeout(Duration::from_secs(1), &mut patience).await.is_err());
        // A process that is stopped polls nothing.
        time::advance(Duration::from_secs(60)).await;
        let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut patience).poll(cx)));
        assert_eq!(polled.await, Poll::Pending);
        // Stopped once more, before it had listened.
        time::advance(Duration::from_secs(60)).await;
        let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut patience).poll(cx)));
        assert_eq!(polled.await, Poll::Pending);
        time::timeout(2 * LISTEN, &mut patience).await.expect("it was not stopped again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_always_late_comes_to_an_end() {
        let mut patience = Patience::lasting(PATIENCE);
        for _ in 0..=LISTENINGS_MAX {
            time::advance(PATIENCE).await;
            let polled = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut patience).poll(cx)));
            if polled.await.is_ready() {
                return;
            }
        }
        panic!("it never ends");
    }
}
