//! A model at work: one thread that owns it, batching whatever is submitted.

mod ahead;
mod core;
mod driven;
mod ordered;
mod rehearsal;
mod request;
mod rising;
mod roster;
mod sequence;
pub mod stats;
mod step;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use kv_cache::{BlockId, KvRegion};
use scheduler::batching::BatchLimits;
use scheduler::cost::StepSeed;
use tokio::sync::watch;
use words::Targets;

use self::core::Core;
pub use self::driven::{DrivenEngine, Turn};
use self::rehearsal::{Scene, Stage};
use self::stats::Meter;
pub use self::stats::{EngineStats, ForecastErrors};
use crate::backend::Backend;
use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::CudaOptions;
use crate::batch::{StepBatch, StepOutput};
use crate::error::EngineError;
use crate::handle::{Command, EngineHandle, EngineInfo, Exchange, SequenceError};
use crate::model::{Model, ModelOptions, OnLayers, PendingStep};
use crate::tiers::{TierOptions, Tiers};
use crate::weights::LoadProgress;

/// Blocks kept free for the growth of running sequences when a prompt is admitted, as a share of
/// all: one in a hundred, enough for some steps until one of them ends.
const WATERMARK_SHARE: u32 = 100;

/// How to run a model.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineConfig {
    /// The checkpoint's folder.
    pub model_dir: PathBuf,
    /// How to load it.
    pub model: ModelOptions,
    /// Tokens of a step at most, decode rows and prefill chunks together. Larger steps prefill
    /// faster and let running sequences wait longer for their next token. At least
    /// `sequences_max + block_tokens`.
    pub batch_tokens_max: u32,
    /// Sequences that run at once; each choice counts.
    pub sequences_max: u32,
    /// Submissions that may wait: prompts, and as many again whose KV was handed off.
    pub queue_max: u32,
    /// The longest sequence, tokens; `None` takes the model's limit.
    pub context_tokens_max: Option<u32>,
    /// Whether to find KV of earlier requests again.
    pub prefix_cache: bool,
    /// How soon tokens are wanted of requests that don't say it themselves; steps are cut for it.
    pub targets: Targets,
    /// Memory below the device's, for what that has no room for. Of no use without a prefix cache.
    pub tiers: TierOptions,
}

/// Starts engines.
#[derive(Debug)]
pub struct Engine;

/// What the loop needs of a model: a [`Model`] on any backend, or in tests and simulations a script.
pub trait StepModel: Send + 'static {
    /// A step that was submitted.
    type Ticket: Send;

    /// See [`crate::backend::Timeline::OVERLAPS`]. Not while others are at work on the device.
    fn overlaps(&self) -> bool;

    /// Whether others may come that would wait for a step to end. Then steps should be short.
    fn expects_others(&self) -> bool;

    /// See [`Model::submit`].
    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<Self::Ticket, EngineError>;

    /// Whether [`StepModel::collect`] would not wait.
    fn is_done(&self, ticket: &Self::Ticket) -> bool;

    /// See [`Model::collect`]. Tickets are collected in the order they were given.
    fn collect(&mut self, ticket: Self::Ticket) -> Result<StepOutput, EngineError>;

    /// See [`Model::copy_block`].
    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError>;
}

// === impl EngineConfig ===

impl EngineConfig {
    fn validate(&self) -> Result<(), EngineError> {
        let limit = |field: &str, reason: String| {
            Err(EngineError::Limits { field: field.to_owned(), reason })
        };
        let ModelOptions { kv_blocks, block_tokens, .. } = self.model;
        let kv_blocks = kv_blocks.unwrap_or(1);
        for (field, value) in [
            ("kv_blocks", kv_blocks),
            ("block_tokens", block_tokens),
            ("sequences_max", self.sequences_max),
            ("queue_max", self.queue_max),
            ("context_tokens_max", self.context_tokens_max.unwrap_or(1)),
        ] {
            if value == 0 {
                return limit(field, "must be at least 1".to_owned());
            }
        }
        let least = self.sequences_max.saturating_add(block_tokens);
        if self.batch_tokens_max < least {
            let reason = format!(
                "{} leaves no room for a prompt's block beside {} decoding sequences; want {least}",
                self.batch_tokens_max, self.sequences_max
            );
            return limit("batch_tokens_max", reason);
        }
        Ok(())
    }

