//! A small OpenAI client that hides nothing: statuses, headers, single events.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::{Duration, Instant};

use bench::server::sse::Decoder;
use bytes::Bytes;
use futures::StreamExt;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use crate::model::NAME;

/// Longer than any request of a test may take; shorter than a test that hangs.
const REQUEST_PATIENCE: Duration = Duration::from_secs(120);

/// A connection is not used again after so long: gateways close idle ones (30 s), and a request that is on its way
/// then, over a slow network, is lost.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a request may take.
const TIMEOUT_MS: HeaderName = HeaderName::from_static("x-baton-timeout-ms");

/// Sends requests to one router.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// A streaming response under way. Dropping it is what a client does that goes away.
pub struct Stream {
    /// The response's headers.
    pub headers: HeaderMap,
    bytes: Pin<Box<dyn futures::Stream<Item = reqwest::Result<Bytes>> + Send>>,
    decoder: Decoder,
    started: Instant,
}

/// What a streaming response amounted to.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The response's headers.
    pub headers: HeaderMap,
    /// Text by choice, of chats and completions alike.
    pub text: BTreeMap<u64, String>,
    /// Why each choice ended.
    pub finish: BTreeMap<u64, String>,
    /// Token counts, if asked for.
    pub usage: Option<Value>,
    /// The error event that ended the stream early.
    pub error: Option<Value>,
    /// Events with text.
    pub deltas: usize,
    /// From the request to the first text.
    pub ttft: Option<Duration>,
    /// The longest time between two events with text.
    pub gap_max: Duration,
    last_text: Option<Instant>,
    /// Whether `[DONE]` came.
    pub is_done: bool,
}

/// A request that was refused, or broke off.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The status, if there was an answer.
    pub status: Option<StatusCode>,
    /// The body, or what happened to the connection.
    pub detail: String,
    /// The response's headers.
    pub headers: HeaderMap,
}

// === impl Client ===

impl Client {
    /// A client of the gateway at `addr`.
    ///
    /// # Panics
    /// If the HTTP library cannot be set up.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_PATIENCE)
            .connect_timeout(Duration::from_secs(10))
            .build()
            .expect("an HTTP client");
        Self { http, base: format!("http://{addr}") }
    }

    /// The same, calling from another address of this machine: another client to the gateway.
    ///
    /// # Panics
    /// If the HTTP library cannot be set up.
    #[must_use]
    pub fn from_address(&self, address: IpAddr) -> Self {
        let http = reqwest::Client::builder()
            .timeout(REQUEST_PATIENCE)
            .local_address(address)
            .build()
            .expect("an HTTP client");
        Self { http, base: self.base.clone() }
    }

    /// The same, with requests that say how long they may take, and connections of its own.
    ///
    /// # Panics
    /// If the HTTP library cannot be set up.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        let ms = deadline.as_millis().to_string().parse().expect("a header's value");
        let http = reqwest::Client::builder()
            .timeout(REQUEST_PATIENCE)
            .pool_idle_timeout(IDLE_MAX)
            .default_headers(HeaderMap::from_iter([(TIMEOUT_MS, ms)]))
            .build()
            .expect("an HTTP client");
        Self { http, base: self.base.clone() }
    }

    /// `http://host:port` of the gateway.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Posts a body and returns status, headers and the whole answer.
    ///
    /// # Panics
    /// If the connection fails.
    pub async fn post_bytes(
        &self,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> (StatusCode, HeaderMap, String) {
        let body = body.into();
        let shown = String::from_utf8_lossy(body.as_bytes().unwrap_or_default());
        let shown: String = shown.chars().take(120).collect();
        let request =
            self.http.post(self.url(path)).header("content-type", content_type).body(body);
        let sent = request.send().await;
        let response = sent.unwrap_or_else(|error| panic!("{path}, {shown}: {error:?}"));
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        (status, headers, text)
    }

    /// Posts JSON and returns status, headers and JSON.
    ///
    /// # Panics
    /// If the connection fails, or the answer is no JSON.
    pub async fn post(&self, path: &str, body: &Value) -> (StatusCode, HeaderMap, Value) {
        let (status, headers, text) =
            self.post_bytes(path, "application/json", body.to_string()).await;
        let value = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{path} answered {status} {text:?}: {error}"));
        (status, headers, value)
    }

    /// Posts a request and returns the whole answer.
    ///
    /// # Errors
    /// If it is refused, or the connection fails.
    pub async fn whole(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let response = accepted(self.http.post(self.url(path)).json(body).send().await?).await?;
        let text = response.text().await?;
        serde_json::from_str(&text).map_err(|error| Failure::broken(format!("{text:?}: {error}")))
    }

    /// Gets a path.
    ///
    /// # Panics
    /// If the connection fails.
    pub async fn get(&self, path: &str) -> (StatusCode, String) {
        let response = self.http.get(self.url(path)).send().await;
        let response = response.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let status = response.status();
        (status, response.text().await.unwrap_or_else(|error| panic!("{path}: {error:?}")))
    }

    /// Begins a streaming request: `body` with `stream` set, and a usage event asked for.
    ///
    /// # Errors
    /// If it is refused, or the connection fails.
    pub async fn open(&self, path: &str, body: &Value) -> Result<Stream, Failure> {
        let mut body = body.clone();
        body["stream"] = true.into();
        body["stream_options"] = json!({ "include_usage": true });
        let started = Instant::now();
        let response = accepted(self.http.post(self.url(path)).json(&body).send().await?).await?;
        let headers = response.headers().clone();
        let bytes = response.bytes_stream().boxed();
        Ok(Stream { headers, bytes, decoder: Decoder::default(), started })
    }

    /// A streaming request to its end.
    ///
    /// # Errors
    /// If it is refused, or the connection breaks. An error event is in [`Answer::error`].
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        self.open(path, body).await?.finish().await
    }

    /// Streams the answer to a chat of one message, at most `max_tokens` long, greedily.
    ///
    /// # Errors
    /// As [`Client::stream`].
    pub async fn chat(&self, message: &str, max_tokens: u32) -> Result<Answer, Failure> {
        self.stream("/v1/chat/completions", &chat_body(message, max_tokens)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }
}

