//! What the router measures. It owns the clock: all times are as the client sees them, from the
//! request's arrival to the moment its text is ready to be written.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::ErrorCode;
use cluster::telemetry::metrics::Histograms;
use cluster::telemetry::{Buckets, Metrics};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use self::kept::{ByTarget, Kept};
use crate::RequestError;
use crate::callers::access::{Call, Reason, Work};
use crate::callers::caller::{Caller, Endpoint};
use crate::callers::keys::Key;
use crate::dispatch::Route;

mod kept;

/// The router's metrics. A clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct RouterMetrics {
    ttft: Histograms<ByEndpoint>,
    tpot: Histograms<ByEndpoint>,
    itl: Histogram,
    e2e: Histograms<ByEndpoint>,
    requests: Family<ByOutcome, Counter>,
    by_path: Family<ByPath, Counter>,
    targets: Family<ByTarget, Counter>,
    running: Gauge,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generation_tokens: Counter,
    prompt_lengths: Histogram,
    key_requests: Family<ByKey, Counter>,
    key_tokens: Family<ByKey, Counter>,
    /// Prompts waiting for, or in, the tokenizer; set before each scrape.
    pub(crate) text_queue: Gauge,
    /// Bytes received that are not tokens yet; set before each scrape.
    pub(crate) bytes_in_flight: Gauge,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every choice finished.
    Ok,
    /// The request was wrong.
    Invalid,
    /// Refused, to be tried later.
    Busy,
    /// Nobody was there to serve it.
    Unavailable,
    /// Its deadline passed.
    Timeout,
    /// The client went away.
    Cancelled,
    /// Our own fault.
    Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: Endpoint,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
    endpoint: Endpoint,
}

/// As many as there are keys: only those known are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKey {
    key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPath {
    path: &'static str,
}

/// Times one request, from its arrival to its end. Dropped before its end, it counts the request
/// as cancelled.
#[derive(Debug)]
pub struct RequestClock {
    metrics: RouterMetrics,
    endpoint: Endpoint,
    /// Who pays.
    key: Option<Arc<Key>>,
    received: Instant,
    first_token: Option<Instant>,
    kept: Kept,
    /// For the access log.
    call: Call,
    work: Work,
    ended: bool,
}

/// Times the tokens of one choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChoiceClock {
    first: Option<(Instant, u32)>,
    last: Option<Instant>,
    tokens: u32,
}

// === impl Outcome ===

impl EncodeLabelValue for Outcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        let name = match self {
            Self::Ok => "ok",
            Self::Invalid => "invalid",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl From<ErrorCode> for Outcome {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::InvalidRequest | ErrorCode::NotFound => Self::Invalid,
            ErrorCode::Busy => Self::Busy,
            ErrorCode::Unavailable | ErrorCode::StaleIncarnation | ErrorCode::Incompatible => {
                Self::Unavailable
            }
            ErrorCode::Timeout => Self::Timeout,
            ErrorCode::Cancelled => Self::Cancelled,
            ErrorCode::Corrupt | ErrorCode::Miscomputed | ErrorCode::Internal => Self::Error,
        }
    }
}

// === impl ByKey ===

impl ByKey {
    fn of(key: &Key) -> Self {
        Self { key: key.name.to_string() }
    }
}

// === impl Route ===

impl Route {
    /// `handoff` where another worker computed the prompt, else `local`.
    #[must_use]
    pub fn path(&self) -> &'static str {
        if self.prefill.is_some() { "handoff" } else { "local" }
    }
}

// === impl RouterMetrics ===

impl RouterMetrics {
    /// Registers the router's metrics.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let counter = |name: &str, help: &str| metrics.counter(name, help);
        Self {
            ttft: metrics.histograms(
                "baton_time_to_first_token_seconds",
                "From a request's arrival to its first token",
                Buckets::TTFT_S,
            ),
            tpot: metrics.histograms(
                "baton_time_per_output_token_seconds",
                "Mean time per token of a sequence, after its first",
                Buckets::TPOT_S,
            ),
            itl: metrics.histogram(
                "baton_inter_token_latency_seconds",
                "Time between two deliveries of tokens of one sequence",
                Buckets::TPOT_S,
            ),
            e2e: metrics.histograms(
                "baton_e2e_request_latency_seconds",
                "From a request's arrival to its end",
                Buckets::REQUEST_S,
            ),
            requests: metrics.counters("baton_requests", "Requests, by how they ended"),
            by_path: metrics
                .counters("baton_requests_by_path", "Prompts, by where they were computed"),
            targets: metrics.counters(
                "baton_request_targets",
                "Targets that requests had of their own (x-baton-...-target-ms), of those served to their end or deadline",
            ),
            running: metrics.gauge("baton_requests_running", "Requests being served"),
            prompt_tokens: counter("baton_prompt_tokens", "Tokens of prompts"),
            cached_tokens: counter("baton_cached_prompt_tokens", "Prompt tokens found in a cache"),
            generation_tokens: counter("baton_generation_tokens", "Tokens generated"),
            prompt_lengths: metrics.histogram(
                "baton_request_prompt_tokens",
                "Tokens of one prompt",
                Buckets::TOKENS,
            ),
            key_requests: metrics.counters("baton_key_requests", "Requests, by API key"),
            key_tokens: metrics
                .counters("baton_key_tokens", "Tokens of prompts and answers, by API key"),
            text_queue: metrics
                .gauge("baton_tokenizer_queue_length", "Prompts waiting for, or in, the tokenizer"),
            bytes_in_flight: metrics.gauge(
                "baton_request_bytes_in_flight",
                "Bytes of requests that are being read, and are not tokens yet",
            ),
        }
    }

    /// Counts a request that ended before it was started.
    pub fn refused(&self, endpoint: Endpoint, outcome: Outcome) {
        self.requests.get_or_create(&ByOutcome { outcome, endpoint }).inc();
    }

    /// Starts the clock of a request.
    #[must_use]
    pub fn start(&self, caller: &Caller) -> RequestClock {
        self.running.inc();
        RequestClock {
            metrics: self.clone(),
            endpoint: caller.endpoint,
            key: None,
            received: caller.received,
            first_token: None,
            kept: Kept::new(caller.targets),
            call: caller.call.clone(),
            work: Work::default(),
            ended: false,
        }
    }
}

