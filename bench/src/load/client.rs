//! An OpenAI client with a stopwatch.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::LoadOptions;
use super::recorder::{Fault, Measured};
use crate::server::{Events, Refusal, Server, ServerError};

/// A server, and the model to ask for.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    server: Server,
    model: String,
    /// The longest that one request may take.
    timeout: Duration,
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) struct Failure {
    /// In few words: the same ones for the same kind of failure, so that they can be counted.
    pub(super) why: String,
    /// What that says of the server.
    pub(super) fault: Fault,
    /// When to come back, if the server says so.
    pub(super) retry_after: Option<Duration>,
}

/// A stream as it is read.
#[derive(Debug)]
struct Reading {
    sent: Instant,
    first: Option<Instant>,
    last: Instant,
    events: u64,
    text: String,
    is_done: bool,
    measured: Measured,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reaches the server and settles which model to ask for.
    ///
    /// # Errors
    /// If it cannot be reached, or lists no model.
    pub(super) async fn connect(options: &LoadOptions) -> Result<Self> {
        let server = Server::new(&options.server)?;
        let model = match &options.model {
            Some(model) => model.clone(),
            None => {
                let first = server.first_model().await;
                first.with_context(|| format!("{}/v1/models", server.base()))?.id
            }
        };
        Ok(Self { server, model, timeout: options.request_timeout })
    }

    /// The server's address.
    pub(super) fn base(&self) -> &str {
        self.server.base()
    }

    /// The model that is asked for.
    pub(super) fn model(&self) -> &str {
        &self.model
    }

    /// The longest that one request may take.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sends a streaming request and reads it to its end: what was measured, and the text.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn stream(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(Measured, String), Failure> {
        let mut body = body.clone();
        body["model"] = self.model.clone().into();
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let read = tokio::time::timeout(self.timeout, self.read(path, &body)).await;
        read.unwrap_or_else(|_| Err(ServerError::TimedOut.into()))
    }

    async fn read(&self, path: &str, body: &Value) -> Result<(Measured, String), Failure> {
        let sent = Instant::now();
        let mut events = self.server.stream(path, body).await?;
        let mut reading = Reading::new(sent, &events);
        while let Some(event) = events.next().await? {
            reading.take(&event, Instant::now())?;
        }
        reading.finish()
    }
}

// === impl Failure ===

impl From<ServerError> for Failure {
    fn from(error: ServerError) -> Self {
        let (fault, retry_after) = match &error {
            ServerError::Refused(refusal) if refusal.is_of_load() => {
                (Fault::Refused, refusal.retry_after)
            }
            ServerError::Refused(refusal) => (Fault::Broken, refusal.retry_after),
            ServerError::Unreachable { .. } => (Fault::Unreachable, None),
            _ => (Fault::Broken, None),
        };
        Self { why: error.kind(), fault, retry_after }
    }
}

impl From<&str> for Failure {
    fn from(why: &str) -> Self {
        Self { why: why.to_owned(), fault: Fault::Broken, retry_after: None }
    }
}

// === impl Reading ===

impl Reading {
    fn new(sent: Instant, events: &Events) -> Self {
        let path = events.header("x-baton-path");
        let measured = Measured { path: path.map(str::to_owned), ..Measured::default() };
        Self {
            sent,
            first: None,
            last: sent,
            events: 0,
            text: String::new(),
            is_done: false,
            measured,
        }
    }

    fn take(&mut self, event: &[u8], now: Instant) -> Result<(), Failure> {
        if event == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let value: Value =
            serde_json::from_slice(event).map_err(|_| "an event that is not JSON")?;
        if let Some(refusal) = Refusal::of_event(&value) {
            return Err(ServerError::Refused(refusal).into());
        }
        if let Some(usage) = value.get("usage").filter(|usage| !usage.is_null()) {
            self.take_usage(usage);
        }
        let choice = &value["choices"][0];
        let text = choice["text"].as_str().or(choice["delta"]["content"].as_str()).unwrap_or("");
        if !text.is_empty() {
            self.take_text(text, now);
        }
        Ok(())
    }

    fn take_text(&mut self, text: &str, now: Instant) {
        match self.first {
            Some(_) => self.measured.gaps.push(now - self.last),
            None => self.first = Some(now),
        }
        self.last = now;
        self.events += 1;
        self.text.push_str(text);
    }

    fn take_usage(&mut self, usage: &Value) {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        self.measured.input_tokens = count(&usage["prompt_tokens"]);
        self.measured.output_tokens = count(&usage["completion_tokens"]);
        self.measured.cached_tokens = count(&usage["prompt_tokens_details"]["cached_tokens"]);
    }

    fn finish(mut self) -> Result<(Measured, String), Failure> {
        if !self.is_done {
            return Err("the stream ended without [DONE]".into());
        }
        let first = self.first.ok_or("no text")?;
        self.measured.ttft = first - self.sent;
        self.measured.total = self.last - self.sent;
        if self.measured.output_tokens == 0 {
            // A server that doesn't count: one token an event is the best guess.
            self.measured.output_tokens = self.events;
        }
        Ok((self.measured, self.text))
    }
}
