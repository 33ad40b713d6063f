//! Whether this machine's memory holds what an engine without a GPU would take.
//!
//! Linux gives memory before it has any, and ends the process once it is used: without a word, in the
//! middle of something. So it is asked first.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use kv_cache::KvLayout;

use crate::error::EngineError;

/// What engines will take of the host's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostDemand {
    /// Weights of one engine; 0 where they aren't known.
    pub weights_bytes: u64,
    /// One KV block.
    pub block_bytes: u64,
    /// KV blocks of one engine.
    pub kv_blocks: u32,
    /// Engines, each with weights and blocks of its own.
    pub engines: u32,
    /// What one engine keeps of blocks below its pool.
    pub tier_bytes: u64,
}

// === impl HostDemand ===

impl HostDemand {
    /// What one engine takes for the checkpoint in `dir` and so many blocks of `layout`.
    #[must_use]
    pub fn new(dir: &Path, layout: &KvLayout, kv_blocks: u32) -> Self {
        let block_bytes = layout.block_bytes() as u64;
        let weights_bytes = weights_bytes(dir);
        Self { weights_bytes, block_bytes, kv_blocks, engines: 1, tier_bytes: 0 }
    }

    /// Of an engine that has weights and pool elsewhere.
    #[must_use]
    pub fn of_tier(tier_bytes: u64) -> Self {
        Self { weights_bytes: 0, block_bytes: 0, kv_blocks: 0, engines: 1, tier_bytes }
    }

    /// Refuses what the machine can't hold now.
    ///
    /// # Errors
    /// [`EngineError::Limits`], with how much there is and how much would fit.
    pub fn check(&self) -> Result<(), EngineError> {
        self.fits(free_bytes().unwrap_or(u64::MAX))?;
        if can_allocate(self.pool_bytes()) {
            return Ok(());
        }
        let reason = format!(
            "the system gives this process no {} for {} blocks (`ulimit -v`?): take fewer",
            gib(self.pool_bytes()),
            self.kv_blocks
        );
        Err(EngineError::Limits { field: "kv_blocks".to_owned(), reason })
    }

    fn fits(&self, free: u64) -> Result<(), EngineError> {
        let Self { weights_bytes, block_bytes, kv_blocks, engines, tier_bytes } = *self;
        let weights = weights_bytes.saturating_mul(engines.into());
        let pool = self.pool_bytes().saturating_mul(engines.into());
        let tiers = tier_bytes.saturating_mul(engines.into());
        if weights.saturating_add(pool) <= free {
            return Self::tiers_fit(tiers, free - weights - pool);
        }
        let mut reason = format!("{kv_blocks} blocks take {}", gib(pool));
        if engines > 1 {
            let _ = write!(reason, " in {engines} engines");
        }
        if weights > 0 {
            let _ = write!(reason, " and the weights {}", gib(weights));
        }
        let room = free.saturating_sub(weights) / u64::from(engines) / block_bytes.max(1);
        let advice = match room {
            0 => "take a smaller model, or a machine with more memory".to_owned(),
            room => format!("--kv-blocks {room} would fit, or less with --kv-memory-mib"),
        };
        let _ = write!(reason, ", but {} of memory are free: {advice}", gib(free));
        Err(EngineError::Limits { field: "kv_blocks".to_owned(), reason })
    }

    fn tiers_fit(bytes: u64, free: u64) -> Result<(), EngineError> {
        if bytes <= free {
            return Ok(());
        }
        let (bytes, free) = (gib(bytes), gib(free));
        let reason = format!(
            "{bytes} for blocks below the pool, but {free} of memory are left for them: take less"
        );
        Err(EngineError::Limits { field: "kv_host_gib".to_owned(), reason })
    }

    fn pool_bytes(&self) -> u64 {
        self.block_bytes.saturating_mul(self.kv_blocks.into())
    }
}

/// Bytes of all weight files in the folder.
fn weights_bytes(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|it| it == "safetensors"))
        .filter_map(|file| Some(fs::metadata(file.path()).ok()?.len()))
        .sum()
}

/// Whether the process may have so much at all; it is given back at once.
fn can_allocate(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
}

/// What can be had: of the machine, and of the container where that has less; `None` where it can't
/// be told.
fn free_bytes() -> Option<u64> {
    let machine = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(container_bytes().map_or(machine, |container| container.min(machine)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// What is left of the limit of this process's control group, if it has one.
fn container_bytes() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    [root.join(path), root.to_owned()].iter().find_map(|group| left_in(group))
}

fn left_in(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    // Files that were read can go.
    let stat = read("memory.stat").unwrap_or_default();
    let field = |name: &str| {
        let line = stat.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let files = field("inactive_file ") + field("active_file ");
    Some(limit.saturating_sub(used.saturating_sub(files)))
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: HostDemand = HostDemand {
        weights_bytes: 1 << 30,
        block_bytes: 1 << 20,
        kv_blocks: 2048,
        engines: 1,
        tier_bytes: 0,
    };

    #[test]
    fn what_is_below_the_pool_counts_too() {
        let demand = HostDemand { tier_bytes: 1 << 30, ..DEMAND };
        assert_eq!(demand.fits(4 << 30), Ok(()));
        let refusal = demand.fits(3 << 30).unwrap_err().to_string();
        assert!(refusal.starts_with("`kv_host_gib`: "), "{refusal}");
        assert_eq!(HostDemand::of_tier(1 << 30).fits(1 << 30), Ok(()));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        assert_eq!(DEMAND.fits(3 << 30), Ok(()));
        let said = DEMAND.fits(2 << 30).unwrap_err().to_string();
        assert!(
            said.contains("2048 blocks take 2.0 GiB") && said.contains("weights 1.0 GiB"),
            "{said}"
        );
        assert!(said.contains("2.0 GiB of memory are free: --kv-blocks 1024 would fit"), "{said}");
        let said = DEMAND.fits(1 << 30).unwrap_err().to_string();
        assert!(said.contains("smaller model"), "{said}");
        let two = HostDemand { engines: 2, ..DEMAND };
        let said = two.fits(5 << 30).unwrap_err().to_string();
        assert!(
            said.contains("4.0 GiB in 2 engines") && said.contains("--kv-blocks 1536"),
            "{said}"
        );
    }

    #[test]
    fn more_than_any_machine_has_is_refused_and_not_tried() {
        let most = HostDemand { kv_blocks: u32::MAX - 1, block_bytes: u64::MAX / 2, ..DEMAND };
        assert!(most.check().is_err());
        let tried = HostDemand { kv_blocks: 1 << 30, ..DEMAND };
        assert!(tried.check().unwrap_err().to_string().contains("GiB"));
    }

    #[test]
    fn free_memory_is_read_from_what_linux_says() {
        let meminfo = "MemTotal:       100 kB\nMemFree:  5 kB\nMemAvailable:     7 kB\n";
        assert_eq!(available(meminfo), Some(7 << 10));
        let group = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(group.path().join(name), text).unwrap();
        assert_eq!(left_in(group.path()), None, "no group");
        write("memory.max", "max\n");
        write("memory.current", "60\n");
        assert_eq!(left_in(group.path()), None, "no limit");
        write("memory.max", "100\n");
        assert_eq!(left_in(group.path()), Some(40));
        write("memory.stat", "anon 40\ninactive_file 15\nactive_file 5\n");
        assert_eq!(left_in(group.path()), Some(60));
    }
}
