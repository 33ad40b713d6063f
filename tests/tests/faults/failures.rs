//! What breaks in a cluster, and what its users see of it.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::cluster::sees_workers;
use baton_tests::{Cluster, Generated, Grpc, Load, load, seconds_from_env, wait_until};
use proto::v1;
use rstest::rstest;
use words::Role;

const LEASE_TTL_S: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_prefill_worker_loses_no_request() {
    let mut cluster = Cluster::builder()
        .prefill(2)
        .lease_ttl_s(LEASE_TTL_S)
        .router_args(&["--handoff", "always"])
        .start()
        .await;
    let load = Load::start(&cluster.client(), 32, 16);
    more_chats_end(&load, 32).await;

    cluster.prefill[0].kill();
    more_chats_end(&load, 64).await;

    // It comes back under its name, as a new life, and is given work again.
    cluster.prefill[0].restart().await;
    cluster.prefill[0].ready().await;
    cluster.sees_workers(2, 1).await;
    wait_until("p0 to be given work", Duration::from_secs(30), || async {
        let tokens = cluster.prefill[0].metrics().await.require("baton_prefill_tokens", &[]);
        if tokens > 0.0 { Ok(()) } else { Err("none yet".to_owned()) }
    })
    .await;

    load.stop().await.assert_flawless();
    cluster.assert_clean().await;
}

/// A prefill worker generates where the only decode worker is busy.
#[rstest]
#[case::decode(Role::Decode, 2)]
#[case::prefill(Role::Prefill, 1)]
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_workers_streams_go_on_with_the_same_tokens(
    #[case] role: Role,
    #[case] decode_workers: usize,
) {
    let builder = Cluster::builder().decode(decode_workers).lease_ttl_s(LEASE_TTL_S);
    let mut cluster = builder.router_args(&["--handoff", "auto"]).start().await;
    let grpc = cluster.grpc().await;
    let requests: Vec<_> = (0..16).map(long_request).collect();
    let undisturbed = all_at_once(&grpc, &requests, Arc::default()).await;

    let delivered = Arc::new(AtomicUsize::new(0));
    let disturbed = tokio::spawn({
        let (grpc, requests, delivered) = (grpc.clone(), requests.clone(), delivered.clone());
        async move { all_at_once(&grpc, &requests, delivered).await }
    });
    // As early as there is something to lose: on a slow machine the metrics are late.
    wait_until("streams to be under way", Duration::from_secs(60), || async {
        let messages = delivered.load(Ordering::Relaxed);
        let node = if role == Role::Prefill { &cluster.prefill[0] } else { &cluster.decode[0] };
        let running = node.metrics().await.require("baton_sequences_running", &[]);
        let is_under_way = messages >= 2 * requests.len() && running > 0.0;
        if is_under_way { Ok(()) } else { Err(format!("{messages} messages, {running} running")) }
    })
    .await;
    match role {
        Role::Prefill => cluster.prefill[0].kill(),
        Role::Decode => cluster.decode[0].kill(),
    }

    let disturbed = disturbed.await.expect("the streams");
    let lost = cluster.router.metrics().await.require("baton_legs_lost", &[]);
    assert!(lost > 0.0, "nobody lost a worker; the test would prove nothing");
    for (index, (got, want)) in disturbed.iter().zip(&undisturbed).enumerate() {
        assert_eq!(got.tokens, want.tokens, "request {index} changed its mind");
        assert_eq!(got.text, want.text, "request {index}");
        assert_eq!(got.finish, want.finish, "request {index}");
    }
    cluster.assert_clean().await;
}

