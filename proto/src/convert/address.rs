//! [`v1::Address`] and the address of a worker.

use words::{Address, Incarnation, WorkerId};

use super::{WireError, non_empty};
use crate::v1;

impl From<&Address> for v1::Address {
    fn from(address: &Address) -> Self {
        Self {
            worker_id: address.worker.to_string(),
            incarnation: address.incarnation.0,
            uri: address.uri.clone(),
        }
    }
}

impl TryFrom<v1::Address> for Address {
    type Error = WireError;

    fn try_from(wire: v1::Address) -> Result<Self, WireError> {
        Ok(Self {
            worker: WorkerId(non_empty("worker_id", &wire.worker_id)?.into()),
            incarnation: Incarnation(wire.incarnation),
            uri: non_empty("uri", &wire.uri)?.to_owned(),
        })
    }
}