async fn accepted(response: reqwest::Response) -> Result<reqwest::Response, Failure> {
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() {
        return Ok(response);
    }
    Err(Failure { status: Some(status), detail: response.text().await?, headers })
}

/// A greedy chat of one message.
#[must_use]
pub fn chat_body(message: &str, max_tokens: u32) -> Value {
    json!({
        "model": NAME,
        "messages": [{ "role": "user", "content": message }],
        "max_tokens": max_tokens,
        "temperature": 0,
    })
}

// === impl Stream ===

impl Stream {
    /// The next event's data; `None` at the end of the response.
    ///
    /// # Errors
    /// If the connection breaks, also in the middle of an event.
    pub async fn next(&mut self) -> Result<Option<String>, Failure> {
        loop {
            if let Some(event) = self.decoder.next_event() {
                let event = String::from_utf8(event);
                return event.map(Some).map_err(|error| Failure::broken(error.to_string()));
            }
            match self.bytes.next().await {
                Some(bytes) => self.decoder.push(&bytes?),
                None if self.decoder.is_mid_event() => {
                    return Err(Failure::broken("the response ended in the middle of an event"));
                }
                None => return Ok(None),
            }
        }
    }

    /// Reads to the end.
    ///
    /// # Errors
    /// If the connection breaks, or the stream ends without `[DONE]` and without an error event.
    pub async fn finish(mut self) -> Result<Answer, Failure> {
        let mut answer = Answer { headers: self.headers.clone(), ..Answer::default() };
        while let Some(event) = self.next().await? {
            if event == "[DONE]" {
                answer.is_done = true;
            } else {
                let value = serde_json::from_str(&event)
                    .map_err(|error| Failure::broken(format!("{event:?}: {error}")))?;
                answer.take(&value, self.started);
            }
        }
        if answer.is_done || answer.error.is_some() {
            Ok(answer)
        } else {
            Err(Failure::broken("the stream ended without [DONE]"))
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("headers", &self.headers).finish_non_exhaustive()
    }
}

// === impl Answer ===

impl Answer {
    /// The text of the first choice.
    #[must_use]
    pub fn text(&self) -> &str {
        self.text.get(&0).map_or("", String::as_str)
    }

    /// A header's value, empty if there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    /// Tokens generated, as the usage event says.
    ///
    /// # Panics
    /// If there was none.
    #[must_use]
    pub fn completion_tokens(&self) -> u64 {
        let usage = self.usage.as_ref().expect("a usage event");
        usage["completion_tokens"].as_u64().expect("completion_tokens")
    }

    /// Why this is not a complete answer, if it isn't.
    #[must_use]
    pub fn flaw(&self) -> Option<String> {
        if let Some(error) = &self.error {
            return Some(format!("error event {error}"));
        }
        if self.finish.is_empty() || self.finish.len() != self.text.len() {
            return Some(format!("finish reasons {:?}", self.finish));
        }
        (!self.is_done).then(|| "no [DONE]".to_owned())
    }

    fn take(&mut self, event: &Value, started: Instant) {
        if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
            self.error = Some(error.clone());
        }
        if let Some(usage) = event.get("usage").filter(|usage| !usage.is_null()) {
            self.usage = Some(usage.clone());
        }
        for choice in event["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap_or(0);
            let text =
                choice["delta"]["content"].as_str().or(choice["text"].as_str()).unwrap_or("");
            if !text.is_empty() {
                self.deltas += 1;
                self.ttft.get_or_insert_with(|| started.elapsed());
                let now = Instant::now();
                let gap = self.last_text.replace(now).map_or(Duration::ZERO, |last| now - last);
                self.gap_max = self.gap_max.max(gap);
            }
            self.text.entry(index).or_default().push_str(text);
            if let Some(reason) = choice["finish_reason"].as_str() {
                self.finish.insert(index, reason.to_owned());
            }
        }
    }
}

// === impl Failure ===

impl Failure {
    fn broken(detail: impl Into<String>) -> Self {
        Self { status: None, detail: detail.into(), headers: HeaderMap::new() }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::broken(format!("{error:?}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}: {}", self.detail),
            None => f.write_str(&self.detail),
        }
    }
}

impl std::error::Error for Failure {}
