//! What an etcd that goes away does to a cluster: nothing that anyone could see but in the logs.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

use std::sync::Arc;
use std::time::Duration;

use cluster::membership::entry;
use cluster::testing::{DEADLINE, Etcd, wait_for, wait_until, worker};
use cluster::{EtcdConfig, EtcdMembership, Members, Membership, Registration, Standing};
use etcd_client::{Client, PutOptions};
use rstest::rstest;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use words::{Incarnation, NodeState, Role, WorkerId};

/// Two workers and a watcher, each with a connection of its own.
struct Cluster {
    nodes: [EtcdMembership; 2],
    registrations: [Registration; 2],
    watcher: EtcdMembership,
}

impl Cluster {
    async fn start(config: &EtcdConfig) -> Self {
        let connect = || EtcdMembership::connect(config.clone()).unwrap();
        let (nodes, watcher) = ([connect(), connect()], connect());
        let a = nodes[0].register(worker("a", Role::Prefill)).await.unwrap();
        let b = nodes[1].register(worker("b", Role::Decode)).await.unwrap();
        let cluster = Self { nodes, registrations: [a, b], watcher };
        wait_for("both", &mut cluster.view(), |members| complete(members)).await;
        cluster
    }

    fn view(&self) -> watch::Receiver<Arc<Members>> {
        self.watcher.view()
    }

    async fn stand(&self, want: Standing) {
        for registration in &self.registrations {
            wait_for("the standing", &mut registration.standing(), |at| *at == want).await;
        }
    }
}

fn complete(members: &Members) -> bool {
    let lives = members.workers.values().map(|info| info.address.incarnation);
    lives.eq([Incarnation(1), Incarnation(1)])
}

fn current(members: &Members) -> bool {
    members.stale_since.is_none()
}

/// Fails the test if the view ever lacks a worker; ends with the token.
async fn never_incomplete(mut view: watch::Receiver<Arc<Members>>, until: CancellationToken) {
    loop {
        let members = view.borrow_and_update().clone();
        assert!(complete(&members), "a worker was dropped: {members:?}");
        tokio::select! {
            changed = view.changed() => changed.unwrap(),
            () = until.cancelled() => return,
        }
    }
}

#[derive(Clone, Copy)]
enum Outage {
    Stopped,
    Killed,
    Wiped,
    Hanging,
}

