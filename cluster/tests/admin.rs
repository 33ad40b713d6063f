//! What operators and probes get to see, over real sockets.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::Lifecycle;
use cluster::telemetry::{AdminServer, Metrics, Probes};
use cluster::testing::DEADLINE;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

struct Admin {
    node: Lifecycle,
    addr: SocketAddr,
    server: JoinHandle<()>,
}

impl Admin {
    async fn start(probes: impl FnOnce(Probes) -> Probes, metrics: Metrics) -> Self {
        let node = Lifecycle::new();
        let server = AdminServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = server.local_addr();
        let probes = probes(Probes::new(&node));
        let server = tokio::spawn(async move { server.serve(probes, metrics).await });
        Self { node, addr, server }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{}{path}", self.addr)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn ask(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_every_reason_against_it() {
    let loaded = Arc::new(AtomicBool::new(false));
    let model = loaded.clone();
    let check = move || {
        if model.load(Ordering::Relaxed) { Ok(()) } else { Err("weights 40 %".to_owned()) }
    };
    let admin = Admin::start(|probes| probes.ready("model", check), Metrics::new()).await;
    let starting = json!({ "ok": false, "state": "starting", "reasons": [
        { "check": "state", "reason": "the node is starting" },
        { "check": "model", "reason": "weights 40 %" },
    ]});
    assert_eq!(admin.ask("/ready").await, (503, starting));
    assert_eq!(admin.ask("/health").await, (200, json!({ "ok": true, "state": "starting" })));

    loaded.store(true, Ordering::Relaxed);
    admin.node.serve();
    assert_eq!(admin.ask("/ready").await, (200, json!({ "ok": true, "state": "serving" })));

    admin.node.drain(DEADLINE).await;
    let draining = json!({ "ok": false, "state": "draining", "reasons": [
        { "check": "state", "reason": "the node is draining" },
    ]});
    assert_eq!(admin.ask("/ready").await, (503, draining));
    assert_eq!(admin.ask("/health").await.0, 200, "a node that drains must not be restarted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_only_a_restart_can_mend_is_not_alive() {
    let dead = |probes: Probes| probes.alive("engine", || Err("the engine stopped".to_owned()));
    let admin = Admin::start(dead, Metrics::new()).await;
    let (status, answer) = admin.ask("/health").await;
    assert_eq!(status, 503);
    assert_eq!(answer["reasons"][0]["reason"], "the engine stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served_until_the_node_has_stopped() {
    let metrics = Metrics::new();
    metrics.counter("baton_requests", "Requests received").inc();
    let admin = Admin::start(|probes| probes, metrics).await;
    let (status, text) = admin.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("\nbaton_requests_total 1\n"), "{text}");
    admin.node.stop(DEADLINE).await;
    tokio::time::timeout(DEADLINE, admin.server).await.expect("an end").unwrap();
}
