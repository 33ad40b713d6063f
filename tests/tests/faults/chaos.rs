//! A short run of chaos; `cargo xtask chaos --minutes N` is the long one.

use std::sync::Arc;

use baton_tests::chaos::{self, Config};

#[tokio::test(flavor = "multi_thread")]
async fn a_known_seed_finds_nothing() {
    finds_nothing(20_261_130).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_seed_finds_nothing() {
    finds_nothing(chaos::fresh_seed()).await;
}

async fn finds_nothing(seed: u64) {
    let report = chaos::run(&Config::short(seed), Arc::default()).await;
    assert!(report.is_flawless(), "seed {seed}\n{report}");
}
