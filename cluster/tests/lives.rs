//! Lives whose numbers come from a clock that was set back, with a real etcd.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::sync::Arc;

use cluster::load::LoadConfig;
use cluster::rpc::Channels;
use cluster::testing::{Etcd, wait_for};
use cluster::{EtcdMembership, LoadWatcher, Membership as _, Standing};
use scheduler::ClusterSnapshot;
use support::{REPORT_INTERVAL, Worker};
use words::Incarnation;

const HOUR_US: u64 = 3_600_000_000;
const NOON: u64 = 1_800_000_000_000_000;

/// A router's part that watches workers.
fn watch(etcd: &Etcd) -> (EtcdMembership, LoadWatcher) {
    let membership = EtcdMembership::connect(etcd.config()).unwrap();
    let config = LoadConfig { report_interval: REPORT_INTERVAL, ..LoadConfig::default() };
    let watcher = LoadWatcher::start(membership.view(), Channels::new(), config);
    (membership, watcher)
}

async fn sees(watcher: &LoadWatcher, incarnation: u64) {
    let there = |snapshot: &Arc<ClusterSnapshot>| {
        let mut views = snapshot.workers.iter().filter(|view| view.healthy);
        views.any(|view| view.info.address.incarnation == Incarnation(incarnation))
    };
    wait_for("the life", &mut watcher.snapshots(), there).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_an_hour_behind_is_seen_after_etcd_lost_its_data() {
    let mut etcd = Etcd::start().await;
    let (_membership, watcher) = watch(&etcd);
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let worker = Worker::start("a", NOON).await;
    let registration = node.register(worker.info.clone()).await.unwrap();
    sees(&watcher, NOON).await;

    worker.kill().await;
    etcd.wipe().await;
    drop((registration, node));
    etcd.restart().await;

    // At another port, so that nothing but etcd tells of it.
    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let behind = Worker::start("a", NOON - HOUR_US).await;
    let _registration = node.register(behind.info.clone()).await.unwrap();
    sees(&watcher, NOON - HOUR_US).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_an_hour_behind_outwaits_the_lease_of_its_last_life() {
    let etcd = Etcd::start().await;
    let (_membership, watcher) = watch(&etcd);
    let config = etcd.config();
    let (registered, wait) = tokio::sync::oneshot::channel();
    let last = tokio::runtime::Runtime::new().unwrap();
    last.spawn(async move {
        let node = EtcdMembership::connect(config).unwrap();
        let worker = Worker::start("a", NOON).await;
        let registration = node.register(worker.info.clone()).await.unwrap();
        registered.send(()).unwrap();
        std::future::pending::<()>().await;
        drop((node, worker, registration));
    });
    wait.await.unwrap();
    sees(&watcher, NOON).await;
    // It dies without a word, and its entry outlives it by a lease.
    last.shutdown_background();

    let node = EtcdMembership::connect(etcd.config()).unwrap();
    let behind = Worker::start("a", NOON - HOUR_US).await;
    let registration = node.register(behind.info.clone()).await.unwrap();
    let stands = |standing: &Standing| *standing == Standing::Registered;
    wait_for("the registration", &mut registration.standing(), stands).await;
    sees(&watcher, NOON - HOUR_US).await;
}
