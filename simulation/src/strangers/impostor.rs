//! Somebody who has written himself into etcd as a worker.

use std::sync::Arc;

use cluster::rpc::net::Connection;
use cluster::{EtcdMembership, Membership as _};
use futures::StreamExt as _;
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsAcceptor;
use words::{Role, WorkerId, WorkerInfo};

use super::disguise::foreign_server;
use crate::nodes::Place;

/// What he calls himself.
pub(super) const NAME: &str = "impostor";

/// Registers a decode worker at this host, with another authority's certificate, and listens. Nobody
/// may say a word to it.
pub(super) async fn pose(place: Place, membership: Arc<EtcdMembership>) {
    let mut callers = place.wire.listen();
    let model = await_worker(&membership).await;
    let registered = membership.register(disguised(model, &place)).await;
    let _registration = registered.expect("etcd takes whatever it is told");
    let acceptor = TlsAcceptor::from(foreign_server());
    while let Some(Ok(accepted)) = callers.next().await {
        let (acceptor, verdicts) = (acceptor.clone(), place.verdicts.clone());
        place.coverage.reached("stranger, an impostor: called");
        place.tasks.spawn(async move {
            if was_told_something(&acceptor, accepted.connection).await {
                verdicts.violated("a node of the cluster spoke to an impostor");
            }
        });
    }
}

/// A worker whose name can be imitated.
async fn await_worker(membership: &EtcdMembership) -> WorkerInfo {
    let mut view = membership.view();
    let is_there = |members: &Arc<cluster::Members>| !members.workers.is_empty();
    let members = view.wait_for(is_there).await.expect("a membership that goes on").clone();
    members.workers.values().next().expect("a worker").clone()
}

fn disguised(mut info: WorkerInfo, place: &Place) -> WorkerInfo {
    info.role = Role::Decode;
    info.address.worker = WorkerId::from(NAME);
    info.address.uri = place.host.uri().replace("http:", "https:");
    info
}

async fn was_told_something(acceptor: &TlsAcceptor, connection: Box<dyn Connection>) -> bool {
    let Ok(mut stream) = acceptor.accept(connection).await else { return false };
    stream.read_u8().await.is_ok()
}
