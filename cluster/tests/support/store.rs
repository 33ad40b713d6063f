//! Every implementation of membership, for suites that run over all of them.

use std::sync::Arc;

use cluster::testing::{Etcd, worker};
use cluster::{EtcdMembership, Membership, MemoryMembership};
use words::{Incarnation, Role, WorkerInfo};

pub(crate) enum Kind {
    Memory,
    Etcd,
}

/// A store that nodes can connect to.
pub(crate) enum Store {
    Memory(MemoryMembership),
    Etcd(Box<Etcd>),
}

impl Store {
    pub(crate) async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Memory => Self::Memory(MemoryMembership::new()),
            Kind::Etcd => Self::Etcd(Box::new(Etcd::start().await)),
        }
    }

    /// Another node's handle.
    pub(crate) fn connect(&self) -> Arc<dyn Membership> {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Etcd(etcd) => Arc::new(EtcdMembership::connect(etcd.config()).unwrap()),
        }
    }
}

/// One life of a decode worker.
pub(crate) fn life(id: &str, incarnation: u64) -> WorkerInfo {
    let mut info = worker(id, Role::Decode);
    info.address.incarnation = Incarnation(incarnation);
    info
}
