//! For tests: a real etcd, sample workers, waits that end.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;
use words::{Address, Capacity, Fingerprint, Incarnation, NodeState, Role, WorkerId, WorkerInfo};

mod etcd;
mod proxy;

pub use etcd::Etcd;
pub use proxy::Proxy;

/// Long enough for a loaded machine; a test that waits for it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A worker with nothing remarkable about it: incarnation 1, serving, port 1.
#[must_use]
pub fn worker(id: &str, role: Role) -> WorkerInfo {
    WorkerInfo {
        address: Address {
            worker: WorkerId::from(id),
            incarnation: Incarnation(1),
            uri: "http://127.0.0.1:1".to_owned(),
        },
        role,
        state: NodeState::Serving,
        fingerprint: Fingerprint {
            model: "baton-demo".to_owned(),
            weights: "00".to_owned(),
            kv_layout: "layers=2 kv_heads=2 head_dim=64 block_tokens=16 dtype=bf16"
                .parse()
                .expect("a layout"),
            hash_version: 1,
            wire_version: 1,
        },
        capacity: Capacity {
            kv_blocks: 1024,
            block_tokens: 16,
            sequences_max: 64,
            queue_max: 64,
            context_tokens_max: 8192,
        },
        transports: vec!["grpc".to_owned()],
    }
}

/// Waits until a watched value satisfies `holds`, and returns it.
///
/// # Panics
/// After [`DEADLINE`], saying what was waited for and what was there instead.
pub async fn wait_for<T: Clone + std::fmt::Debug>(
    what: &str,
    watched: &mut watch::Receiver<T>,
    holds: impl FnMut(&T) -> bool,
) -> T {
    if let Ok(Ok(value)) = timeout(DEADLINE, watched.wait_for(holds)).await {
        return value.clone();
    }
    let last = watched.borrow().clone();
    panic!("{what} did not come; at last: {last:?}");
}

/// Asks until `holds`, every few milliseconds.
///
/// # Panics
/// After [`DEADLINE`], saying what was waited for.
pub async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < DEADLINE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
