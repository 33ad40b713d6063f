//! Trace context across hops, as W3C `traceparent` and `tracestate`.

use http::{HeaderMap, HeaderName};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Adds the current span's trace context to gRPC metadata.
pub fn inject_metadata(metadata: &mut MetadataMap) {
    inject(&Span::current(), &mut Metadata(metadata));
}

/// Makes `span` a child of the caller's, if the headers tell of one. Before `span` is entered.
///
/// Records the trace's id as `trace_id` where the span has such a field.
pub fn adopt(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&ReadHeaders(headers));
    if !context.span().span_context().is_valid() {
        return;
    }
    span.record("trace_id", tracing::field::display(context.span().span_context().trace_id()));
    // Fails where no traces are exported: then there is nobody to tell.
    drop(span.set_parent(context));
}

/// The id of the trace that `span` belongs to, hex; `None` where no traces are exported.
#[must_use]
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    span.span_context().is_valid().then(|| span.span_context().trace_id().to_string())
}

fn inject(span: &Span, into: &mut dyn Injector) {
    let context: Context = span.context();
    TraceContextPropagator::new().inject_context(&context, into);
}

struct ReadHeaders<'a>(&'a HeaderMap);
struct Metadata<'a>(&'a mut MetadataMap);

impl Extractor for ReadHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

impl Injector for Metadata<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) =
            (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value))
        {
            self.0.insert(key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing::{info_span, subscriber};
    use tracing_subscriber::Registry;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn traced(test: impl FnOnce()) {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        subscriber::with_default(Registry::default().with(layer), test);
    }

    #[test]
    fn a_trace_goes_on_from_headers_to_metadata() {
        traced(|| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", PARENT.parse().unwrap());
            let span = info_span!("hop");
            adopt(&span, &headers);
            assert_eq!(trace_id(&span).as_deref(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));

            let _inside = span.enter();
            let mut metadata = MetadataMap::new();
            inject_metadata(&mut metadata);
            let sent = metadata.get("traceparent").unwrap().to_str().unwrap();
            assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent}");
            assert_ne!(sent, PARENT, "the hop is a span of its own");
        });
    }

    #[test]
    fn a_bad_context_starts_a_trace_of_its_own() {
        traced(|| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", "00-zz-zz-01".parse().unwrap());
            let span = info_span!("hop");
            adopt(&span, &headers);
            assert_ne!(trace_id(&span), None);
        });
    }

    #[test]
    fn without_traces_nothing_is_sent() {
        let mut metadata = MetadataMap::new();
        inject_metadata(&mut metadata);
        assert!(metadata.is_empty());
        assert_eq!(trace_id(&Span::current()), None);
    }
}
