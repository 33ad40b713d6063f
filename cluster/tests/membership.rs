//! One suite over every implementation of membership.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use cluster::testing::{Etcd, wait_for};
use cluster::{
    ClusterError, EtcdMembership, Members, Membership, MemoryMembership, Registration, Standing,
};
use rstest::rstest;
use support::store::{Kind, Store, life};
use tokio::sync::watch;
use words::{Incarnation, NodeState, Role, WorkerId, WorkerInfo};

impl Store {
    /// Registers a worker of a process that then dies without a word.
    async fn register_and_die(&self, info: WorkerInfo) {
        match self {
            Self::Memory(store) => {
                std::mem::forget(store.register(info.clone()).await.unwrap());
                store.expire(&info.address.worker);
            }
            Self::Etcd(etcd) => {
                let config = etcd.config();
                let (registered, wait) = tokio::sync::oneshot::channel();
                let runtime = tokio::runtime::Runtime::new().unwrap();
                runtime.spawn(async move {
                    let membership = EtcdMembership::connect(config).unwrap();
                    let registration = membership.register(info).await.unwrap();
                    registered.send(()).unwrap();
                    std::future::pending::<()>().await;
                    drop((membership, registration));
                });
                wait.await.unwrap();
                // No destructor gets to speak to etcd: its tasks are gone with the runtime.
                runtime.shutdown_background();
            }
        }
    }
}

async fn see(
    what: &str,
    view: &mut watch::Receiver<Arc<Members>>,
    mut holds: impl FnMut(&Members) -> bool,
) -> Arc<Members> {
    wait_for(what, view, |members| members.stale_since.is_none() && holds(members)).await
}

fn ids(members: &Members) -> Vec<String> {
    members.workers.keys().map(ToString::to_string).collect()
}

fn state(members: &Members, id: &str) -> Option<NodeState> {
    members.workers.get(&WorkerId::from(id)).map(|info| info.state)
}

