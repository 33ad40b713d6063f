//! One trace per request, over every process that worked on it.

use std::time::Duration;

use baton_tests::watch::collector::Collector;
use baton_tests::{Cluster, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_through_router_decode_and_prefill() {
    let (collector, uri) = Collector::start().await;
    let telemetry = ["--otlp-endpoint", uri.as_str()];
    let mut cluster = Cluster::builder()
        .worker_args(&telemetry)
        .router_args(&[&telemetry[..], &["--handoff", "always"]].concat())
        .start()
        .await;

    cluster.client().chat("What is a trace?", 4).await.expect("an answer");

    wait_until("the request's trace", Duration::from_secs(30), || async {
        let traces = collector.traces();
        let whole = traces.values().find(|spans| {
            let has = |service: &str, name: &str| {
                spans.iter().any(|(of, span)| of == service && span.contains(name))
            };
            has("baton-router", "/v1/chat/completions")
                && has("baton-decode-worker", "Decode/Generate")
                && has("baton-prefill-worker", "Prefill/Prefill")
        });
        if whole.is_some() { Ok(()) } else { Err(format!("{traces:#?}")) }
    })
    .await;
    cluster.assert_clean().await;
}
