//! A trace across two hops, as a collector receives it. One test: the subscriber is the process's.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::sync::Arc;

use cluster::rpc::{self, Channels};
use cluster::telemetry::{self, LogFormat, TelemetryConfig, propagate};
use cluster::testing::DEADLINE;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use proto::v1::GenerateRequest;
use proto::v1::decode_client::DecodeClient;
use support::Worker;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tracing::{Instrument, info_span};

#[derive(Clone, Default)]
struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
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

impl Collector {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let server =
            tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        uri
    }

    fn spans(&self) -> Vec<Span> {
        let received = self.received.lock();
        let scopes = received
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }
}

fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = spans.iter().find(|span| span.name == name);
    found.unwrap_or_else(|| panic!("no span {name} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_crosses_a_call_and_reaches_the_collector_before_the_process_ends() {
    let collector = Collector::default();
    let config = TelemetryConfig {
        instance: "node-1".to_owned(),
        format: LogFormat::Json,
        filter: "warn".to_owned(),
        otlp_endpoint: Some(collector.start().await),
        ..TelemetryConfig::new("baton-test")
    };
    let telemetry = telemetry::init(&config).unwrap();
    assert!(telemetry::init(&config).is_err(), "once per process");

    let worker = Worker::start("a", 1).await;
    let client = info_span!("request");
    let trace_id = propagate::trace_id(&client).unwrap();
    let call = async {
        // This worker decodes nothing; that it was asked is all that is wanted.
        let request = rpc::request(GenerateRequest::default(), rpc::deadline_from(10_000));
        DecodeClient::new(Channels::new().get(&worker.info.address, worker.info.role))
            .generate(request)
            .await
    };
    call.instrument(client).await.unwrap_err();
    worker.node.stop(DEADLINE).await;
    worker.server.await.unwrap();
    telemetry.shutdown().await;

    let spans = collector.spans();
    let (request, rpc) = (named(&spans, "request"), named(&spans, "/baton.v1.Decode/Generate"));
    assert_eq!(rpc.parent_span_id, request.span_id);
    assert_eq!(rpc.trace_id, request.trace_id);
    let hex: String = request.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, trace_id);
    assert_eq!(rpc.kind(), opentelemetry_proto::tonic::trace::v1::span::SpanKind::Server);
    let exporters_own = spans.iter().any(|span| span.name.contains("TraceService"));
    assert!(!exporters_own, "exports must not be traced");
}
