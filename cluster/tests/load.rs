//! Liveness and load as the data plane tells them, over real sockets.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::load::LoadConfig;
use cluster::rpc::Channels;
use cluster::testing::{DEADLINE, Proxy, wait_for, wait_until, worker};
use cluster::{LoadWatcher, Membership, MemoryMembership, Registration};
use proto::v1;
use proto::v1::worker_client::WorkerClient;
use proto::v1::worker_server::WorkerServer;
use rstest::rstest;
use scheduler::{ClusterSnapshot, WorkerView};
use support::{REPORT_INTERVAL, Worker};
use tonic::transport::server::TcpIncoming;
use words::{Incarnation, NodeState, Role};

struct Watched {
    store: MemoryMembership,
    channels: Channels,
    watcher: LoadWatcher,
}

impl Watched {
    fn start() -> Self {
        Self::allowing(50)
    }

    /// A watcher that lets members miss so many reports of 20 ms.
    fn allowing(misses_max: u32) -> Self {
        let (store, channels) = (MemoryMembership::new(), Channels::new());
        let config = LoadConfig {
            report_interval: REPORT_INTERVAL,
            misses_max,
            retry_limit: Duration::from_millis(200),
            ..LoadConfig::default()
        };
        let watcher = LoadWatcher::start(store.view(), channels.clone(), config);
        Self { store, channels, watcher }
    }

    async fn see(
        &self,
        what: &str,
        mut holds: impl FnMut(&ClusterSnapshot) -> bool,
    ) -> Arc<ClusterSnapshot> {
        wait_for(what, &mut self.watcher.snapshots(), |snapshot| holds(snapshot)).await
    }

    async fn see_one(&self, what: &str, mut holds: impl FnMut(&WorkerView) -> bool) -> WorkerView {
        let one =
            |snapshot: &ClusterSnapshot| snapshot.workers.len() == 1 && holds(&snapshot.workers[0]);
        self.see(what, one).await.workers[0].clone()
    }
}

/// A hop before a worker whose first connection is alive and says nothing.
struct Stuck {
    worker: String,
    first: parking_lot::Mutex<Option<SocketAddr>>,
}

#[tonic::async_trait]
impl v1::worker_server::Worker for Stuck {
    type ReportStream = tonic::Streaming<v1::LoadReport>;

