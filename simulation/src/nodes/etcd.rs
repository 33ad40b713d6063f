//! etcd, as far as membership uses it: keys with revisions, leases, transactions and watches.
//!
//! The client is the real one and so is the wire between; this is the other end. What it holds
//! outlives its process, as a disk does, and can be lost or set back.

mod service;
mod store;

pub use self::service::serve;
pub use self::store::{Disk, Store};
