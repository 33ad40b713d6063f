//! An OTLP collector that keeps what it is sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use parking_lot::Mutex;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Spans by trace: (service, span name).
pub type Traces = BTreeMap<Vec<u8>, Vec<(String, String)>>;

/// A collector on a free port, for as long as the test's runtime lives.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

// === impl Collector ===

impl Collector {
    /// Starts it and gives its `http://host:port`.
    ///
    /// # Panics
    /// If no port can be bound.
    pub async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let uri = format!("http://{}", listener.local_addr().expect("its address"));
        let service = TraceServiceServer::new(collector.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, uri)
    }

    /// What has arrived so far.
    #[must_use]
    pub fn traces(&self) -> Traces {
        let mut traces = Traces::new();
        for resource in self.received.lock().iter().flat_map(|request| &request.resource_spans) {
            let service = service_name(resource).unwrap_or_default();
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                let spans = traces.entry(span.trace_id.clone()).or_default();
                spans.push((service.clone(), span.name.clone()));
            }
        }
        traces
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.received.lock().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn service_name(resource: &opentelemetry_proto::tonic::trace::v1::ResourceSpans) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attributes = &resource.resource.as_ref()?.attributes;
    let name = attributes.iter().find(|attribute| attribute.key == "service.name")?;
    match name.value.as_ref()?.value.as_ref()? {
        Value::StringValue(name) => Some(name.clone()),
        _ => None,
    }
}
