//! One session: its turns, one after the other, measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Manners;
use super::client::Endpoint;
use super::recorder::{Failed, Measured};
use crate::workload::{Input, Session};

/// However soon a server wants to be asked again, a client has something else to do.
const COME_BACK_MIN: Duration = Duration::from_millis(10);

/// Plays sessions against one endpoint.
#[derive(Debug)]
pub(super) struct Visitor {
    endpoint: Endpoint,
    results: mpsc::Sender<Result<Measured, Failed>>,
    temperature: f64,
    manners: Manners,
}

// === impl Visitor ===

impl Visitor {
    /// A visitor that sends what it measures to `results`.
    pub(super) fn new(
        endpoint: Endpoint,
        results: mpsc::Sender<Result<Measured, Failed>>,
        temperature: f64,
        manners: Manners,
    ) -> Self {
        Self { endpoint, results, temperature, manners }
    }

    /// Plays a session that was planned for `planned`; a failed turn ends it.
    pub(super) async fn visit(self: Arc<Self>, session: Session, planned: Option<Instant>) {
        let mut lag = planned.map(|planned| planned.elapsed()).unwrap_or_default();
        let manners = self.manners.of_turns(session.turns.len());
        let mut said = Vec::new();
        for (index, turn) in session.turns.into_iter().enumerate() {
            if index > 0 {
                tokio::time::sleep(turn.after).await;
            }
            let (path, body) = self.request(turn.input, turn.output_tokens, &mut said);
            let (measured, answer) = match self.insist(path, &body, manners).await {
                Ok((measured, answer)) => (Ok(Measured { lag, ..measured }), Some(answer)),
                Err(failed) => (Err(failed), None),
            };
            // Nobody counts any more once the run has been cancelled.
            let _ = self.results.send(measured).await;
            let Some(answer) = answer else { return };
            said.push(json!({ "role": "assistant", "content": answer }));
            lag = Duration::ZERO;
        }
    }

    /// Sends a request until it is answered; comes back as often as the server asks for it.
    async fn insist(
        &self,
        path: &str,
        body: &Value,
        manners: Manners,
    ) -> Result<(Measured, String), Failed> {
        let (first, mut refusals) = (Instant::now(), 0);
        loop {
            let waited = first.elapsed();
            let failure = match self.endpoint.stream(path, body).await {
                Ok((measured, text)) => {
                    return Ok((Measured { refusals, waited, ..measured }, text));
                }
                Err(failure) => failure,
            };
            let after = failure.retry_after.map(|after| after.max(COME_BACK_MIN));
            if !self.waits(first, after, manners).await {
                return Err(Failed { why: failure.why, fault: failure.fault, refusals });
            }
            refusals += 1;
        }
    }

    /// Waits, as a client does that was refused; whether it comes back then.
    async fn waits(&self, first: Instant, after: Option<Duration>, manners: Manners) -> bool {
        let (Manners::ComeBack { until }, Some(after)) = (manners, after) else {
            return false;
        };
        let back = Instant::now() + after.min(self.endpoint.timeout());
        if back >= first + self.endpoint.timeout() {
            return false;
        }
        // At the end nobody comes back, and nobody asks for something else instead.
        tokio::time::sleep_until(until.map_or(back, |until| until.min(back)).into()).await;
        until.is_none_or(|until| back < until)
    }

    /// Route and body of a turn, after what was said so far.
    fn request(
        &self,
        input: Input,
        output_tokens: u32,
        said: &mut Vec<Value>,
    ) -> (&'static str, Value) {
        let mut body = json!({
            "max_tokens": output_tokens,
            // Exactly so many tokens, whatever the model would rather say.
            "ignore_eos": true,
            "temperature": self.temperature,
        });
        match input {
            Input::Ids(ids) => {
                body["prompt"] = ids.into();
                ("/v1/completions", body)
            }
            Input::Message(text) => {
                said.push(json!({ "role": "user", "content": text }));
                body["messages"] = said.clone().into();
                ("/v1/chat/completions", body)
            }
        }
    }
}
