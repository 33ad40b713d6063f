//! What targets share.

pub(crate) mod cluster;
pub(crate) mod engine;
pub(crate) mod gateway;
pub(crate) mod receiving;
pub(crate) mod worker;

use std::path::PathBuf;

/// The folder of the demo model.
pub(crate) fn demo_model() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo"))
}