    fn limits(&self, kv_blocks: u32) -> BatchLimits {
        BatchLimits {
            tokens_max: self.batch_tokens_max,
            sequences_max: self.sequences_max,
            block_tokens: self.model.block_tokens,
            watermark_blocks: (kv_blocks / WATERMARK_SHARE).max(1),
            wanted_blocks: 0,
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Loads the model, on this thread, and starts the engine's own.
    ///
    /// # Errors
    /// [`EngineError::Limits`] for a configuration that couldn't work; else as [`Model::load`].
    pub fn start(
        config: &EngineConfig,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<EngineHandle, EngineError> {
        config.validate()?;
        let Some(cuda) = &config.model.cuda else {
            let model = Model::<CpuBackend>::load(&config.model_dir, &config.model, progress)?;
            let scenes = rehearsal::cpu_scenes(config.model.block_tokens);
            let _cores = rehearsal::cores();
            return start_rehearsed(model, config, &scenes);
        };
        let cuda = CudaOptions {
            step_rows_max: config.batch_tokens_max,
            sequences_max: config.sequences_max,
            context_tokens_max: config.context_tokens_max,
            ..cuda.clone()
        };
        let model = Model::load_cuda(&config.model_dir, &config.model, &cuda, progress)?;
        start_rehearsed(model, config, &rehearsal::GPU_SCENES)
    }

    /// Starts the engine's thread over a loaded model, on whatever backend.
    ///
    /// # Errors
    /// [`EngineError::Limits`] for a configuration that couldn't work.
    pub fn start_with<B: Backend>(
        model: Model<B>,
        config: &EngineConfig,
    ) -> Result<EngineHandle, EngineError> {
        start_with_meter(model, config, Meter::new(seed::<B>()))
    }
}

/// What is expected of a backend before it was measured.
fn seed<B: Backend>() -> StepSeed {
    if B::OVERLAPS { StepSeed::GPU } else { StepSeed::CPU }
}

/// For how long a CPU engine measures each step that it rehearses: some ten prompts of the demo model's, of which a busy machine
/// leaves one or two alone. A model that takes longer is measured once.
const CPU_REPEAT_WITHIN: Duration = Duration::from_millis(80);

/// Starts the thread of a model that has shown how fast it is.
fn start_rehearsed<B: Backend>(
    mut model: Model<B>,
    config: &EngineConfig,
    scenes: &[Scene],
) -> Result<EngineHandle, EngineError> {
    let stage = Stage {
        limits: config.limits(model.kv_blocks()),
        blocks: model.kv_blocks(),
        context_tokens_max: info(&model, config).context_tokens_max,
        warm_ups: if B::OVERLAPS { 2 } else { 1 },
        repeat_within: if B::OVERLAPS { Duration::ZERO } else { CPU_REPEAT_WITHIN },
    };
    let meter = rehearsal::rehearse(&mut model, &stage, scenes, Meter::new(seed::<B>()))?;
    start_with_meter(model, config, meter)
}

fn start_with_meter<B: Backend>(
    model: Model<B>,
    config: &EngineConfig,
    meter: Meter,
) -> Result<EngineHandle, EngineError> {
    config.validate()?;
    let info = info(&model, config);
    let region = model.region();
    spawn(model, info, region, config, meter)
}

fn info<B: Backend>(model: &Model<B>, config: &EngineConfig) -> EngineInfo {
    let slots = model.kv_blocks().saturating_mul(config.model.block_tokens);
    let context_tokens_max = config.context_tokens_max.unwrap_or(u32::MAX);
    EngineInfo {
        fingerprint: model.fingerprint().to_owned(),
        layout: model.layout().clone(),
        vocab_size: model.config().vocab_size,
        // A sequence that fills all memory has nobody left to preempt, so it ends there.
        context_tokens_max: context_tokens_max.min(model.config().max_position).min(slots),
        total_blocks: model.kv_blocks(),
        block_tokens: config.model.block_tokens,
        eos_token_ids: model.config().eos_token_ids.clone(),
        queue_max: config.queue_max,
        sequences_max: config.sequences_max,
        prefix_cache: config.prefix_cache,
    }
}

/// Starts the thread.
fn spawn(
    model: impl StepModel,
    info: EngineInfo,
    region: Arc<dyn KvRegion>,
    config: &EngineConfig,
    meter: Meter,
) -> Result<EngineHandle, EngineError> {
    let step_events_max = step_events_max(&info, config);
    let (commands, received) = sync_channel(commands_max(&info));
    let (alive, stopped) = watch::channel(());
    let exchange = Exchange::new(info, region, step_events_max);
    let tiers = open_tiers(&exchange, config)?;
    let exchange = Arc::new(exchange.above(tiers.as_ref()));
    if let Some(seat) = config.model.cuda.as_ref().and_then(|cuda| cuda.partition.as_ref()) {
        // The partition may outlive the engine, and must not keep its memory.
        let exchange = Arc::downgrade(&exchange);
        seat.attend(move || {
            exchange.upgrade().map_or(Duration::ZERO, |exchange| exchange.stats().prefill_wait())
        });
    }
    let limits = config.limits(exchange.info.total_blocks);
    let core = Core::new(model, Arc::clone(&exchange), limits, config.targets);
    let core = core.measured(meter).above(tiers);
    let thread = std::thread::Builder::new()
        .name("baton-engine".to_owned())
        .spawn({
            let exchange = Arc::clone(&exchange);
            move || {
                run(core, &exchange, &received);
                drop(alive);
            }
        })
        .map_err(|error| EngineError::Device(format!("no thread for the engine: {error}")))?;
    Ok(EngineHandle::new(exchange, commands, stopped, thread))
}

fn open_tiers(exchange: &Exchange, config: &EngineConfig) -> Result<Option<Tiers>, EngineError> {
    if !config.prefix_cache {
        return Ok(None);
    }
    Tiers::open(&config.tiers, &exchange.info, &exchange.pool, exchange.region())
}

/// Events of one step besides its tokens: started, cached pages, pages of each layer group, scores.
fn step_events_max(info: &EngineInfo, config: &EngineConfig) -> usize {
    info.layout.layers().div_ceil(config.model.layer_group.max(1)) as usize + 3
}

/// Commands on their way: as many as may wait, of both kinds, and as many wake-ups again.
fn commands_max(info: &EngineInfo) -> usize {
    4 * info.queue_max as usize
}

/// The thread's whole life. Whatever ends it, nobody is left waiting.
fn run<M: StepModel>(mut core: Core<M>, exchange: &Exchange, commands: &Receiver<Command>) {
    let result = catch_unwind(AssertUnwindSafe(|| core.run(commands)));
    exchange.healthy.store(false, Ordering::Release);
    let failure = match result {
        Ok(()) => SequenceError::ShuttingDown,
        Err(panic) => {
            let reason = panic_message(&*panic);
            tracing::error!(reason, "engine died");
            SequenceError::Died(reason)
        }
    };
    core.fail_all(&failure, commands);
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

// === impl Model ===

impl<B: Backend> StepModel for Model<B> {
    type Ticket = PendingStep<B>;

    fn overlaps(&self) -> bool {
        B::OVERLAPS && !self.neighbours().are_at_work()
    }

    fn expects_others(&self) -> bool {
        self.neighbours().may_come()
    }

    fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<PendingStep<B>, EngineError> {
        Self::submit(self, batch, on_layers)
    }

    fn is_done(&self, ticket: &PendingStep<B>) -> bool {
        Self::is_done(self, ticket)
    }

    fn collect(&mut self, ticket: PendingStep<B>) -> Result<StepOutput, EngineError> {
        Self::collect(self, ticket)
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        Self::copy_block(self, from, to)
    }
}

#[cfg(test)]
mod tests;
