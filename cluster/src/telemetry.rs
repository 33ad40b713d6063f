//! What operators see: logs, traces, metrics, health.

use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::ClusterError;

pub mod admin;
pub mod metrics;
pub mod propagate;

pub use admin::{AdminServer, Probes};
pub use metrics::{Buckets, Metrics};

/// How long one batch of spans may take to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the end of the process waits for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);
/// Lines that wait for a slow reader of standard error before new ones are lost: who answers requests must not wait
/// for who reads logs.
const LINES_MAX: usize = 16_384;
/// Spans worth exporting. The exporter's own transport must not be: each export would beget another.
const EXPORTED: &str = "info,h2=off,hyper=off,hyper_util=off,tonic=off,tower=off,opentelemetry=off,\
                        opentelemetry_sdk=off,opentelemetry_otlp=off";

/// Libraries that warn of what any stranger can do as often as it likes.
const HUSHED: &str = "h2=error";

/// How a node logs and traces.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// The service's name in traces, e.g. `baton-router`.
    pub service: String,
    /// This node's name in traces.
    pub instance: String,
    /// For people or for machines.
    pub format: LogFormat,
    /// What to log, as in `RUST_LOG`: `info`, `cluster=debug,warn`.
    pub filter: String,
    /// `http://host:port` of an OTLP collector (gRPC); no traces if absent.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces to keep, `0.0..=1.0`; a caller's choice is followed.
    pub trace_ratio: f64,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Columns and colours.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Writes the last lines and sends the last spans when the process ends.
#[must_use = "what is not yet written or sent is lost with the guard"]
#[derive(Debug)]
pub struct TelemetryGuard {
    provider: Option<SdkTracerProvider>,
    _lines: WorkerGuard,
}

// === impl TelemetryConfig ===

impl TelemetryConfig {
    /// The defaults: logs for people at `info`, no traces.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            instance: String::new(),
            format: LogFormat::Human,
            filter: "info".to_owned(),
            otlp_endpoint: None,
            trace_ratio: 1.0,
        }
    }
}

/// Sets up logs, on standard error, and traces for the whole process. With an OTLP endpoint it must
/// be called within the runtime.
///
/// # Errors
/// [`ClusterError::Telemetry`] for a bad filter or endpoint, or if it was called before.
pub fn init(config: &TelemetryConfig) -> Result<TelemetryGuard, ClusterError> {
    let filter = filter(&config.filter)?;
    let provider = config.otlp_endpoint.as_deref().map(|to| provider(config, to)).transpose()?;
    let traces = provider.as_ref().map(|provider| {
        let tracer = provider.tracer("baton");
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(EnvFilter::new(EXPORTED))
    });
    let (writer, lines) = NonBlockingBuilder::default()
        .thread_name("log")
        .buffered_lines_limit(LINES_MAX)
        .lossy(true)
        .finish(io::stderr());
    Registry::default()
        .with(traces)
        .with(log_layer(config.format, writer).with_filter(filter))
        .try_init()
        .map_err(|error| ClusterError::Telemetry(error.to_string()))?;
    Ok(TelemetryGuard { provider, _lines: lines })
}

/// The filter, in which a word alone is a level: as the name of a target, which it would be taken for otherwise, it
/// would silence all others.
fn filter(text: &str) -> Result<EnvFilter, ClusterError> {
    let bad = |why: String| ClusterError::Telemetry(format!("filter {text:?}: {why}"));
    let is_odd = |word: &&str| !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err();
    if let Some(word) = text.split(',').map(str::trim).find(is_odd) {
        return Err(bad(format!(
            "{word:?} is no level (error, warn, info, debug, trace, off) and no TARGET=LEVEL"
        )));
    }
    // What is said of the same target later counts.
    EnvFilter::try_new(format!("{HUSHED},{text}")).map_err(|error| bad(error.to_string()))
}

fn log_layer<S>(format: LogFormat, writer: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = fmt::layer().with_writer(writer);
    match format {
        LogFormat::Human => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_span_list(false).boxed(),
    }
}

fn provider(config: &TelemetryConfig, endpoint: &str) -> Result<SdkTracerProvider, ClusterError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|error| ClusterError::Telemetry(format!("OTLP: {error}")))?;
    let instance = opentelemetry::KeyValue::new("service.instance.id", config.instance.clone());
    let resource = Resource::builder()
        .with_service_name(config.service.clone())
        .with_attribute(instance)
        .build();
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.trace_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}

// === impl TelemetryGuard ===

impl TelemetryGuard {
    /// Sends what is left without blocking the runtime.
    pub async fn shutdown(mut self) {
        if let Some(provider) = self.provider.take() {
            let flush = move || provider.shutdown_with_timeout(FLUSH_TIMEOUT);
            drop(tokio::task::spawn_blocking(flush).await);
        }
    }
}

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // Nothing to be done about spans that can't be sent any more.
            drop(provider.shutdown_with_timeout(FLUSH_TIMEOUT));
        }
    }
}
