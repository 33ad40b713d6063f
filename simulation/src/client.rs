//! The clients of one router: they ask, listen and write down what they hear.

use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use router::dispatch::{DispatchRequest, Dispatcher, Generate, GenerationEvent, Pin};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use crate::ledger::{End, Ledger};

/// What the simulation's time is, seen from a process.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The process's own clock at its start.
    pub born: Instant,
    /// When it was started.
    pub started: Duration,
}

/// Everything a client needs.
#[derive(Clone)]
pub struct Clients {
    /// Which router they ask.
    pub router: usize,
    /// Where they write.
    pub ledger: Ledger,
    /// Their time.
    pub clock: Clock,
    /// Their tasks.
    pub tasks: TaskTracker,
}

// === impl Clock ===

impl Clock {
    /// The clock of a process that starts at `started`, which is now.
    #[must_use]
    pub fn starting(started: Duration) -> Self {
        Self { born: Instant::now(), started }
    }

    /// The simulation's time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started + self.born.elapsed()
    }

    fn instant(&self, at: Duration) -> Instant {
        self.born + at.saturating_sub(self.started)
    }
}

// === impl Clients ===

impl Clients {
    /// Asks what there is to ask from now on, each at its time.
    pub async fn run(self, dispatcher: Dispatcher) {
        let dispatcher = Arc::new(dispatcher);
        let from = self.clock.now();
        for (number, ask) in self.ledger.asks().iter().enumerate() {
            if ask.router == self.router && ask.at >= from {
                let (clients, dispatcher) = (self.clone(), dispatcher.clone());
                self.tasks.spawn(async move { clients.ask(number, &dispatcher).await });
            }
        }
        std::future::pending::<()>().await;
    }

    async fn ask(&self, number: usize, dispatcher: &Dispatcher) {
        let ask = &self.ledger.asks()[number];
        sleep_until(self.clock.instant(ask.at)).await;
        self.ledger.sent(number, self.clock.now());
        let deadline = (Instant::now() + ask.patience).into_std();
        let (generation, pin) = (ask.generation.clone(), Pin::by_token());
        let request = DispatchRequest { generation, deadline, pin, place: None };
        let end = match self.follow(number, request, dispatcher).await {
            Ok(()) => End::Done,
            Err(code) => End::Failed(code),
        };
        self.ledger.ended(number, end, self.clock.now());
    }

    async fn follow(
        &self,
        number: usize,
        request: DispatchRequest,
        dispatcher: &Dispatcher,
    ) -> Result<(), ErrorCode> {
        let mut stream = dispatcher.generate(request).await.map_err(|error| error.code)?;
        while let Some(event) = stream.next().await {
            match event {
                Ok(GenerationEvent::Tokens(tokens)) => {
                    self.ledger.tokens(number, &tokens, self.clock.now());
                }
                Ok(GenerationEvent::Finished { choice, reason }) => {
                    self.ledger.finished(number, choice, reason);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(number, %error, code = ?error.code, "a request failed");
                    return Err(error.code);
                }
            }
        }
        Ok(())
    }
}
