//! Settings under which nothing could be served, or less than somebody may think.

use std::path::Path;

use anyhow::{Result, ensure};
use engine::weights::WeightDtype;
use engine::{HostDemand, LoadFormat, ModelConfig};
use kv_cache::KvCodec;
use router::GatewayLimits;
use words::{Role, TIME_MAX, WorkerId};

use super::valid::{Device, KV_BLOCKS_MIN};
use super::{Settings, unknown_variables};
use crate::model::LocalModel;

/// Sequences at a time: many times what the largest GPU runs at once.
const SEQUENCES_MAX: u32 = 1 << 16;
/// Routers give up a worker that has said nothing for a second; one report may be lost.
const REPORT_INTERVAL_MS_MAX: u64 = 500;
/// Requests in a line: a line so long never moves.
const QUEUE_MAX: u32 = 1 << 20;
/// More are none of any machine's.
const THREADS_MAX: usize = 1024;

// === impl Settings ===

impl Settings {
    /// What somebody should know who has set what does not do what it seems to.
    pub(crate) fn remarks(&self) -> Vec<String> {
        unknown_variables().iter().map(super::Unknown::remark).collect()
    }

    /// The same of a worker that runs `model`.
    ///
    /// # Errors
    /// If its settings make no sense with this model.
    pub(crate) fn remarks_on(&self, model: &LocalModel) -> Result<Vec<String>> {
        self.check_context(model)?;
        let engine = self.engine(Role::Decode, model)?;
        let own = ModelConfig::load(&model.dir)?.max_position;
        let context = engine.context_tokens_max.unwrap_or(own);
        let mut remarks = Vec::new();
        if let Some(blocks) = engine.model.kv_blocks {
            let slots = blocks.saturating_mul(engine.model.block_tokens);
            if slots < context {
                remarks.push(format!(
                    "the KV pool holds {slots} tokens, and the context is {context}: longer requests are \
                     refused; raise --kv-blocks or --kv-memory-mib, or say --context-tokens-max {slots}"
                ));
            }
        }
        let source = self.written.model.source.as_deref();
        if self.written.model.revision.is_some() && source.is_none_or(|it| Path::new(it).is_dir()) {
            remarks.push("model.revision has no effect: the model is a folder".to_owned());
        }
        if engine.model.cuda.is_none() && self.written.engine.gpu_partition.is_some() {
            remarks.push("engine.gpu_partition has no effect: no GPU is used".to_owned());
        }
        Ok(remarks)
    }

    /// Refuses a context that the model doesn't have.
    ///
    /// # Errors
    /// Naming both.
    pub(crate) fn check_context(&self, model: &LocalModel) -> Result<()> {
        let Some(wanted) = self.written.engine.context_tokens_max else { return Ok(()) };
        let own = ModelConfig::load(&model.dir)?.max_position;
        ensure!(
            wanted <= own,
            "engine.context_tokens_max is {wanted}, but {} reads at most {own} tokens: say so many, or \
             leave it out",
            model.name
        );
        Ok(())
    }

    /// Refuses what this machine has no memory for, of so many engines without a GPU.
    ///
    /// # Errors
    /// Saying how much would fit.
    pub(crate) fn check_memory(&self, model: &LocalModel, engines: u32) -> Result<()> {
        let engine = self.engine(Role::Decode, model)?;
        let (engine, tier_bytes) = (engine.model, engine.tiers.host_bytes);
        let (None, Some(blocks)) = (&engine.cuda, engine.kv_blocks) else {
            return Ok(HostDemand { engines, ..HostDemand::of_tier(tier_bytes) }.check()?);
        };
        let config = ModelConfig::load(&model.dir)?;
        let layout = config.kv_layout(engine.block_tokens, self.likely_codec(&config)?);
        let demand = HostDemand::new(&model.dir, &layout, blocks);
        let mut demand = HostDemand { engines, tier_bytes, ..demand };
        if !matches!(engine.load_format, LoadFormat::Auto) {
            demand.weights_bytes = 0;
        }
        Ok(demand.check()?)
    }

    /// That of the KV pool, where the weights themselves have not been looked at: the least it can be.
    fn likely_codec(&self, config: &ModelConfig) -> Result<KvCodec> {
        let weights = match config.dtype {
            Some(WeightDtype::F32) => KvCodec::F32,
            Some(WeightDtype::Bf16 | WeightDtype::F16) | None => KvCodec::BF16,
        };
        Ok(self.kv_dtype()?.unwrap_or(weights))
    }

    /// Counts of the engine that are none.
    pub(super) fn check_counts(&self) -> Result<()> {
        let engine = &self.written.engine;
        at_least("engine.kv_blocks", engine.kv_blocks, KV_BLOCKS_MIN)?;
        at_least("engine.layer_group", engine.layer_group, 1)?;
        at_least("engine.queue_max", engine.queue_max, 1)?;
        at_most("engine.queue_max", engine.queue_max, QUEUE_MAX)?;
        at_most("engine.sequences_max", engine.sequences_max, SEQUENCES_MAX)?;
        // A token to begin with, and one to answer.
        at_least("engine.context_tokens_max", engine.context_tokens_max, 2)?;
        at_least("engine.threads", engine.threads, 1)?;
        self.check_tiers()?;
        let threads = engine.threads.unwrap_or(1);
        ensure!(
            threads <= THREADS_MAX,
            "engine.threads is {threads}: want at most {THREADS_MAX}, better one per core"
        );
        if self.device()? == Device::Cpu {
            ensure!(
                !matches!(engine.gpu_partition.as_deref(), Some(it) if it != "off"),
                "engine.gpu_partition divides a GPU, and engine.device is cpu: leave one of them out"
            );
        }
        Ok(())
    }