#[rstest]
#[case::stopped(Outage::Stopped)]
#[case::killed(Outage::Killed)]
#[case::data_lost(Outage::Wiped)]
#[case::hanging(Outage::Hanging)]
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_leases_loses_nobody(#[case] outage: Outage) {
    let mut etcd = Etcd::start().await;
    let config = etcd.config();
    let cluster = Cluster::start(&config).await;
    let done = CancellationToken::new();
    let watched = tokio::spawn(never_incomplete(cluster.view(), done.clone()));

    match outage {
        Outage::Stopped => etcd.stop().await,
        Outage::Killed => etcd.kill().await,
        Outage::Wiped => etcd.wipe().await,
        Outage::Hanging => etcd.pause(),
    }
    wait_for("the view to be stale", &mut cluster.view(), |members| !current(members)).await;
    cluster.stand(Standing::Pending).await;
    // Not a wait for something: the outage itself has to outlast the leases.
    tokio::time::sleep(config.lease_ttl * 2).await;
    cluster.registrations[0].update(NodeState::Draining);
    match outage {
        Outage::Hanging => etcd.resume(),
        _ => etcd.restart().await,
    }

    cluster.stand(Standing::Registered).await;
    let draining = |members: &Arc<Members>| {
        let a = &members.workers[&WorkerId::from("a")];
        current(members) && a.state == NodeState::Draining
    };
    wait_for("what changed meanwhile", &mut cluster.view(), draining).await;
    // Past the life of the leases from before, which must not take the entries with them.
    tokio::time::sleep(config.lease_ttl * 2).await;
    done.cancel();
    watched.await.unwrap();

    let [a, b] = cluster.registrations;
    b.update(NodeState::HoldingKv);
    let holding = |members: &Arc<Members>| {
        members.workers[&WorkerId::from("b")].state == NodeState::HoldingKv
    };
    wait_for("later changes", &mut cluster.watcher.view(), holding).await;
    a.deregister().await;
    let without_a = |members: &Arc<Members>| members.workers.keys().eq([&WorkerId::from("b")]);
    wait_for("a goodbye", &mut cluster.watcher.view(), without_a).await;
    drop((b, cluster.nodes));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_come_back_is_given_up_after_the_grace_period() {
    let mut etcd = Etcd::start().await;
    let config = EtcdConfig { grace: Duration::from_secs(3), ..etcd.config() };
    let cluster = Cluster::start(&config).await;
    let [a, b] = cluster.registrations;
    etcd.wipe().await;
    wait_for("the view to be stale", &mut cluster.watcher.view(), |members| !current(members))
        .await;
    b.deregister().await;
    etcd.restart().await;
    let back =
        wait_for("the new etcd", &mut cluster.watcher.view(), |members| current(members)).await;
    assert!(complete(&back), "b was given up at once");
    let only_a = |members: &Arc<Members>| members.workers.keys().eq([&WorkerId::from("a")]);
    wait_for("b to be given up", &mut cluster.watcher.view(), only_a).await;
    drop(a);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_may_start_before_etcd() {
    let mut etcd = Etcd::start().await;
    etcd.stop().await;
    let config = EtcdConfig { register_patience: Duration::from_millis(50), ..etcd.config() };
    let node = EtcdMembership::connect(config).unwrap();
    assert!(node.view().borrow().stale_since.is_some());
    let registration = node.register(worker("a", Role::Decode)).await.unwrap();
    assert_eq!(*registration.standing().borrow(), Standing::Pending);
    etcd.restart().await;
    wait_for("a", &mut node.view(), |members| members.workers.len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_while_etcd_is_away_does_not_hang() {
    let mut etcd = Etcd::start().await;
    let cluster = Cluster::start(&etcd.config()).await;
    etcd.stop().await;
    let [a, b] = cluster.registrations;
    let leave = async {
        a.deregister().await;
        cluster.nodes[1].close().await;
        cluster.watcher.close().await;
    };
    tokio::time::timeout(DEADLINE, leave).await.expect("an end");
    drop(b);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_deleted_by_hand_is_written_again() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::start(&etcd.config()).await;
    let mut view = cluster.view();
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    client.delete("/baton/default/workers/decode/b", None).await.unwrap();
    wait_for("the deletion", &mut view, |members| members.workers.len() == 1).await;
    wait_for("b to be back", &mut view, |members| complete(members)).await;
}

/// One flipped bit on its way: everybody would read it, for as long as the worker lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_is_nobodys_and_is_written_again() {
    const KEY: &str = "/baton/default/workers/decode/b";
    let etcd = Etcd::start().await;
    let cluster = Cluster::start(&etcd.config()).await;
    let end = CancellationToken::new();
    let watched = tokio::spawn(never_incomplete(cluster.view(), end.clone()));
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    let found = client.get(KEY, None).await.unwrap();
    let kv = &found.kvs()[0];
    let text = kv.value_str().unwrap();
    let another_life = text.replace("\"incarnation\":1", "\"incarnation\":5");
    assert_ne!(another_life, text);
    let options = PutOptions::new().with_lease(kv.lease());
    client.put(KEY, another_life, Some(options)).await.unwrap();
    wait_until("the entry as it was", async || {
        client.get(KEY, None).await.unwrap().kvs()[0].value_str().unwrap() == text
    })
    .await;
    cluster.stand(Standing::Registered).await;
    end.cancel();
    watched.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_revoked_by_hand_is_replaced() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::start(&etcd.config()).await;
    let mut view = cluster.view();
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    for lease in client.leases().await.unwrap().leases() {
        client.lease_revoke(lease.id()).await.unwrap();
    }
    wait_for("the deletions", &mut view, |members| members.workers.is_empty()).await;
    wait_for("both to be back", &mut view, |members| complete(members)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_during_an_outage_is_no_trouble() {
    let mut etcd = Etcd::start().await;
    let cluster = Cluster::start(&etcd.config()).await;
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    etcd.stop().await;
    etcd.restart().await;
    for n in 0..50 {
        client.put("/elsewhere", n.to_string(), None).await.unwrap();
    }
    let put = client.put("/elsewhere", "last", None).await.unwrap();
    client.compact(put.header().unwrap().revision(), None).await.unwrap();
    cluster.stand(Standing::Registered).await;
    cluster.registrations[0].update(NodeState::Draining);
    let draining =
        |members: &Arc<Members>| members.workers[&WorkerId::from("a")].state == NodeState::Draining;
    wait_for("later changes", &mut cluster.view(), draining).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_are_not_workers_are_passed_over() {
    let etcd = Etcd::start().await;
    let mut client = Client::connect([etcd.endpoint()], None).await.unwrap();
    let stranger = entry::write(&worker("x", Role::Decode)).unwrap();
    for (key, value) in [("decode/y", stranger), ("decode/b", b"{".to_vec())] {
        let key = format!("/baton/default/workers/{key}");
        client.put(key, value, Some(PutOptions::new())).await.unwrap();
    }
    // Its own key, though in nobody's words, is the worker's to overwrite.
    let cluster = Cluster::start(&etcd.config()).await;
    assert!(complete(&cluster.view().borrow()));
}