    async fn report(
        &self,
        request: tonic::Request<v1::ReportRequest>,
    ) -> Result<tonic::Response<Self::ReportStream>, tonic::Status> {
        let caller = request.remote_addr();
        if *self.first.lock().get_or_insert(caller.unwrap()) == caller.unwrap() {
            std::future::pending::<()>().await;
        }
        let mut client = WorkerClient::connect(self.worker.clone()).await.unwrap();
        client.report(tonic::Request::new(request.into_inner())).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_alive_and_says_nothing_is_given_up() {
    let watched = Watched::allowing(10);
    let mut worker = Worker::start("a", 1).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hop = format!("http://{}", listener.local_addr().unwrap());
    let stuck = Stuck { worker: worker.info.address.uri.clone(), first: None.into() };
    let server = tonic::transport::Server::builder().add_service(WorkerServer::new(stuck));
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    worker.info.address.uri = hop;
    let _registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("reports over another connection", |view| view.healthy).await;
}

fn sequence(view: &WorkerView) -> u64 {
    view.load.as_ref().map_or(0, |load| load.sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_reach_the_snapshot_and_go_on() {
    let watched = Watched::start();
    let worker = Worker::start("a", 1).await;
    let _registration = watched.store.register(worker.info.clone()).await.unwrap();
    let first = watched.see_one("a report", |view| view.healthy).await;
    assert_eq!(*first.info, worker.info);
    assert_eq!(first.load.as_ref().map(|load| (load.running, load.free_blocks)), Some((3, 5)));
    assert!(first.reported_at.is_some());
    watched.see_one("more", |view| sequence(view) > sequence(&first) + 2).await;
    watched.watcher.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workers_own_word_on_its_state_counts() {
    let watched = Watched::start();
    let worker = Worker::start("a", 1).await;
    let registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("serving", |view| view.healthy).await;
    worker.node.drain(DEADLINE).await;
    let draining = |view: &WorkerView| view.info.state == NodeState::Draining;
    watched.see_one("draining, though etcd does not know", draining).await;
    registration.update(NodeState::Serving);
    let now = watched.see_one("a report", |view| view.healthy).await;
    assert_eq!(now.info.state, NodeState::Draining, "old news from membership");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_cannot_be_reached_is_unhealthy_until_it_can() {
    let watched = Watched::start();
    let first = Worker::start("a", 1).await;
    let addr = first.addr;
    let info = first.kill().await;
    let _registration = watched.store.register(info).await.unwrap();
    let view = watched.see_one("a member", |_| true).await;
    assert!(!view.healthy && view.load.is_none());
    let _worker = Worker::start_at(addr, "a", 1).await;
    watched.see_one("health", |view| view.healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_unhealthy_at_once_whatever_etcd_says() {
    let watched = Watched::allowing(1000);
    let worker = Worker::start("a", 1).await;
    let _registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("health", |view| view.healthy).await;
    let start = Instant::now();
    worker.kill().await;
    watched.see_one("the loss", |view| !view.healthy).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gone_silent_is_unhealthy_after_the_reports_it_may_miss() {
    let watched = Watched::start();
    let mut worker = Worker::start("a", 1).await;
    let proxy = Proxy::start(worker.addr).await;
    worker.info.address.uri = proxy.uri();
    let _registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("health", |view| view.healthy).await;
    let start = Instant::now();
    proxy.stall();
    watched.see_one("the loss", |view| !view.healthy).await;
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    proxy.resume();
    watched.see_one("health again", |view| view.healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_etcd_lost_stays_while_it_reports_and_goes_when_it_stops() {
    let watched = Watched::start();
    let worker = Worker::start("a", 1).await;
    let _registration = watched.store.register(worker.info.clone()).await.unwrap();
    let before = watched.see_one("health", |view| view.healthy).await;
    watched.store.expire(&worker.info.address.worker);
    let later = |view: &WorkerView| sequence(view) > sequence(&before) + 10;
    assert!(watched.see_one("reports from the lost worker", later).await.healthy);
    assert_eq!(watched.channels.len(), 1);
    worker.kill().await;
    watched.see("nobody", |snapshot| snapshot.workers.is_empty()).await;
    assert!(watched.channels.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_worker_goes_when_membership_drops_it() {
    let watched = Watched::start();
    let registration = watched.store.register(worker("a", Role::Decode)).await.unwrap();
    watched.see_one("a member", |view| !view.healthy).await;
    registration.deregister().await;
    watched.see("nobody", |snapshot| snapshot.workers.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_in_order_is_gone_with_its_last_report() {
    let watched = Watched::start();
    let worker = Worker::start("a", 1).await;
    let registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("health", |view| view.healthy).await;
    worker.node.drain(DEADLINE).await;
    registration.deregister().await;
    worker.node.stop(DEADLINE).await;
    watched.see("nobody", |snapshot| snapshot.workers.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_life_starts_afresh() {
    let watched = Watched::start();
    let old = Worker::start("a", 1).await;
    let _old = watched.store.register(old.info.clone()).await.unwrap();
    watched.see_one("the old life", |view| sequence(view) > 3).await;
    let new = Worker::start("a", 2).await;
    let _new = watched.store.register(new.info.clone()).await.unwrap();
    let healthy =
        |view: &WorkerView| view.info.address.incarnation == Incarnation(2) && view.healthy;
    let view = watched.see_one("the new life", healthy).await;
    assert_eq!(view.info.address, new.info.address);
}

/// A worker that died; membership can't tell what becomes of it.
async fn died(watched: &Watched) -> (Registration, SocketAddr) {
    let worker = Worker::start("a", 5).await;
    let addr = worker.addr;
    let registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("health", |view| view.healthy).await;
    watched.store.set_away(true);
    worker.kill().await;
    watched.see_one("the loss", |view| !view.healthy).await;
    (registration, addr)
}

#[rstest]
#[case::newer(6)]
#[case::older_by_a_clock_set_back(4)]
#[tokio::test(flavor = "multi_thread")]
async fn another_life_is_found_where_the_last_one_was(#[case] incarnation: u64) {
    let watched = Watched::start();
    let (_registration, addr) = died(&watched).await;
    let another = Worker::start_at(addr, "a", incarnation).await;
    let view = watched.see_one("the other life", |view| view.healthy).await;
    assert_eq!(*view.info, another.info);
    assert_eq!(another.followers.count(), 1, "it can tell that it was found");
    another.kill().await;
    watched.see_one("its loss", |view| !view.healthy).await;
    let _third = Worker::start_at(addr, "a", incarnation + 10).await;
    watched.see_one("one life after the other", |view| view.healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_left_before_the_outage_is_looked_for_in_it() {
    let watched = Watched::start();
    let worker = Worker::start("a", 1).await;
    let addr = worker.addr;
    let registration = watched.store.register(worker.info.clone()).await.unwrap();
    watched.see_one("health", |view| view.healthy).await;
    registration.deregister().await;
    worker.node.stop(DEADLINE).await;
    watched.see("nobody", |snapshot| snapshot.workers.is_empty()).await;
    let _back = Worker::start_at(addr, "a", 2).await;
    watched.store.set_away(true);
    watched.see_one("its next life", |view| view.healthy).await;
}

#[rstest]
#[case::of_another_name("", "b")]
#[case::of_another_cluster("elsewhere", "a")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_at_a_members_address_is_no_member(#[case] namespace: &str, #[case] id: &str) {
    let watched = Watched::start();
    let (_registration, addr) = died(&watched).await;
    let _stranger = Worker::start_in(namespace, addr, id, 6).await;
    // Long enough to have asked the stranger several times who it is.
    let other = Worker::start("z", 1).await;
    watched.store.set_away(false);
    let _other = watched.store.register(other.info.clone()).await.unwrap();
    let is_z = |view: &WorkerView| sequence(view) > 50 && view.info.address.worker == "z".into();
    let there = |snapshot: &ClusterSnapshot| snapshot.workers.iter().any(is_z);
    let snapshot = watched.see("the other member", there).await;
    let healthy: Vec<_> = snapshot.workers.iter().filter(|view| view.healthy).collect();
    assert_eq!(healthy.len(), 1, "{snapshot:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_lives_the_one_that_reports_counts_and_of_two_that_do_the_newer() {
    let watched = Watched::start();
    let newer = Worker::start("a", 9).await;
    let _newer = watched.store.register(newer.info.clone()).await.unwrap();
    watched.see_one("the newer life", |view| view.healthy).await;
    let older = Worker::start("a", 2).await;
    watched.store.expire(&newer.info.address.worker);
    let _older = watched.store.register(older.info.clone()).await.unwrap();
    wait_until("the older life to be watched", async || older.followers.count() > 0).await;
    let nine = |view: &WorkerView| view.info.address.incarnation == Incarnation(9);
    watched.see_one("the newer life still", |view| view.healthy && nine(view)).await;
    newer.kill().await;
    watched.see_one("the older life now", |view| view.healthy && !nine(view)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_workers_report_into_one_snapshot_in_the_order_of_their_ids() {
    let watched = Watched::start();
    let mut workers = Vec::new();
    let mut registrations = Vec::new();
    for n in (0..50).rev() {
        let worker = Worker::start(&format!("w{n:02}"), 1).await;
        registrations.push(watched.store.register(worker.info.clone()).await.unwrap());
        workers.push(worker);
    }
    let all = |snapshot: &ClusterSnapshot| {
        snapshot.workers.len() == 50 && snapshot.workers.iter().all(|view| view.healthy)
    };
    let snapshot = watched.see("fifty healthy workers", all).await;
    assert!(snapshot.workers.is_sorted_by_key(|view| &view.info.address.worker));
}
