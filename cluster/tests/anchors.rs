//! Hot prefixes, told and found, over every implementation of membership; and what etcd has of it.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::time::{Duration, Instant};

use cluster::membership::anchors::{Anchors, TOLD_MAX};
use cluster::testing::{Etcd, wait_until};
use cluster::{EtcdMembership, Membership, Registration};
use etcd_client::{Client, GetOptions};
use kv_cache::{Anchor, BlockHash, ChainHasher};
use rstest::rstest;
use support::store::{Kind, Store, life};

fn names(tenant: &str, blocks: u32) -> Vec<BlockHash> {
    let tokens: Vec<u32> = (0..blocks).collect();
    ChainHasher::new("model", tenant.as_bytes()).hash_blocks(None, &tokens, 1)
}

fn anchors(names: &[BlockHash]) -> Vec<Anchor> {
    Anchor::along(names).collect()
}

fn found(anchors: &Anchors, names: &[BlockHash]) -> Vec<(String, u64, u32)> {
    let found = anchors.find(names).into_iter();
    let mut found: Vec<_> =
        found.map(|(life, blocks)| (life.worker.to_string(), life.incarnation.0, blocks)).collect();
    found.sort();
    found
}

async fn find(anchors: &Anchors, names: &[BlockHash], want: &[(&str, u64, u32)]) {
    let want: Vec<_> = want.iter().map(|(id, life, len)| ((*id).to_owned(), *life, *len)).collect();
    wait_until(&format!("{want:?}"), async || found(anchors, names) == want).await;
}

async fn keys(etcd: &Etcd) -> Vec<String> {
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    let all = GetOptions::new().with_prefix().with_keys_only();
    let answer = client.get("/baton/default/prefixes/", Some(all)).await.unwrap();
    answer.kvs().iter().map(|kv| kv.key_str().unwrap().to_owned()).collect()
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_is_found_and_what_is_not_told_any_more_is_not(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (node, router) = (store.connect(), store.connect());
    let prompt = names("a", 100);
    let found = router.anchors();
    let [one, two] = [("one", 1), ("two", 7)].map(|(id, number)| node.register(life(id, number)));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    one.tell(anchors(&prompt));
    two.tell(anchors(&prompt[..40]));
    find(&found, &prompt, &[("one", 1, 96), ("two", 7, 32)]).await;
    one.tell(anchors(&prompt[..16]));
    find(&found, &prompt, &[("one", 1, 16), ("two", 7, 32)]).await;
    two.deregister().await;
    find(&found, &prompt, &[("one", 1, 16)]).await;
    one.tell(Vec::new());
    find(&found, &prompt, &[]).await;
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn another_life_takes_over_with_what_it_has_itself(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (node, next, router) = (store.connect(), store.connect(), store.connect());
    let (prompt, found) = (names("a", 100), router.anchors());
    let old = node.register(life("one", 1)).await.unwrap();
    old.tell(anchors(&prompt));
    find(&found, &prompt, &[("one", 1, 96)]).await;
    let new = next.register(life("one", 2)).await.unwrap();
    new.tell(anchors(&prompt[..32]));
    find(&found, &prompt, &[("one", 2, 32)]).await;
    drop((old, new));
}

/// A router that starts knows at once what is told by many, and needs no worker for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_starts_cold_finds_them_within_a_second() {
    let etcd = Etcd::start().await;
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let prompt = names("a", 16 * 64);
    let mut there: Vec<Registration> = Vec::new();
    for id in 0..20 {
        there.push(node.register(life(&format!("w{id:02}"), 1)).await.unwrap());
        there[id].tell(anchors(&prompt[..16 * (id + 1)]));
    }
    let want: u32 = (1..=20).sum();
    wait_until("all are told", async || keys(&etcd).await.len() == want as usize).await;
    let start = Instant::now();
    let router = EtcdMembership::connect(etcd.config()).unwrap();
    let cold = router.anchors();
    wait_until("all are found", async || found(&cold, &prompt).len() == there.len()).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    let deepest = found(&cold, &prompt).into_iter().map(|(_, _, blocks)| blocks).max();
    assert_eq!(deepest, Some(16 * 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn etcd_gets_the_hottest_first_and_no_more_than_there_is_a_budget_for() {
    let etcd = Etcd::start().await;
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let registration = node.register(life("one", 1)).await.unwrap();
    let hot = anchors(&names("a", 16 * (TOLD_MAX as u32 + 50)));
    registration.tell(hot.clone());
    wait_until("some are told", async || !keys(&etcd).await.is_empty()).await;
    let told = keys(&etcd).await;
    assert!(told.len() <= 64, "{} at once", told.len());
    for key in &told {
        let at = hot.iter().position(|anchor| key.contains(&anchor.hash.to_string())).unwrap();
        assert!(at < told.len(), "{at} before {}", told.len());
    }
    wait_until("as many as may be", async || keys(&etcd).await.len() == TOLD_MAX).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(keys(&etcd).await.len(), TOLD_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_etcd_lost_is_told_again_and_what_is_damaged_is_passed_over() {
    let mut etcd = Etcd::start().await;
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let router = EtcdMembership::connect(etcd.config()).unwrap();
    let (prompt, cold) = (names("a", 64), router.anchors());
    let registration = node.register(life("one", 1)).await.unwrap();
    registration.tell(anchors(&prompt[..32]));
    find(&cold, &prompt, &[("one", 1, 32)]).await;
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    for key in ["no-anchor", "fp/00/w", "fp/0000000000000000000000000000000a/w"] {
        client.put(format!("/baton/default/prefixes/{key}"), "{", None).await.unwrap();
    }
    etcd.wipe().await;
    etcd.restart().await;
    registration.tell(anchors(&prompt));
    find(&cold, &prompt, &[("one", 1, 64)]).await;
}
