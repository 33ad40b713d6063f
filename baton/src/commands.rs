//! The commands, one file each.

pub(crate) mod begin;
pub(crate) mod bench;
pub(crate) mod certs;
pub(crate) mod chat;
pub(crate) mod doctor;
pub(crate) mod etcd;
pub(crate) mod keys;
pub(crate) mod reach;
pub(crate) mod router;
pub(crate) mod simulate;
pub(crate) mod up;
pub(crate) mod workers;
