//! Memory below a worker's KV pool.

use anyhow::{Result, ensure};
use engine::{DiskOptions, TierOptions};
use words::Role;

use super::Settings;

// === impl Settings ===

impl Settings {
    /// What an engine keeps below its pool.
    pub(super) fn tiers(&self, role: Role) -> TierOptions {
        let engine = &self.written.engine;
        let disk = engine.kv_disk.as_ref().zip(engine.kv_disk_gib);
        TierOptions {
            host_bytes: bytes(engine.kv_host_gib.unwrap_or(0.0)),
            // `up` runs both with the same settings.
            disk: disk.map(|(dir, gib)| DiskOptions {
                dir: dir.join(role.to_string()),
                bytes: bytes(gib),
            }),
        }
    }

    /// Memory below the pool that is none.
    pub(super) fn check_tiers(&self) -> Result<()> {
        let engine = &self.written.engine;
        for (name, written) in
            [("kv_host_gib", engine.kv_host_gib), ("kv_disk_gib", engine.kv_disk_gib)]
        {
            let gib = written.unwrap_or(0.0);
            ensure!(gib.is_finite() && gib >= 0.0, "engine.{name} is {gib}: want GiB");
        }
        ensure!(
            engine.kv_disk.is_some() == engine.kv_disk_gib.is_some_and(|gib| gib > 0.0),
            "engine.kv_disk says where KV blocks are kept on disk, and engine.kv_disk_gib how much: give both, or none"
        );
        ensure!(
            engine.prefix_cache.unwrap_or(true)
                || engine.kv_host_gib.unwrap_or(0.0) == 0.0 && engine.kv_disk.is_none(),
            "engine.kv_host_gib and engine.kv_disk keep what the prefix cache has no room for, and \
             engine.prefix_cache is false: leave one of them out"
        );
        Ok(())
    }
}

fn bytes(gib: f64) -> u64 {
    (gib * f64::from(1 << 30)) as u64
}
