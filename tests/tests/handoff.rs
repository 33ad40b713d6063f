//! Requests through separate workers: prompt on one, tokens on another.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::time::Duration;

use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::{Cluster, Load, Node, load, wait_until};

/// Streams in flight at once: what a small deployment sees at its busiest.
const MANY: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_chat_is_answered_through_a_hand_off() {
    let mut cluster = Cluster::builder().router_args(&["--handoff", "always"]).start().await;

    let answer =
        cluster.client().chat("What do you know about rivers?", 24).await.expect("an answer");

    assert_eq!(answer.flaw(), None);
    assert!(!answer.text().is_empty());
    assert_eq!(answer.header("x-baton-path"), "handoff");
    assert_eq!(answer.header("x-baton-prefill-worker"), "p0");
    assert_eq!(answer.header("x-baton-decode-worker"), "d0");
    let (prefill, decode) =
        (&cluster.prefill[0].metrics().await, &cluster.decode[0].metrics().await);
    assert!(prefill.require("baton_prefill_tokens", &[]) > 0.0, "the prompt was computed on p0");
    assert_eq!(prefill.require("baton_sampled_tokens", &[]), 1.0, "p0 gave the first token");
    assert_eq!(decode.require("baton_prefill_tokens", &[]), 0.0, "d0 computed no prompt");
    let rest = answer.completion_tokens() as f64 - 1.0;
    // The last token is on its way to the client before the counts of its step are told.
    wait_until("d0 to have given the other tokens", Duration::from_secs(10), || async {
        let sampled = cluster.decode[0].metrics().await.require("baton_sampled_tokens", &[]);
        if sampled == rest { Ok(()) } else { Err(format!("{sampled} of {rest}")) }
    })
    .await;
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_at_once_all_end_well() {
    let mut cluster = Cluster::builder().prefill(2).decode(2).start().await;

    load::burst(&cluster.client(), MANY, 16).await.assert_flawless();

    for node in &cluster.decode {
        let tokens = node.metrics().await.require("baton_sampled_tokens", &[]);
        assert!(tokens > 0.0, "{} was left out", node.name());
    }
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_pools_make_requests_wait_and_lose_none() {
    // Room for a few sequences only, so that credit and preemption are what serves the rest.
    let mut cluster = Cluster::builder()
        .worker_args(&["--kv-blocks", "48"])
        .router_args(&["--handoff", "always"])
        .start()
        .await;

    load::burst(&cluster.client(), 40, 32).await.assert_flawless();

    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_prompt_again_comes_from_the_cache_and_reads_the_same() {
    let mut cluster = Cluster::builder().router_args(&["--handoff", "always"]).start().await;
    let grpc = cluster.grpc().await;
    let prompt: Vec<u32> = (0..200).map(|token| token % 90 + 10).collect();

    let first = grpc.generate(token_request(&prompt, 20)).await.expect("the first answer");
    let second = grpc.generate(token_request(&prompt, 20)).await.expect("the second answer");

    assert_eq!(first.usage().cached_tokens, 0);
    assert!(second.usage().cached_tokens >= 176, "{:?}", second.usage());
    assert_eq!(first.tokens(), second.tokens());
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_its_blocks_within_a_second() {
    let mut cluster = Cluster::builder().router_args(&["--handoff", "always"]).start().await;
    let client = cluster.client();

    // While tokens are coming.
    let mut body = chat_body("Tell me a very long story.", 1000);
    body["ignore_eos"] = true.into();
    let mut stream = client.open("/v1/chat/completions", &body).await.expect("a stream");
    for _ in 0..3 {
        assert!(stream.next().await.expect("an event").is_some(), "the story has ended already");
    }
    assert!(blocks_in_use(&cluster.decode[0]).await > 0.0);
    drop(stream);
    within_a_second_nothing_is_held(&cluster).await;

    // While the prompt is being computed.
    let long = "Tell me more about it. ".repeat(60);
    let request = {
        let (client, body) = (client.clone(), chat_body(&long, 500));
        tokio::spawn(async move { client.stream("/v1/chat/completions", &body).await })
    };
    wait_until("work to begin", Duration::from_secs(10), || async {
        let held =
            blocks_in_use(&cluster.prefill[0]).await + blocks_in_use(&cluster.decode[0]).await;
        if held > 0.0 || request.is_finished() {
            Ok(())
        } else {
            Err("no block is held".to_owned())
        }
    })
    .await;
    request.abort();
    within_a_second_nothing_is_held(&cluster).await;

    let answer = client.chat("Are you still there?", 8).await.expect("an answer");
    assert_eq!(answer.flaw(), None);
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_leave_finish_what_they_have() {
    let mut cluster = Cluster::builder().prefill(2).decode(2).start().await;
    let load = Load::start(&cluster.client(), 24, 32);
    let patience = Duration::from_secs(60);
    enough_chats_ended(&load, 24).await;

    let status = cluster.decode[0].leave(patience).await;
    assert!(status.success(), "d0 ended with {status}");
    let status = cluster.prefill[0].leave(patience).await;
    assert!(status.success(), "p0 ended with {status}");
    enough_chats_ended(&load, load.ended() + 24).await;

    load.stop().await.assert_flawless();
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_leaves_finishes_its_streams_and_takes_no_new_ones() {
    let mut cluster = Cluster::builder().start().await;
    let client = cluster.client();
    let mut body = chat_body("Tell me a long story.", 200);
    body["ignore_eos"] = true.into();
    let mut stream = client.open("/v1/chat/completions", &body).await.expect("a stream");
    assert!(stream.next().await.expect("an event").is_some());

    cluster.router.process().terminate();
    let answer = stream.finish().await.expect("the rest of the stream");

    assert_eq!(answer.flaw(), None);
    assert_eq!(answer.completion_tokens(), 200);
    let status = cluster.router.process().exited(Duration::from_secs(30)).await;
    assert!(status.success(), "the router ended with {status}");
    cluster.assert_clean().await;
}

async fn blocks_in_use(node: &Node) -> f64 {
    let metrics = node.metrics().await;
    let blocks = |state| metrics.require("baton_kv_blocks", &[("state", state)]);
    blocks("active") + blocks("reserved")
}

async fn within_a_second_nothing_is_held(cluster: &Cluster) {
    wait_until("blocks to come back", Duration::from_secs(1), || async {
        let prefill = blocks_in_use(&cluster.prefill[0]).await;
        let decode = blocks_in_use(&cluster.decode[0]).await;
        let held = format!("{prefill} blocks on p0, {decode} on d0");
        if prefill + decode == 0.0 { Ok(()) } else { Err(held) }
    })
    .await;
}

async fn enough_chats_ended(load: &Load, chats: usize) {
    wait_until("the load to get going", Duration::from_secs(60), || async {
        let ended = load.ended();
        if ended >= chats { Ok(()) } else { Err(format!("{ended} of {chats} chats")) }
    })
    .await;
}
