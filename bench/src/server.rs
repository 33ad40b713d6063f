//! An OpenAI server, as its clients reach it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::Value;

mod address;
mod error;
pub mod sse;
mod trust;

pub use error::{Refusal, ServerError};
use sse::Decoder;

/// Between two requests of one client a connection may idle; a run's think times are shorter.
const IDLE_MAX: Duration = Duration::from_secs(90);
/// A short answer: a list of models, an error.
const SHORT_TIMEOUT: Duration = Duration::from_secs(10);
const SHORT_BYTES_MAX: usize = 4 << 20;
/// An event without an end; real ones have a token or a few, and their logprobs.
const EVENT_BYTES_MAX: usize = 4 << 20;

/// Where a server is, and what it wants to see.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// `http://host:port` or `https://...`, with or without `/v1`; or a host, a port, or both.
    pub url: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// Whom to trust over https, a file with certificates; `None`: whom the system trusts.
    pub ca: Option<PathBuf>,
}

/// A server. A clone shares its connections.
#[derive(Clone, Debug)]
pub struct Server {
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// Without `/v1`, and without a slash at the end.
    base: String,
    bearer: Option<HeaderValue>,
}

/// A model that a server lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// Tokens of its context, if the server says.
    pub context_tokens: Option<u64>,
}

/// The events of an answer.
#[derive(Debug)]
pub struct Events {
    headers: HeaderMap,
    body: Incoming,
    decoder: Decoder,
}

// === impl Server ===

impl Server {
    /// Gets ready to call; nothing is sent yet.
    ///
    /// # Errors
    /// If the address is none, the key can't be sent, or nobody can be trusted.
    pub fn new(options: &ServerOptions) -> Result<Self> {
        let base = address::base(&options.url)?;
        let tls = trust::config(options.ca.as_deref(), base.starts_with("https://"))?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(SHORT_TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let http = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self { http, base, bearer: options.api_key.as_deref().map(bearer).transpose()? })
    }

    /// Its address, without `/v1`.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The models that it lists.
    ///
    /// # Errors
    /// [`ServerError`] if it can't be reached or refuses.
    pub async fn models(&self) -> Result<Vec<Model>, ServerError> {
        let response = self.send(Method::GET, "/v1/models", Bytes::new());
        let response = timely(response).await??;
        let list: Value = short(response.into_body()).await?;
        let models = list["data"].as_array().into_iter().flatten();
        Ok(models.filter_map(Model::of).collect())
    }

    /// The first model that it lists.
    ///
    /// # Errors
    /// As [`Server::models`], and if it lists none.
    pub async fn first_model(&self) -> Result<Model, ServerError> {
        self.models().await?.into_iter().next().ok_or(ServerError::NoModel)
    }

    /// Posts a request that is answered in events. How long that may take is for the caller to say.
    ///
    /// # Errors
    /// [`ServerError`] if it can't be reached or refuses.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Events, ServerError> {
        let response = self.send(Method::POST, path, body.to_string().into()).await?;
        let (head, body) = response.into_parts();
        Ok(Events { headers: head.headers, body, decoder: Decoder::default() })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ServerError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|error| ServerError::Misunderstood(error.to_string()))?;
        let sent = self.http.request(request).await;
        let response = sent.map_err(|error| ServerError::sending(&self.base, &error))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(refusal(response).await),
        }
    }
}

/// A key as it is sent; not shown where requests are.
fn bearer(key: &str) -> Result<HeaderValue> {
    let value = HeaderValue::try_from(format!("Bearer {key}"));
    let mut value = value.ok().context("the API key has characters that can't be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

/// Why a server refused, in its own words if it has any.
async fn refusal(response: Response<Incoming>) -> ServerError {
    let (head, body) = response.into_parts();
    let body = short(body).await.unwrap_or_default();
    ServerError::Refused(Refusal::new(&head, &body))
}

/// A short answer, as JSON.
async fn short(body: Incoming) -> Result<Value, ServerError> {
    let whole = timely(Limited::new(body, SHORT_BYTES_MAX).collect()).await?;
    let whole = whole.map_err(|error| ServerError::Broken(error.to_string()))?;
    let parsed = serde_json::from_slice(&whole.to_bytes());
    parsed.map_err(|_| ServerError::Misunderstood("the answer is not JSON".into()))
}

async fn timely<T>(short: impl Future<Output = T>) -> Result<T, ServerError> {
    tokio::time::timeout(SHORT_TIMEOUT, short).await.map_err(|_| ServerError::TimedOut)
}

// === impl Model ===

impl Model {
    fn of(listed: &Value) -> Option<Self> {
        let id = listed["id"].as_str()?.to_owned();
        Some(Self { id, context_tokens: listed["max_model_len"].as_u64() })
    }
}

// === impl Events ===

impl Events {
    /// A header of the answer.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The data of the next event; `None` at the end. May be dropped and called again: nothing is
    /// lost.
    ///
    /// # Errors
    /// [`ServerError::Broken`] if the connection breaks, also in the middle of an event;
    /// [`ServerError::Misunderstood`] if the event has no end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, ServerError> {
        loop {
            if let Some(event) = self.decoder.next_event() {
                return Ok(Some(event));
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.map_err(|error| ServerError::breaking(&error))?;
                    if let Ok(data) = frame.into_data() {
                        self.take(&data)?;
                    }
                }
                None if self.decoder.is_mid_event() => {
                    return Err(ServerError::Broken("it ended in the middle of an event".into()));
                }
                None => return Ok(None),
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), ServerError> {
        if self.decoder.pending_bytes() > EVENT_BYTES_MAX {
            return Err(ServerError::Misunderstood("an event has no end".into()));
        }
        self.decoder.push(data);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
