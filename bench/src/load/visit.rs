//! One session: its turns, one after the other, measured.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::client::Endpoint;
use crate::report::Measured;
use crate::workload::{Input, Session};

/// Plays sessions against one endpoint.
#[derive(Debug)]
pub(super) struct Visitor {
    endpoint: Endpoint,
    results: mpsc::Sender<Result<Measured, String>>,
    temperature: f64,
}

// === impl Visitor ===

impl Visitor {
    /// A visitor that sends what it measures to `results`.
    pub(super) fn new(
        endpoint: Endpoint,
        results: mpsc::Sender<Result<Measured, String>>,
        temperature: f64,
    ) -> Self {
        Self { endpoint, results, temperature }
    }

    /// Plays a session that was planned for `planned`; a failed turn ends it.
    pub(super) async fn visit(self: Arc<Self>, session: Session, planned: Option<Instant>) {
        let mut lag = planned.map(|planned| planned.elapsed()).unwrap_or_default();
        let mut said = Vec::new();
        let turns = session.turns.len();
        for (index, turn) in session.turns.into_iter().enumerate() {
            let (path, body) = self.request(turn.input, turn.output_tokens, &mut said);
            let result = self.endpoint.stream(path, &body).await;
            let (measured, answer) = match result {
                Ok((measured, answer)) => (Ok(Measured { lag, ..measured }), Some(answer)),
                Err(why) => (Err(why), None),
            };
            // Nobody counts any more once the run has been cancelled.
            let _ = self.results.send(measured).await;
            let Some(answer) = answer else { return };
            said.push(json!({ "role": "assistant", "content": answer }));
            lag = std::time::Duration::ZERO;
            if index + 1 < turns {
                tokio::time::sleep(session.think).await;
            }
        }
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
