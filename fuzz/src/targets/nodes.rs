//! What nodes, or who passes for one, say to each other.

pub(super) mod etcd_entry;
pub(super) mod generation;
pub(super) mod push;
pub(super) mod push_reply;
pub(super) mod status;
pub(super) mod worker_answer;
pub(super) mod worker_report;
