//! A worker's metrics: the KV pool, the engine, and its hand-offs.

mod tiers;

use std::sync::Arc;

use cluster::telemetry::Metrics;
use engine::backend::cuda::PartitionSeat;
use engine::{EngineHandle, ForecastErrors};
use kv_transfer::TransferStats;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeMetric as _, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::report::LoadProbe;

/// Reads the engine at each scrape, so that nothing is counted twice or late.
pub struct WorkerCollector {
    engine: EngineHandle,
    probe: LoadProbe,
    seat: Option<PartitionSeat>,
}

// === impl WorkerCollector ===

impl WorkerCollector {
    /// A collector over one worker.
    ///
    /// - `seat`: the engine's place in a GPU that it shares.
    #[must_use]
    pub fn new(engine: EngineHandle, probe: LoadProbe, seat: Option<PartitionSeat>) -> Self {
        Self { engine, probe, seat }
    }

    fn encode_partition(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some((seat, share)) = self.seat.as_ref().and_then(|seat| Some((seat, seat.share()?)))
        else {
            return Ok(());
        };
        let metric = ConstGauge::new(share);
        let mut family = encoder.encode_descriptor(
            "baton_gpu_sm_share",
            "Share of the GPU's multiprocessors that the engine has while the other one works",
            None,
            metric.metric_type(),
        )?;
        metric.encode(family.encode_family(&[("role", seat.role().to_string())])?)?;
        counter(
            encoder,
            "baton_gpu_parted_steps",
            "Batches that ran on the engine's share of the GPU alone",
            seat.parted_steps(),
        )?;
        counter(
            encoder,
            "baton_gpu_partition_changes",
            "Changes of how the GPU's multiprocessors are divided",
            seat.changes(),
        )
    }

    fn encode_kv_blocks(&self, encoder: &mut DescriptorEncoder<'_>) -> std::fmt::Result {
        let counts = self.engine.pool().counts();
        let states = [
            ("free", counts.free),
            ("reserved", counts.reserved),
            ("active", counts.active),
            ("cached", counts.cached),
        ];
        let metric = ConstGauge::new(0i64);
        let mut family = encoder.encode_descriptor(
            "baton_kv_blocks",
            "KV blocks of the pool, by state",
            None,
            metric.metric_type(),
        )?;
        for (state, blocks) in states {
            ConstGauge::new(i64::from(blocks))
                .encode(family.encode_family(&[("state", state)])?)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for WorkerCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkerCollector").finish_non_exhaustive()
    }
}

impl Collector for WorkerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.encode_kv_blocks(&mut encoder)?;
        tiers::encode(&mut encoder, &self.engine.tiers())?;
        self.encode_partition(&mut encoder)?;
        let load = self.probe.load();
        let stats = self.engine.stats();
        gauge(
            &mut encoder,
            "baton_orphan_kv_blocks",
            "KV blocks in use that nobody owns",
            load.orphan_blocks,
        )?;
        gauge(
            &mut encoder,
            "baton_sequences_running",
            "Sequences in the running batch",
            load.running,
        )?;
        gauge(
            &mut encoder,
            "baton_sequences_waiting",
            "Requests queued for the engine or for KV blocks",
            load.waiting,
        )?;
        gauge(
            &mut encoder,
            "baton_queued_prefill_tokens",
            "Prompt tokens not yet computed",
            u32::try_from(load.queued_prefill_tokens).unwrap_or(u32::MAX),
        )?;
        counter(&mut encoder, "baton_engine_steps", "Batches through the model", stats.steps)?;
        counter(
            &mut encoder,
            "baton_engine_host_seconds",
            "Time in which the engine's thread worked for batches, not waited for the device",
            stats.host_s,
        )?;
        forecast_errors(&mut encoder, &stats.forecasts)?;
        counter(
            &mut encoder,
            "baton_preemptions",
            "Sequences set back for want of KV blocks",
            stats.preemptions,
        )?;
        counter(
            &mut encoder,
            "baton_parkings",
            "Sequences that gave up their places to those of other clients, or because nobody read them",
            stats.parkings,
        )?;
        gauge(
            &mut encoder,
            "baton_sequences_paused",
            "Sequences whose readers have stalled",
            stats.paused,
        )?;
        counter(
            &mut encoder,
            "baton_prefill_tokens",
            "Prompt tokens computed",
            stats.prefill_tokens,
        )?;
        counter(&mut encoder, "baton_sampled_tokens", "Tokens sampled", stats.decode_tokens)?;
        counter(
            &mut encoder,
            "baton_miscomputed",
            "Requests that ended because the model computed NaN or infinity",
            stats.miscomputed,
        )?;
        counter(
            &mut encoder,
            "baton_prefix_cached_tokens",
            "Prompt tokens found in the local prefix cache",
            stats.cached_tokens,
        )
    }
}

fn forecast_errors(
    encoder: &mut DescriptorEncoder<'_>,
    errors: &ForecastErrors,
) -> std::fmt::Result {
    let bounds = ForecastErrors::BOUNDS.into_iter().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(errors.counts).collect();
    let mut metric = encoder.encode_descriptor(
        "baton_step_forecast_error",
        "By which share of a step's time its forecast was off, too short or too long (0.1: a tenth)",
        None,
        MetricType::Histogram,
    )?;
    metric.encode_histogram::<NoLabelSet>(errors.sum, errors.counts.iter().sum(), &buckets, None)
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u32,
) -> std::fmt::Result {
    let metric = ConstGauge::new(i64::from(value));
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

fn counter<N: EncodeCounterValue + std::fmt::Debug>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: N,
) -> std::fmt::Result {
    let metric = ConstCounter::new(value);
    let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
    metric.encode(encoder)
}

/// Exports a sender's or a receiver's counters as `baton_handoff_{direction}_*`.
///
/// - `direction`: `sent` or `received`.
pub fn register_transfers(metrics: &Metrics, direction: &'static str, stats: Arc<TransferStats>) {
    let collector = TransferCollector { direction, stats };
    metrics.with_registry(|registry| registry.register_collector(Box::new(collector)));
}

/// Reads one side's transfer counters at each scrape.
#[derive(Debug)]
struct TransferCollector {
    direction: &'static str,
    stats: Arc<TransferStats>,
}

impl Collector for TransferCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let counts = self.stats.counts();
        let rows = [
            ("bytes", "KV bytes", counts.bytes),
            ("pages", "KV pages", counts.pages),
            ("in_place_pages", "KV pages copied from memory to memory", counts.in_place_pages),
            ("copy_microseconds", "Time of messages between memory and buffer", counts.copy_us),
            ("resent_pages", "KV pages sent again", counts.resent_pages),
            ("duplicate_pages", "KV pages that were there already", counts.duplicate_pages),
            ("corrupt_pages", "KV pages refused for a wrong digest", counts.corrupt_pages),
            ("corrupt_messages", "Messages refused for a wrong seal", counts.corrupt_messages),
            ("streams_cut", "Streams lost before their hand-off ended", counts.streams_cut),
            ("verified", "Hand-offs verified", counts.handoffs_verified),
            ("abandoned", "Hand-offs given up by this side", counts.handoffs_abandoned),
            ("expired", "Hand-offs whose deadline passed", counts.handoffs_expired),
            ("failed", "Hand-offs refused or broken", counts.handoffs_failed),
        ];
        for (name, help, value) in rows {
            let name = format!("baton_handoff_{}_{name}", self.direction);
            counter(&mut encoder, &name, help, value)?;
        }
        Ok(())
    }
}