    /// Times that no clock can count to.
    pub(super) fn check_times(&self) -> Result<()> {
        let (gateway, worker) = (&self.written.gateway, &self.written.worker);
        let targets = &self.written.targets;
        let seconds = [
            ("gateway.request_timeout_s", gateway.request_timeout_s),
            ("gateway.reader_timeout_s", gateway.reader_timeout_s),
            ("gateway.greeting_timeout_s", gateway.greeting_timeout_s),
            ("gateway.head_timeout_s", gateway.head_timeout_s),
            ("gateway.body_timeout_s", gateway.body_timeout_s),
            ("gateway.idle_timeout_s", gateway.idle_timeout_s),
            ("worker.drain_deadline_s", worker.drain_deadline_s),
            ("worker.deadline_max_s", worker.deadline_max_s),
            ("etcd.lease_ttl_s", self.written.etcd.lease_ttl_s),
        ];
        let millis = [
            ("targets.ttft_target_ms", targets.ttft_target_ms),
            ("targets.tpot_target_ms", targets.tpot_target_ms),
            ("targets.itl_target_ms", targets.itl_target_ms),
        ];
        millis.into_iter().try_for_each(|(name, value)| at_least(name, value, 1))?;
        let year = TIME_MAX.as_secs();
        seconds.into_iter().try_for_each(|(name, value)| at_most(name, value, year))?;
        millis.into_iter().try_for_each(|(name, value)| at_most(name, value, year * 1000))
    }

    /// Counts and times of the gateway that are none.
    pub(super) fn check_gateway(&self) -> Result<()> {
        let gateway = &self.written.gateway;
        let counts = [
            ("gateway.streams_max", gateway.streams_max),
            ("gateway.connections_max", gateway.connections_max),
            ("gateway.connections_per_client_max", gateway.connections_per_client_max),
        ];
        counts.into_iter().try_for_each(|(name, value)| at_least(name, value, 1))?;
        let sizes = [
            ("gateway.body_kib_max", gateway.body_kib_max),
            ("gateway.reader_timeout_s", gateway.reader_timeout_s),
            ("gateway.request_timeout_s", gateway.request_timeout_s),
            ("gateway.greeting_timeout_s", gateway.greeting_timeout_s),
            ("gateway.head_timeout_s", gateway.head_timeout_s),
            ("gateway.body_timeout_s", gateway.body_timeout_s),
            ("gateway.idle_timeout_s", gateway.idle_timeout_s),
        ];
        sizes.into_iter().try_for_each(|(name, value)| at_least(name, value, 1))?;
        at_least("gateway.choices_max", gateway.choices_max, 1)?;
        at_most("gateway.choices_max", gateway.choices_max, GatewayLimits::CHOICES_MAX as u32)
    }

    /// What a worker can't be called, or can't do.
    pub(super) fn check_worker(&self) -> Result<()> {
        let worker = &self.written.worker;
        if let Some(id) = &worker.id {
            cluster::membership::check_id(&WorkerId(id.as_str().into()))?;
        }
        if let Some(host) = &worker.advertise_host {
            let is_plain = host.parse::<std::net::IpAddr>().is_ok()
                || host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            ensure!(
                is_plain && !host.is_empty(),
                "worker.advertise_host is {host:?}: want a host's name or address, and no port"
            );
        }
        at_least("worker.report_interval_ms", worker.report_interval_ms, 1)?;
        at_most("worker.report_interval_ms", worker.report_interval_ms, REPORT_INTERVAL_MS_MAX)?;
        at_least("worker.deadline_max_s", worker.deadline_max_s, 1)?;
        at_least("worker.credit_queue_max", worker.credit_queue_max, 1)?;
        at_most("worker.credit_queue_max", worker.credit_queue_max, QUEUE_MAX as usize)?;
        at_least("worker.connections_max", worker.connections_max, 1)?;
        let has_name = |name: &Option<String>| name.as_ref().is_none_or(|name| !name.is_empty());
        ensure!(
            has_name(&self.written.model.served_model_name),
            "model.served_model_name is empty"
        );
        self.check_api_key()
    }

    /// A key that lets nobody in, or that no client can send.
    fn check_api_key(&self) -> Result<()> {
        let Some(key) = &self.written.gateway.api_key else { return Ok(()) };
        ensure!(
            !key.trim().is_empty(),
            "gateway.api_key is empty: give a key (`baton keys new` makes them), or leave it out to let everybody in"
        );
        ensure!(
            key.bytes().all(|byte| byte.is_ascii_graphic()),
            "gateway.api_key has a space, or another character that can't be in a header"
        );
        Ok(())
    }

    /// Where traces can't go.
    pub(super) fn check_telemetry(&self) -> Result<()> {
        if let Some(url) = &self.written.telemetry.otlp_endpoint {
            ensure!(
                url.strip_prefix("http://").is_some_and(|rest| !rest.is_empty()),
                "telemetry.otlp_endpoint is {url:?}: want http://HOST:PORT of a collector (OTLP over gRPC)"
            );
        }
        Ok(())
    }
}

fn at_most<N: Copy + PartialOrd + std::fmt::Display>(
    name: &str,
    written: Option<N>,
    most: N,
) -> Result<()> {
    if let Some(value) = written {
        ensure!(value <= most, "{name} is {value}: want at most {most}");
    }
    Ok(())
}

fn at_least<N: Copy + PartialOrd + std::fmt::Display>(
    name: &str,
    written: Option<N>,
    least: N,
) -> Result<()> {
    if let Some(value) = written {
        ensure!(value >= least, "{name} is {value}: want at least {least}");
    }
    Ok(())
}
