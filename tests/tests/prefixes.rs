//! Prompts that begin alike, on workers that have computed one of them.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::process::Command;
use std::time::{Duration, Instant};

use baton_tests::client::grpc::{Grpc, token_request};
use baton_tests::process::baton;
use baton_tests::{Cluster, Node, wait_until};
use serde_json::json;

/// Tokens that the prompts of a family begin with: twelve blocks, and a part.
const SHARED: u32 = 200;

/// A prompt of a family of prompts that begin alike, and its own end.
fn prompt(family: u32, own: u32) -> Vec<u32> {
    let shared = (0..SHARED).map(|at| (at * 7 + family * 13) % 90 + 10);
    shared.chain([own % 90 + 10, own / 90 + 10]).collect()
}

/// Prompt tokens that were found in a cache, of one request of each family.
async fn cached(grpc: &Grpc, families: std::ops::Range<u32>, own: u32) -> Vec<u32> {
    let mut cached = Vec::new();
    for family in families {
        let answer = grpc.generate(token_request(&prompt(family, own), 4)).await;
        cached.push(answer.expect("an answer").usage().cached_tokens);
    }
    cached
}

/// Waits until a router knows what so many workers have.
async fn knows(router: &Node, workers: usize) {
    wait_until("a router to know what is cached", Duration::from_secs(10), || async {
        let metrics = router.metrics().await;
        let exact =
            metrics.require("baton_prefix_index_workers", &[("confidence", "exact")]) as usize;
        let blocks = metrics.require("baton_prefix_index_blocks", &[]);
        let known = exact == workers && blocks > 0.0;
        if known { Ok(()) } else { Err(format!("{exact} workers, {blocks} blocks")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_goes_where_its_prefix_is_also_from_another_router() {
    let builder = Cluster::builder().prefill(3).decode(1);
    let mut cluster = builder.router_args(&["--handoff", "always"]).start().await;
    let grpc = cluster.grpc().await;
    assert_eq!(cached(&grpc, 0..9, 1).await, [0; 9]);
    // At once: what was sent counts before anybody has told of it.
    let hits = [192; 9];
    assert_eq!(cached(&grpc, 0..9, 2).await, hits);
    knows(&cluster.router, 4).await;
    assert_eq!(cached(&grpc, 0..9, 3).await, hits);

    // One that has placed nothing itself knows it from the workers.
    let other = cluster.another_router().await;
    knows(&other, 4).await;
    assert_eq!(cached(&other.grpc().await, 0..9, 4).await, hits);
    let metrics = other.metrics().await;
    for counter in ["baton_prefix_expected_tokens", "baton_prefix_found_tokens"] {
        assert_eq!(metrics.require(counter, &[]), 9.0 * 192.0, "{counter}: it was no accident");
    }
    drop(other);
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_was_killed_knows_it_again_within_two_seconds() {
    let builder = Cluster::builder().prefill(3).decode(1);
    let mut cluster = builder.router_args(&["--handoff", "always"]).start().await;
    assert_eq!(cached(&cluster.grpc().await, 0..9, 1).await, [0; 9]);
    knows(&cluster.router, 4).await;

    cluster.router.kill();
    cluster.router.restart().await;
    cluster.sees_workers(3, 1).await;
    let ready = Instant::now();
    knows(&cluster.router, 4).await;
    assert!(ready.elapsed() < Duration::from_secs(2), "{:?}", ready.elapsed());
    assert_eq!(cached(&cluster.grpc().await, 0..9, 2).await, [192; 9]);
    cluster.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_share_no_blocks_on_any_worker() {
    let mut cluster = Cluster::builder().prefill(2).decode(1).start().await;
    let client = cluster.client();
    for (salt, is_cached) in [("red", false), ("blue", false), ("red", true), ("blue", true)] {
        let body = json!({"prompt": prompt(1, 1), "max_tokens": 4, "cache_salt": salt});
        let explained = client.whole("/v1/route/explain", &body).await.expect("an explanation");
        let expected = explained["prompts"][0]["cached_tokens"].as_u64().expect("a number");
        let answer = client.whole("/v1/completions", &body).await.expect("an answer");
        let found = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(found.as_u64().map(|found| found > 0), Some(is_cached), "{salt}: {answer}");
        assert_eq!(expected > 0, is_cached, "{salt}: {explained}");
    }
    cluster.assert_clean().await;
}

/// Runs `baton etcd ls --prefixes`.
fn etcd_ls(cluster: &Cluster) -> String {
    let etcd = cluster.etcd.endpoint();
    let args = ["etcd", "ls", "--prefixes", "--etcd", &etcd, "--namespace", "test"];
    let output = Command::new(baton()).args(args).output().expect("baton starts");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hot_is_in_etcd_for_a_router_that_starts_cold() {
    let builder = Cluster::builder().prefill(2).decode(1);
    let mut cluster = builder.router_args(&["--handoff", "always"]).start().await;
    let grpc = cluster.grpc().await;
    let long: Vec<u32> = (0..300).map(|at| (at * 11) % 90 + 10).collect();
    for own in 0..3 {
        let prompt = [&long[..], &[own + 10]].concat();
        grpc.generate(token_request(&prompt, 4)).await.expect("an answer");
    }
    let patience = Duration::from_secs(10);
    let told = wait_until("a prefix to be in etcd", patience, || async {
        let listed = etcd_ls(&cluster);
        let told: Vec<_> = listed.lines().filter(|line| line.starts_with("    16 ")).collect();
        if told.is_empty() { Err(listed.clone()) } else { Ok(told.len()) }
    })
    .await;
    let other = cluster.another_router().await;
    wait_until("a router to read it", patience, || async {
        let known = other.metrics().await.require("baton_prefix_anchors", &[]) as usize;
        if known >= told { Ok(()) } else { Err(format!("{known}")) }
    })
    .await;
    drop(other);
    cluster.assert_clean().await;
}
