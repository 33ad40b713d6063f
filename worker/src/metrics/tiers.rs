//! Metrics of the kinds of memory that KV blocks are kept in.

use engine::TierCounts;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// One metric, of each tier.
struct Row {
    name: &'static str,
    help: &'static str,
    value: fn(&TierCounts) -> u64,
}

const GAUGES: [Row; 2] = [
    Row {
        name: "baton_kv_tier_capacity_bytes",
        help: "What the kind of memory may keep of KV blocks",
        value: |counts| counts.capacity_bytes,
    },
    Row {
        name: "baton_kv_tier_used_bytes",
        help: "What it keeps",
        value: |counts| counts.used_bytes,
    },
];

const COUNTERS: [Row; 7] = [
    Row {
        name: "baton_kv_tier_hit_blocks",
        help: "KV blocks brought up from it for prompts",
        value: |counts| counts.hit_blocks,
    },
    Row {
        name: "baton_kv_tier_up_bytes",
        help: "Bytes of KV brought up from it",
        value: |counts| counts.bytes_up,
    },
    Row {
        name: "baton_kv_tier_down_bytes",
        help: "Bytes of KV that came down to it",
        value: |counts| counts.bytes_down,
    },
    Row {
        name: "baton_kv_tier_evicted_blocks",
        help: "KV blocks that gave their place to others",
        value: |counts| counts.evictions.all,
    },
    Row {
        name: "baton_kv_tier_lost_blocks",
        help: "Of these, those that were to go down to the next, and had not in time",
        value: |counts| counts.evictions.lost,
    },
    Row {
        name: "baton_kv_tier_corrupt_blocks",
        help: "KV blocks that were not what had been written when they were read",
        value: |counts| counts.corrupt_blocks,
    },
    Row {
        name: "baton_kv_tier_failed_writes",
        help: "KV blocks that couldn't be kept",
        value: |counts| counts.failed_writes,
    },
];

/// Writes all of them.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    tiers: &[TierCounts],
) -> std::fmt::Result {
    for row in GAUGES {
        family(encoder, &row, tiers, |value| {
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX))
        })?;
    }
    COUNTERS.iter().try_for_each(|row| family(encoder, row, tiers, ConstCounter::new))
}

fn family<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    row: &Row,
    tiers: &[TierCounts],
    metric: impl Fn(u64) -> M,
) -> std::fmt::Result {
    let mut family =
        encoder.encode_descriptor(row.name, row.help, None, metric(0).metric_type())?;
    for counts in tiers {
        let labels = [("tier", counts.tier.name())];
        metric((row.value)(counts)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}