async fn stands(registration: &Registration, want: Standing) {
    wait_for("the standing", &mut registration.standing(), |standing| *standing == want).await;
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn a_registered_worker_is_seen_with_all_it_published(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (node, watcher) = (store.connect(), store.connect());
    let registration = node.register(life("a", 1)).await.unwrap();
    let members = see("a", &mut watcher.view(), |members| !members.workers.is_empty()).await;
    assert_eq!(members.workers[&WorkerId::from("a")], life("a", 1));
    assert!(members.revision > 0);
    assert_eq!(*registration.standing().borrow(), Standing::Registered);
    assert_eq!(members.of(Role::Decode).count(), 1);
    assert_eq!(members.of(Role::Prefill).count(), 0);
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn updates_are_seen_in_the_end_and_repeating_one_is_no_news(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let node = store.connect();
    let view = store.connect().view();
    let watcher = store.connect();
    let mut other = watcher.view();
    let registration = node.register(life("a", 1)).await.unwrap();
    for state in [NodeState::Draining, NodeState::HoldingKv, NodeState::HoldingKv] {
        registration.update(state);
    }
    let holding = |members: &Members| state(members, "a") == Some(NodeState::HoldingKv);
    let before = see("the last state", &mut other, holding).await.revision;
    drop(view.has_changed());
    registration.update(NodeState::HoldingKv);
    let marker = node.register(life("marker", 1)).await.unwrap();
    let after = see("the marker", &mut other, |members| members.workers.len() == 2).await;
    assert!(after.revision - before <= 2, "{before} to {}", after.revision);
    drop(marker);
}

#[rstest]
#[case::memory_deregister(Kind::Memory, true)]
#[case::memory_drop(Kind::Memory, false)]
#[case::etcd_deregister(Kind::Etcd, true)]
#[case::etcd_drop(Kind::Etcd, false)]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_is_gone(#[case] kind: Kind, #[case] wait: bool) {
    let store = Store::new(kind).await;
    let (node, watcher) = (store.connect(), store.connect());
    let mut view = watcher.view();
    let registration = node.register(life("a", 1)).await.unwrap();
    let other = node.register(life("b", 1)).await.unwrap();
    see("both", &mut view, |members| members.workers.len() == 2).await;
    let mut standing = registration.standing();
    if wait {
        registration.deregister().await;
        assert_eq!(*standing.borrow(), Standing::Left);
    } else {
        drop(registration);
        wait_for("the end", &mut standing, |standing| *standing == Standing::Left).await;
    }
    see("a to be gone", &mut view, |members| ids(members) == ["b"]).await;
    drop(other);
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_is_gone_when_its_lease_ends(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let watcher = store.connect();
    let mut view = watcher.view();
    see("the first view", &mut view, |_| true).await;
    store.register_and_die(life("a", 1)).await;
    see("a to be gone", &mut view, |members| members.workers.is_empty()).await;
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn closing_a_handle_removes_what_it_registered_and_no_more(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (node, other) = (store.connect(), store.connect());
    let mut view = other.view();
    let mine = node.register(life("a", 1)).await.unwrap();
    let theirs = other.register(life("b", 1)).await.unwrap();
    see("both", &mut view, |members| members.workers.len() == 2).await;
    node.close().await;
    see("a to be gone", &mut view, |members| ids(members) == ["b"]).await;
    stands(&mine, Standing::Left).await;
    stands(&theirs, Standing::Registered).await;
    let refused = node.register(life("c", 1)).await.err();
    assert!(matches!(refused, Some(ClusterError::Closed)), "{refused:?}");
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn a_newer_life_replaces_an_older_and_outlives_its_goodbye(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (old_node, new_node, watcher) = (store.connect(), store.connect(), store.connect());
    let old = old_node.register(life("a", 1)).await.unwrap();
    let new = new_node.register(life("a", 2)).await.unwrap();
    let newest =
        |members: &Members| members.workers.values().all(|info| info.address.incarnation.0 == 2);
    let mut view = watcher.view();
    see("the new life", &mut view, |members| ids(members) == ["a"] && newest(members)).await;
    stands(&old, Standing::Superseded(Incarnation(2))).await;
    old.update(NodeState::Gone);
    old.deregister().await;
    old_node.close().await;
    new.update(NodeState::Draining);
    let drains = |members: &Members| state(members, "a") == Some(NodeState::Draining);
    let members = see("news of the new life", &mut view, drains).await;
    assert!(newest(&members));
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn an_older_life_never_overwrites_a_newer(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let (node, watcher) = (store.connect(), store.connect());
    let new = node.register(life("a", 2)).await.unwrap();
    let refused = node.register(life("a", 1)).await.err();
    let Some(ClusterError::Superseded { worker, by }) = refused else { panic!("{refused:?}") };
    assert_eq!((worker, by), (WorkerId::from("a"), Incarnation(2)));
    new.update(NodeState::Draining);
    let drains = |members: &Members| state(members, "a") == Some(NodeState::Draining);
    let members = see("news of the new life", &mut watcher.view(), drains).await;
    assert_eq!(members.workers[&WorkerId::from("a")].address.incarnation, Incarnation(2));
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn fifty_workers_register_at_once_and_two_watchers_agree(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let nodes: Vec<_> = (0..5).map(|_| store.connect()).collect();
    let (first, second) = (store.connect(), store.connect());
    let all = (0..50).map(|n| nodes[n % 5].register(life(&format!("w{n:02}"), 1)));
    let registrations = futures::future::try_join_all(all).await.unwrap();
    let complete = |members: &Members| members.workers.len() == 50;
    let mine = see("fifty", &mut first.view(), complete).await;
    let theirs = see("fifty", &mut second.view(), complete).await;
    assert_eq!(mine.workers, theirs.workers);
    let deregister = registrations.into_iter().map(Registration::deregister);
    futures::future::join_all(deregister).await;
    for watcher in [first, second] {
        see("nobody", &mut watcher.view(), |members| members.workers.is_empty()).await;
    }
}

#[rstest]
#[case::memory(Kind::Memory)]
#[case::etcd(Kind::Etcd)]
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_found_again_is_refused(#[case] kind: Kind) {
    let store = Store::new(kind).await;
    let node = store.connect();
    for id in ["", "a/b", "a b", "ä"] {
        let refused = node.register(life(id, 1)).await.err();
        assert!(matches!(refused, Some(ClusterError::Config(_))), "{id:?}: {refused:?}");
    }
    for uri in ["", "host:80", "ftp://host", "http://"] {
        let mut info = life("a", 1);
        info.address.uri = uri.to_owned();
        let refused = node.register(info).await.err();
        assert!(matches!(refused, Some(ClusterError::Config(_))), "{uri:?}: {refused:?}");
    }
}

#[tokio::test]
async fn a_memory_store_that_is_away_serves_its_last_view() {
    let store = MemoryMembership::new();
    let watcher = store.clone();
    let a = store.register(life("a", 1)).await.unwrap();
    store.set_away(true);
    let b = store.register(life("b", 1)).await.unwrap();
    let members = watcher.view().borrow().clone();
    assert!(members.stale_since.is_some());
    assert_eq!(ids(&members), ["a"]);
    store.set_away(false);
    let members = watcher.view().borrow().clone();
    assert_eq!(ids(&members), ["a", "b"]);
    drop((a, b));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_sees_what_was_there_before_it() {
    let etcd = Etcd::start().await;
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let _registration = node.register(life("a", 1)).await.unwrap();
    let late = EtcdMembership::connect(etcd.config()).unwrap();
    let members = late.ready(Duration::from_secs(10)).await;
    assert_eq!(ids(&members), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_do_not_see_each_other() {
    let etcd = Etcd::start().await;
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let _registration = node.register(life("a", 1)).await.unwrap();
    let mut config = etcd.config();
    config.namespace = "defaul".to_owned();
    let stranger = EtcdMembership::connect(config).unwrap();
    let members = stranger.ready(Duration::from_secs(10)).await;
    assert_eq!((ids(&members), members.stale_since), (vec![], None));
}
