//! Streams of HTTP/2 that end when nobody reads them.
//!
//! A connection whose client takes nothing fails by itself ([`Guarded`](super::Guarded)). On one of HTTP/2 the
//! client may read some streams and leave others: those wait for room where no body is asked for more, so nothing
//! in the answer itself can end them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hyper::rt::Executor;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::{ClientAddress, Connections};
use crate::patience::Patience;

tokio::task_local! {
    /// Of the stream that the task serves.
    static READER: Reader;
}

/// Runs the streams of one connection, and cuts those that nobody reads.
#[derive(Clone, Debug)]
pub struct Streams {
    connections: Connections,
    client: ClientAddress,
    patience: Option<Duration>,
}

/// Whoever reads one stream, as its answer's body sees it; nobody where streams aren't watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader(Option<Arc<Owed>>);

/// Since when a piece that was handed out has not been taken; `None` while the client is owed nothing.
#[derive(Debug, Default)]
struct Owed(Mutex<Option<Instant>>);

// === impl Streams ===

impl Streams {
    /// - `patience`: for a piece of an answer to be taken; `None`: no limit.
    pub(super) fn new(
        connections: Connections,
        client: ClientAddress,
        patience: Option<Duration>,
    ) -> Self {
        Self { connections, client, patience }
    }
}

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let (connections, client) = (self.connections.clone(), self.client);
        let Some(patience) = self.patience else { return TokioExecutor::new().execute(stream) };
        let owed = Arc::<Owed>::default();
        let watched = READER.scope(Reader(Some(owed.clone())), async move {
            tokio::select! {
                biased;
                _ = stream => {}
                // Dropping it resets the stream, and drops the answer with all that works for it.
                () = owed.stalled(patience) => connections.reader_cut(client),
            }
        });
        TokioExecutor::new().execute(watched);
    }
}

// === impl Reader ===

impl Reader {
    /// The reader of the stream that this task serves.
    pub(super) fn current() -> Self {
        READER.try_with(Self::clone).unwrap_or_default()
    }

    /// A piece was handed out.
    pub(super) fn owe(&self) {
        if let Some(owed) = &self.0 {
            *owed.0.lock() = Some(Instant::now());
        }
    }

    /// The next piece is asked for: the last one was taken.
    pub(super) fn take(&self) {
        if let Some(owed) = &self.0 {
            *owed.0.lock() = None;
        }
    }
}

// === impl Owed ===

impl Owed {
    /// Ready when a piece has not been taken for as long as this.
    async fn stalled(&self, patience: Duration) {
        loop {
            let owed = *self.0.lock();
            match owed {
                None => sleep(patience).await,
                Some(since) => {
                    Patience::until(since + patience).await;
                    if *self.0.lock() == owed {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_reader_stalls_when_it_has_left_a_piece_for_too_long() {
        let owed = Arc::<Owed>::default();
        let reader = Reader(Some(owed.clone()));
        let writing = async {
            for pause_s in [29, 5, 25] {
                reader.owe();
                sleep(Duration::from_secs(pause_s)).await;
                reader.take();
                // Nothing to read is nobody's fault.
                sleep(Duration::from_secs(100)).await;
            }
            reader.owe();
            std::future::pending::<()>().await;
        };
        let start = Instant::now();
        tokio::select! {
            () = writing => unreachable!(),
            () = owed.stalled(PATIENCE) => {}
        }
        assert_eq!(start.elapsed().as_secs(), 29 + 5 + 25 + 300 + 30);
    }
}
