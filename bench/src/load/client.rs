//! An OpenAI client with a stopwatch.

use std::error::Error as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use futures::StreamExt;
use reqwest::Response;
use serde_json::{Value, json};

use super::LoadOptions;
use crate::report::Measured;
use crate::sse::Decoder;

/// Between two requests of one client a connection may idle; a run's think times are shorter.
const IDLE_MAX: Duration = Duration::from_secs(90);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A server, and the model to ask for.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    http: reqwest::Client,
    base: String,
    model: String,
    api_key: Option<String>,
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
        let http = reqwest::Client::builder()
            .timeout(options.request_timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_MAX)
            // The server's own answer is measured, not a proxy's that the environment names.
            .no_proxy()
            .build()?;
        let base = options.url.trim_end_matches('/').trim_end_matches("/v1").to_owned();
        let mut endpoint =
            Self { http, base, model: String::new(), api_key: options.api_key.clone() };
        endpoint.model = match &options.model {
            Some(model) => model.clone(),
            None => endpoint.first_model().await?,
        };
        Ok(endpoint)
    }

    /// Sends a streaming request and reads it to its end: what was measured, and the text.
    ///
    /// # Errors
    /// Why not, in few words: the same ones for the same kind of failure, so that they can be counted.
    pub(super) async fn stream(
        &self,
        path: &str,
        body: &Value,
    ) -> Result<(Measured, String), String> {
        let mut body = body.clone();
        body["model"] = self.model.clone().into();
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let sent = Instant::now();
        let request = self.authorized(self.http.post(format!("{}{path}", self.base)));
        let response = request.json(&body).send().await.map_err(|error| kind(&error))?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let mut reading = Reading::new(sent, &response);
        let (mut bytes, mut decoder) = (response.bytes_stream(), Decoder::default());
        while let Some(chunk) = bytes.next().await {
            decoder.push(&chunk.map_err(|error| kind(&error))?);
            let now = Instant::now();
            while let Some(event) = decoder.next_event() {
                reading.take(&event, now)?;
            }
        }
        reading.finish()
    }

    async fn first_model(&self) -> Result<String> {
        let url = format!("{}/v1/models", self.base);
        let response = self.authorized(self.http.get(&url)).send().await;
        let response = response.with_context(|| format!("no server answers at {url}"))?;
        if !response.status().is_success() {
            bail!("{url} answered {}", response.status());
        }
        let list: Value = response.json().await.with_context(|| format!("{url}: not JSON"))?;
        let model = list["data"][0]["id"].as_str();
        model.map(str::to_owned).with_context(|| format!("{url} lists no model: {list}"))
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.api_key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }
}

/// A failed connection in few words; addresses and numbers would make each one different.
fn kind(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "timed out".to_owned();
    }
    let what = if error.is_connect() { "cannot connect" } else { "connection broke" };
    let mut cause = error.source();
    while let Some(next) = cause.and_then(|cause| cause.source()) {
        cause = Some(next);
    }
    cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

async fn refusal(response: Response) -> String {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap_or_default();
    let error = &body["error"];
    let detail = error["code"].as_str().or(error["type"].as_str());
    detail.map_or_else(|| status.to_string(), |detail| format!("{status} {detail}"))
}

// === impl Reading ===

impl Reading {
    fn new(sent: Instant, response: &Response) -> Self {
        let path = response.headers().get("x-baton-path").and_then(|value| value.to_str().ok());
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

    fn take(&mut self, event: &[u8], now: Instant) -> Result<(), String> {
        if event == b"[DONE]" {
            self.is_done = true;
            return Ok(());
        }
        let value: Value =
            serde_json::from_slice(event).map_err(|_| "an event that is not JSON".to_owned())?;
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            let detail = error["code"].as_str().or(error["type"].as_str()).unwrap_or("unknown");
            return Err(format!("error event: {detail}"));
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

    fn finish(mut self) -> Result<(Measured, String), String> {
        if !self.is_done {
            return Err("the stream ended without [DONE]".to_owned());
        }
        let Some(first) = self.first else {
            return Err("no text".to_owned());
        };
        self.measured.ttft = first - self.sent;
        self.measured.total = self.last - self.sent;
        if self.measured.output_tokens == 0 {
            // A server that doesn't count: one token an event is the best guess.
            self.measured.output_tokens = self.events;
        }
        Ok((self.measured, self.text))
    }
}
