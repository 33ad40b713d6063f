//! Workers that end and come back, and what their users see of it: nothing.

use std::time::Duration;

use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::{Client, Cluster, Load, wait_until};
use futures::future::join_all;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const LEASE_TTL_S: u32 = 2;
const PATIENCE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_lone_decode_worker_that_is_killed_and_comes_back_loses_no_stream() {
    let mut cluster = Cluster::builder().prefill(0).lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 6, 32);
    more_chats_end(&load, 6).await;
    for _ in 0..2 {
        cluster.decode[0].kill();
        cluster.decode[0].restart().await;
        more_chats_end(&load, 12).await;
    }
    load.stop().await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_was_stopped_for_a_while_loses_nothing() {
    let mut cluster =
        Cluster::builder().prefill(1).decode(2).lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 8, 64);
    more_chats_end(&load, 8).await;
    for _ in 0..2 {
        cluster.router.process().freeze();
        tokio::time::sleep(Duration::from_secs(7)).await; // The scenario, not a way of waiting.
        cluster.router.process().thaw();
        more_chats_end(&load, 16).await;
    }
    load.stop().await.assert_flawless();
    let log = cluster.router.process().log_text();
    assert!(!log.contains("member lost"), "workers were given up that had done nothing");
    cluster.assert_clean().await;
}

/// All timers of a process that was stopped are over when it goes on, before it has read what came meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn who_spoke_while_the_router_was_stopped_is_heard() {
    const CLIENTS: usize = 32;
    const ASK: &[u8] = b"GET /v1/models HTTP/1.1\r\nhost: baton\r\n\r\n";
    let limits = ["--greeting-timeout-s", "2", "--head-timeout-s", "2", "--body-timeout-s", "2"];
    let mut cluster = Cluster::builder().prefill(0).router_args(&limits).start().await;
    let addr = cluster.router.ports().http.unwrap();
    let mut clients = Vec::new();
    for nth in 0..CLIENTS {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // Some were served before, some have not said a word yet.
        if nth % 2 == 0 {
            stream.write_all(ASK).await.unwrap();
            assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200"));
        }
        clients.push(stream);
    }
    // The router has accepted them.
    assert_eq!(cluster.client().get("/v1/models").await.0, 200);

    cluster.router.process().freeze();
    for client in &mut clients {
        client.write_all(ASK).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await; // The scenario, not a way of waiting.
    cluster.router.process().thaw();
    let answers = join_all(clients.iter_mut().map(answer)).await;
    let served = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert_eq!(served, CLIENTS, "{answers:?}");
}

/// What comes first, or nothing from a connection that is closed.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 64 << 10];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer");
    String::from_utf8_lossy(&bytes[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_while_etcd_is_away_loses_nothing() {
    let mut cluster = Cluster::builder()
        .prefill(2)
        .decode(2)
        .stable_ports()
        .lease_ttl_s(LEASE_TTL_S)
        .start()
        .await;
    let load = Load::start(&cluster.client(), 8, 16);
    more_chats_end(&load, 16).await;

    cluster.etcd.stop();
    for worker in cluster.prefill.iter_mut().chain(&mut cluster.decode) {
        worker.restart().await;
        // Ready means that the router has found it: nothing but that is waited for.
        worker.ready().await;
    }
    more_chats_end(&load, 16).await;
    load.stop().await.assert_flawless();
    cluster.sees_workers(2, 2).await;
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_nobody_can_find_is_not_ready() {
    let mut cluster = Cluster::builder().lease_ttl_s(LEASE_TTL_S).start().await;
    cluster.etcd.stop();
    // At another port, and nobody to ask: it serves, and nobody comes.
    cluster.prefill[0].restart().await;
    let prefill = cluster.prefill[0].process();
    prefill.logged("serving gRPC", PATIENCE).await;
    prefill.logged("registration pending", PATIENCE).await;
    let url = format!("http://{}/ready", cluster.prefill[0].status_addr());
    let answer = reqwest::get(url).await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 503);
    let text = answer.text().await.expect("its text");
    assert!(text.contains("no router can find it"), "{text}");
    cluster.etcd.resume().await;
    cluster.prefill[0].ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_does_not_go_on_from_other_weights() {
    let mut cluster = Cluster::builder().prefill(0).lease_ttl_s(LEASE_TTL_S).start().await;
    let grpc = cluster.grpc().await;
    let request = token_request(&[10, 20, 30, 40, 50], 300);
    let undisturbed = grpc.generate(request.clone()).await.expect("an answer");

    let mut stream = grpc.open(request).await.expect("a stream");
    let mut disturbed = baton_tests::Generated::default();
    while disturbed.tokens().is_empty() {
        disturbed.take(stream.message().await.expect("a message").expect("more"));
    }
    let mut other = cluster.another_decode("d9", &cluster.model.reweighted(cluster.folder())).await;
    other.ready().await;
    cluster.sees_workers(0, 2).await;
    let editions = fingerprints(&cluster).await;
    assert_eq!(editions.len(), 2, "{editions:?}");

    cluster.decode[0].kill();
    cluster.sees_workers(0, 1).await;
    let answer = cluster.client().chat("Who answers now?", 8).await.expect("an answer");
    assert_eq!(answer.header("x-baton-decode-worker"), "d9");
    cluster.decode[0].restart().await;
    while let Some(message) = stream.message().await.expect("the stream to go on") {
        disturbed.take(message);
    }
    assert_eq!(disturbed.tokens(), undisturbed.tokens(), "it changed its mind");
    assert_eq!(disturbed.usage().system_fingerprint, undisturbed.usage().system_fingerprint);
    assert_eq!(disturbed.usage().decode_worker_id, "d0");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_name_the_weights_they_are_from() {
    let cluster = Cluster::builder().lease_ttl_s(LEASE_TTL_S).start().await;
    let client = cluster.client();
    let [edition] = &fingerprints(&cluster).await[..] else { panic!("one set of weights") };
    let name = edition["fingerprint"].as_str().expect("a name").to_owned();
    assert!(edition["takes_new"].as_bool().expect("a flag"));

    let mut body = chat_body("Who are you?", 4);
    body["stream"] = false.into();
    let (_, _, whole) = client.post("/v1/chat/completions", &body).await;
    assert_eq!(whole["system_fingerprint"], name.as_str());
    body["stream"] = true.into();
    let mut stream = client.open("/v1/chat/completions", &body).await.expect("a stream");
    while let Some(event) = stream.next().await.expect("an event") {
        if event != "[DONE]" {
            let event: Value = serde_json::from_str(&event).expect("JSON");
            assert_eq!(event["system_fingerprint"], name.as_str());
        }
    }
    let labels = [("fingerprint", name.as_str()), ("role", "decode")];
    assert_eq!(cluster.router.metrics().await.require("baton_fingerprint_workers", &labels), 1.0);
}

/// What the router says of the weights there are.
async fn fingerprints(cluster: &Cluster) -> Vec<Value> {
    let (_, text) = Client::new(cluster.router.status_addr()).get("/ready").await;
    let ready: Value = serde_json::from_str(&text).expect("JSON");
    ready["fingerprints"].as_array().expect("a list").clone()
}

async fn more_chats_end(load: &Load, chats: usize) {
    let goal = load.ended() + chats;
    wait_until("chats to end", PATIENCE, || async {
        let ended = load.ended();
        if ended >= goal { Ok(()) } else { Err(format!("{ended} of {goal}")) }
    })
    .await;
}
