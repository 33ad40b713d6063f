//! File descriptors: each connection costs one, and when they are gone nobody is answered.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Of the descriptors, this part is kept from clients: for workers, etcd, ports and files.
const KEPT_SHARE: usize = 4;
/// At least so many: a router with a few workers and three etcd members has some twenty open.
const KEPT_MIN: usize = 32;
/// And no more than so many: a router has one connection to each worker.
const KEPT_MAX: usize = 4096;
/// What is taken for a limit where there is none.
const UNLIMITED: u64 = 1 << 20;

/// Raises this process's limit on descriptors as far as it may.
///
/// Shells give 1,024 out of habit, and the right to much more.
pub(crate) fn raise() {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(UNLIMITED);
    if soft < wanted {
        // What can't be raised still serves: `for_clients` counts what there is.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

/// How many connections clients may have, beside the cluster's own.
pub(crate) fn for_clients() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(UNLIMITED, |(soft, _)| soft);
    share_of(usize::try_from(soft.min(UNLIMITED)).unwrap_or(usize::MAX))
}

fn share_of(limit: usize) -> usize {
    let kept = (limit / KEPT_SHARE).clamp(KEPT_MIN, KEPT_MAX);
    limit.saturating_sub(kept).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_keeps_its_own_and_clients_get_the_rest() {
        for (limit, clients) in [(16, 1), (64, 32), (256, 192), (1024, 768), (1 << 20, 1_044_480)] {
            assert_eq!(share_of(limit), clients, "of {limit}");
        }
    }
}