// === impl RequestClock ===

impl RequestClock {
    /// The clock of a request that came with `key`.
    #[must_use]
    pub fn of(mut self, key: Option<Arc<Key>>) -> Self {
        if let Some(key) = &key {
            self.metrics.key_requests.get_or_create(&ByKey::of(key)).inc();
        }
        self.key = key;
        self
    }

    fn spend(&self, tokens: u64) {
        if let Some(key) = &self.key {
            key.allowance.spend_tokens(tokens);
            self.metrics.key_tokens.get_or_create(&ByKey::of(key)).inc_by(tokens);
        }
    }

    /// A prompt was accepted by a worker.
    pub fn placed(&mut self, prompt_tokens: usize, route: &Route) {
        self.work.prompt_tokens += prompt_tokens as u64;
        self.metrics.by_path.get_or_create(&ByPath { path: route.path() }).inc();
        self.metrics.prompt_tokens.inc_by(prompt_tokens as u64);
        self.spend(prompt_tokens as u64);
        self.metrics.prompt_lengths.observe(prompt_tokens as f64);
        self.metrics.cached_tokens.inc_by(route.cached_tokens.into());
    }

    /// `count` tokens of a choice arrived at `now`.
    pub fn tokens(&mut self, choice: &mut ChoiceClock, count: u32, now: Instant) {
        self.metrics.generation_tokens.inc_by(count.into());
        self.work.output_tokens += u64::from(count);
        self.spend(count.into());
        if self.first_token.is_none() {
            self.first_token = Some(now);
            let labels = ByEndpoint { endpoint: self.endpoint };
            let ttft = now.saturating_duration_since(self.received);
            self.metrics.ttft.get_or_create(&labels).observe(ttft.as_secs_f64());
        }
        if let Some(last) = choice.last {
            let gap = now.saturating_duration_since(last);
            self.metrics.itl.observe(gap.as_secs_f64());
            self.kept.gap(gap);
        }
        choice.tokens += count;
        choice.last = Some(now);
        choice.first.get_or_insert((now, choice.tokens));
    }

    /// A choice has ended.
    pub fn choice_ended(&mut self, choice: &ChoiceClock) {
        let (Some((first, at_first)), Some(last)) = (choice.first, choice.last) else { return };
        let rest = choice.tokens.saturating_sub(at_first);
        if rest > 0 {
            let labels = ByEndpoint { endpoint: self.endpoint };
            let mean = last.saturating_duration_since(first) / rest;
            self.metrics.tpot.get_or_create(&labels).observe(mean.as_secs_f64());
            self.kept.mean(mean);
        }
    }

    /// When the request came in.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.received
    }

    /// The request ended before its first token. Not counted here: whoever answers it counts all
    /// refusals, those that never had a clock too.
    #[must_use]
    pub fn refused<E>(mut self, error: E) -> E {
        self.ended = true;
        self.metrics.running.dec();
        error
    }

    /// The request broke off.
    pub fn fail(&mut self, error: &RequestError) {
        self.call.failed(error.into());
        self.end(error.code().into());
    }

    fn count_targets(&self, first: Duration) {
        for target in self.kept.all(first) {
            self.metrics.targets.get_or_create(&target).inc();
        }
    }

    /// The request has ended; only the first call counts.
    pub fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if outcome == Outcome::Cancelled {
            self.call.failed(Reason::own("cancelled", "the client went away"));
        }
        let first_token = self.first_token.map(|at| at.saturating_duration_since(self.received));
        self.call.worked(Work { first_token, total: self.received.elapsed(), ..self.work });
        // Of what broke off nobody knows how it would have gone on.
        if matches!(outcome, Outcome::Ok | Outcome::Timeout) {
            self.count_targets(first_token.unwrap_or(self.received.elapsed()));
        }
        self.metrics.running.dec();
        self.metrics.refused(self.endpoint, outcome);
        let labels = ByEndpoint { endpoint: self.endpoint };
        self.metrics.e2e.get_or_create(&labels).observe(self.received.elapsed().as_secs_f64());
    }
}

impl Drop for RequestClock {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}
