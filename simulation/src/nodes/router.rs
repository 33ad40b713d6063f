//! A router, put together as the command does, and the clients that ask it.

use std::sync::Arc;
use std::time::Duration;

use cluster::load::LoadConfig;
use cluster::rpc::Channels;
use cluster::security::NodeRole;
use cluster::telemetry::Metrics;
use cluster::{Lifecycle, LoadWatcher, Membership as _, Prefixes};
use router::dispatch::{AdmissionConfig, Dispatcher, DispatcherConfig, Generate};
use scheduler::{ClusterSnapshot, LeastLoad, Placer, SloTargets};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::{MODEL, NAMESPACE, Place, REPORTS};
use crate::checks::Verdicts;
use crate::planted::{Bug, Eternal, Garbled, Unbound};

/// For what the workers have cached: more than they can have.
const INDEX_BYTES: usize = 1 << 20;

/// How long a router that leaves waits for its requests.
const DRAIN: Duration = Duration::from_secs(2);

/// Runs a router, and the clients that ask it, until it has to leave.
pub async fn router(place: Place, clients: Clients, leave: CancellationToken) {
    let security = place.security(NodeRole::Router, "router");
    let channels = Channels::over(Arc::new(place.wire.clone())).secured(&security);
    let membership = place.membership();
    let watched = LoadConfig {
        namespace: NAMESPACE.to_owned(),
        report_interval: REPORTS,
        prefixes: Some(Prefixes::new(INDEX_BYTES)),
        ..LoadConfig::default()
    };
    let loads = LoadWatcher::start(membership.view(), channels.clone(), watched);
    if place.reports_hold {
        place.tasks.spawn(watch_for_orphans(loads.snapshots(), place.verdicts.clone()));
    }
    let life = Lifecycle::new();
    let metrics = Metrics::new();
    place.shows(&metrics);
    let targets = SloTargets { ttft: place.ttft, ..SloTargets::default() };
    let (model, fingerprint, placer) = (MODEL.to_owned(), None, placer(&place, targets));
    let admission = AdmissionConfig { targets };
    let config = DispatcherConfig { model, loads, fingerprint, placer, channels, admission };
    let dispatcher = Dispatcher::new(config, &metrics, life.clone());
    life.serve();
    tokio::select! {
        () = clients.run(garbled(&place, dispatcher)) => {}
        () = leave.cancelled() => {
            life.drain(DRAIN).await;
            place.coverage.reached("router drained");
        }
    }
}

fn placer(place: &Place, targets: SloTargets) -> Box<dyn Placer> {
    let placer = LeastLoad { handoff: place.handoff, targets };
    match place.bug {
        Some(Bug::EternalExclusion) => Box::new(Eternal::new(placer)),
        Some(Bug::UnboundPlacement) => Box::new(Unbound(placer)),
        _ => Box::new(placer),
    }
}

/// What clients ask: the dispatcher, behind whatever is planted in its answers.
fn garbled(place: &Place, dispatcher: Dispatcher) -> Arc<dyn Generate> {
    match place.bug.filter(|bug| bug.is_in_answers()) {
        Some(bug) => Arc::new(Garbled::new(dispatcher, bug, place.tasks.clone())),
        None => Arc::new(dispatcher),
    }
}

/// Holds that no worker reports a block that nobody owns.
async fn watch_for_orphans(
    mut snapshots: watch::Receiver<Arc<ClusterSnapshot>>,
    verdicts: Verdicts,
) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        for view in &snapshot.workers {
            let orphans = view.load.as_ref().map_or(0, |load| load.orphan_blocks);
            if orphans > 0 {
                let worker = &view.info.address.worker;
                verdicts.violated(format!("{worker} has {orphans} blocks that nobody owns"));
            }
        }
    }
}