#[rstest]
#[case::prefill(Role::Prefill)]
#[case::decode(Role::Decode)]
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_worker_is_given_up_and_its_streams_go_on(#[case] role: Role) {
    let mut cluster =
        Cluster::builder().prefill(2).decode(2).lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 16, 24);
    more_chats_end(&load, 16).await;

    // It holds its connections open and says nothing: the hardest way to be gone.
    let workers = if role == Role::Prefill { &mut cluster.prefill } else { &mut cluster.decode };
    workers[0].process().freeze();
    more_chats_end(&load, 48).await;
    workers[0].process().thaw();
    cluster.sees_workers(2, 2).await;

    load.stop().await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_decode_worker_loses_no_chat() {
    let mut cluster =
        Cluster::builder().prefill(2).decode(2).lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 32, 24);
    more_chats_end(&load, 32).await;

    cluster.decode[1].kill();
    more_chats_end(&load, 64).await;
    cluster.decode[1].restart().await;
    cluster.decode[1].ready().await;
    cluster.sees_workers(2, 2).await;

    load.stop().await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_router_leaves_nothing_behind_on_the_workers() {
    let mut cluster = Cluster::builder().router_args(&["--handoff", "always"]).start().await;
    let client = cluster.client();
    let mut body = chat_body("Tell me a very long story.", 1000);
    body["ignore_eos"] = true.into();
    let mut streams = Vec::new();
    for _ in 0..8 {
        let mut stream = client.open("/v1/chat/completions", &body).await.expect("a stream");
        assert!(stream.next().await.expect("an event").is_some());
        streams.push(stream);
    }

    cluster.router.kill();
    cluster.assert_clean().await;

    for stream in streams {
        stream.finish().await.expect_err("a stream without its router");
    }
    cluster.router.restart().await;
    cluster.router.ready().await;
    cluster.sees_workers(1, 1).await;
    load::burst(&cluster.client(), 8, 8).await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_etcd_stops_nothing() {
    // Longer than any lease, so that nothing but the data plane says who is alive.
    let outage = seconds_from_env("BATON_TEST_ETCD_OUTAGE_S", 20);
    assert!(outage > Duration::from_secs(u64::from(LEASE_TTL_S) * 2));
    let mut cluster =
        Cluster::builder().prefill(2).decode(2).lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 200, 8);
    more_chats_end(&load, 100).await;

    cluster.etcd.stop();
    tokio::time::sleep(outage).await; // The scenario, not a way of waiting.
    more_chats_end(&load, 200).await;
    cluster.etcd.resume().await;
    more_chats_end(&load, 100).await;
    load.stop().await.assert_flawless();

    // Everyone is back in etcd under the name they had: a router that starts now finds them there.
    let router = cluster.another_router().await;
    sees_workers(&router, 2, 2).await;
    load::burst(&router.client(), 20, 8).await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_lost_its_data_is_told_again_who_is_there() {
    let mut cluster = Cluster::builder().lease_ttl_s(LEASE_TTL_S).start().await;
    let load = Load::start(&cluster.client(), 8, 8);
    more_chats_end(&load, 8).await;

    cluster.etcd.lose_everything();
    more_chats_end(&load, 16).await;
    cluster.etcd.resume().await;
    more_chats_end(&load, 16).await;
    load.stop().await.assert_flawless();

    let router = cluster.another_router().await;
    sees_workers(&router, 1, 1).await;
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_pool_serves_alone_when_the_other_is_gone() {
    let mut cluster = Cluster::builder().lease_ttl_s(LEASE_TTL_S).start().await;
    let client = cluster.client();

    cluster.prefill[0].kill();
    cluster.sees_workers(0, 1).await;
    let answer =
        client.chat("Is anybody there?", 8).await.expect("an answer without prefill workers");
    assert_eq!(answer.flaw(), None);
    assert_eq!(answer.header("x-baton-path"), "local");

    cluster.prefill[0].restart().await;
    cluster.prefill[0].ready().await;
    cluster.decode[0].kill();
    cluster.sees_workers(1, 0).await;
    let answer = client.chat("And now?", 8).await.expect("an answer without decode workers");
    assert_eq!(answer.flaw(), None);
    assert_eq!(answer.header("x-baton-decode-worker"), "p0");
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_workers_a_request_is_refused_at_once_with_a_time_to_come_back() {
    let mut cluster = Cluster::builder().lease_ttl_s(LEASE_TTL_S).start().await;
    cluster.prefill[0].kill();
    cluster.decode[0].kill();
    cluster.sees_workers(0, 0).await;

    let started = std::time::Instant::now();
    let refusal = cluster.client().chat("Hello?", 8).await.expect_err("nobody to answer");

    assert!(started.elapsed() < Duration::from_secs(5), "refused after {:?}", started.elapsed());
    assert_eq!(refusal.status.map(|status| status.as_u16()), Some(503), "{refusal}");
    assert!(refusal.headers.contains_key("retry-after"), "{:?}", refusal.headers);
    let (status, _) = cluster.client().get("/ready").await;
    assert_eq!(status.as_u16(), 503, "a router without workers is not ready");
}

/// Different lengths and ways of sampling; long enough to be interrupted.
fn long_request(index: u32) -> v1::InferenceRequest {
    let prompt: Vec<u32> = (0..20 + index * 7).map(|at| (at * 13 + index) % 90 + 10).collect();
    let mut request = token_request(&prompt, 160);
    if index % 2 == 1 {
        request.temperature = Some(0.9);
        request.top_p = Some(0.95);
        request.presence_penalty = Some(0.4);
        request.seed = Some(u64::from(index));
    }
    request
}

async fn all_at_once(
    grpc: &Grpc,
    requests: &[v1::InferenceRequest],
    delivered: Arc<AtomicUsize>,
) -> Vec<Generated> {
    let streams = requests.iter().map(|request| {
        let delivered = delivered.clone();
        async move {
            let mut stream = grpc.open(request.clone()).await?;
            let mut generated = Generated::default();
            while let Some(message) = stream.message().await? {
                generated.take(message);
                delivered.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, tonic::Status>(generated)
        }
    });
    let results = futures::future::join_all(streams).await;
    results.into_iter().map(|result| result.expect("a stream to its end")).collect()
}

async fn more_chats_end(load: &Load, chats: usize) {
    let goal = load.ended() + chats;
    wait_until("chats to end", Duration::from_secs(90), || async {
        let ended = load.ended();
        if ended >= goal { Ok(()) } else { Err(format!("{ended} of {goal}")) }
    })
    .await;
}
