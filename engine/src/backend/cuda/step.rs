//! A step on its way to the device: what it is of, and where and when it runs.

pub(super) mod batch;
pub(super) mod partition;
pub(crate) mod streams;
pub(crate) mod turns;
