//! The clients of one router: they ask, listen and write down what they hear.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::ErrorCode;
use parking_lot::Mutex;
use router::dispatch::{DispatchRequest, Generate, GenerationEvent, GenerationStream, Pin};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;

use crate::checks::ledger::{Ask, End, Habit, Ledger};

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
    /// What each answer is bound to, by its number.
    pub pins: Arc<Mutex<BTreeMap<usize, Pin>>>,
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
    /// Asks what there is to ask from now on, each at its time. Never ends.
    pub async fn run(self, generate: Arc<dyn Generate>) {
        let from = self.clock.now();
        for (number, ask) in self.ledger.asks().iter().enumerate() {
            if ask.router == self.router && ask.at >= from {
                let (clients, generate) = (self.clone(), generate.clone());
                self.tasks.spawn(async move { clients.ask(number, &*generate).await });
            }
        }
        std::future::pending::<()>().await;
    }

    async fn ask(&self, number: usize, generate: &dyn Generate) {
        let ask = &self.ledger.asks()[number];
        sleep_until(self.clock.instant(ask.at)).await;
        self.ledger.sent(number, self.clock.now());
        let following = self.follow(number, ask, generate);
        let end = match ask.habit {
            Habit::LeavesAfter(time) => {
                tokio::time::timeout(time, following).await.unwrap_or(Ok(End::Left))
            }
            _ => following.await,
        };
        self.ledger.ended(number, end.unwrap_or_else(End::Failed), self.clock.now());
    }

    /// Asks, and listens to the end that the client has in mind.
    async fn follow(
        &self,
        number: usize,
        ask: &Ask,
        generate: &dyn Generate,
    ) -> Result<End, ErrorCode> {
        let mut stream = self.send(ask, generate).await?;
        while let Some(event) = stream.next().await {
            let event = event.map_err(|error| {
                tracing::debug!(number, %error, code = ?error.code, "a request failed");
                error.code
            })?;
            let is_first = self.ledger.heard(number) == 0;
            self.hear(number, event);
            match ask.habit {
                Habit::LeavesAt(tokens) if self.ledger.heard(number) >= tokens => {
                    return Ok(End::Left);
                }
                Habit::Rests(rest) if is_first && self.ledger.heard(number) > 0 => {
                    sleep(rest).await;
                }
                _ => {}
            }
        }
        Ok(End::Done)
    }

    /// Asks as the gateway does: whoever would be refused whatever he asks is refused at once.
    async fn send(
        &self,
        ask: &Ask,
        generate: &dyn Generate,
    ) -> Result<GenerationStream, ErrorCode> {
        generate.foresee(ask.generation.client, None).map_err(|error| error.code)?;
        let received = Instant::now().into_std();
        let deadline = received + ask.patience;
        let (generation, pin) = (ask.generation.clone(), self.pin(ask.answer));
        let request =
            DispatchRequest { generation, received, deadline, pin, place: None, explanation: None };
        generate.generate(request).await.map_err(|error| error.code)
    }

    /// What an answer is bound to, all its parts together.
    fn pin(&self, answer: usize) -> Pin {
        let parts = self.ledger.asks().iter().filter(|ask| ask.answer == answer).count();
        let new = || if parts > 1 { Pin::by_placement() } else { Pin::by_token() };
        self.pins.lock().entry(answer).or_insert_with(new).clone()
    }

    fn hear(&self, number: usize, event: GenerationEvent) {
        match event {
            GenerationEvent::Tokens(tokens) => {
                self.ledger.tokens(number, &tokens, self.clock.now());
            }
            GenerationEvent::Finished { choice, reason } => {
                self.ledger.finished(number, choice, reason);
            }
            GenerationEvent::PromptLogprobs(scores) => self.ledger.scores(number, &scores),
            GenerationEvent::Started(_) => {}
        }
    }
}
