//! `baton bench engine`: how fast one engine is, against what the hardware allows.
//!
//! Each row names what was measured, the least that the hardware's own rates allow (the *floor*), and
//! how many times the floor it took. The rates are measured first, on the card at hand. Whole steps
//! go through the engine's own loop: what is timed is what a worker's requests get.

mod decode;
mod driver;
mod floor;
mod mixed;
mod operations;
mod prefill;
mod report;
mod sizes;
mod start;

use std::str::FromStr;

use anyhow::{Context as _, Result};
use engine::cuda::measure::Yardstick;
use engine::{CudaOptions, EngineConfig, LoadFormat, ModelConfig, ModelOptions};

use self::driver::Driver;
use self::floor::Floor;
pub use self::report::{EngineReport, Row};
use self::sizes::Sizes;
use crate::ceilings::Ceilings;
use crate::energy::{Energy, Meter, Span};
use crate::models::{Checkpoint, ModelSource};

/// What to measure, and on what.
#[derive(Clone, Debug)]
pub struct EngineBench {
    /// The model.
    pub model: ModelSource,
    /// The GPU; `None` for the CPU.
    pub cuda: Option<CudaOptions>,
    /// What to measure; everything where it is empty.
    pub only: Vec<Group>,
    /// Fewer repetitions.
    pub quick: bool,
    /// Of weights and prompts.
    pub seed: u64,
    /// Tokens of a step; `None` for what serving takes by default.
    pub batch_tokens_max: Option<u32>,
}

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Time to start, and to the first token.
    Start,
    /// Attention over pages, and softmax. On a GPU.
    Attention,
    /// Products with weights. On a GPU.
    Products,
    /// Steady decoding, by batch.
    Decode,
    /// Prompts: time to the first token and throughput.
    Prefill,
    /// Decoding while prompts arrive.
    Mixed,
}

/// What happens while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// What is done next.
    Note(&'a str),
    /// A row is measured.
    Row(&'a Row),
}

/// Hears of [`Progress`].
pub type OnProgress<'a> = dyn FnMut(Progress<'_>) + 'a;

/// Blocks of KV on the CPU: more than the small sizes need.
const CPU_KV_BLOCKS: u32 = 1024;

const BLOCK_TOKENS: u32 = 16;

/// What all groups work with.
struct Run<'a> {
    bench: &'a EngineBench,
    checkpoint: Checkpoint,
    config: ModelConfig,
    sizes: Sizes,
    floor: Floor,
    /// What the device uses, where it says so.
    meter: Option<Meter>,
    report: EngineReport,
    progress: &'a mut OnProgress<'a>,
}

// === impl EngineBench ===

impl EngineBench {
    /// Measures. Blocks the calling thread, which must not be one of a runtime's own.
    ///
    /// # Errors
    /// If the device or the model can't be used, or a step fails.
    pub fn run<'a>(&'a self, progress: &'a mut OnProgress<'a>) -> Result<EngineReport> {
        let checkpoint = Checkpoint::open(&self.model)?;
        let config = ModelConfig::load(checkpoint.dir())?;
        let report = EngineReport {
            device: "CPU".to_owned(),
            shape: checkpoint.name().to_owned(),
            ..EngineReport::default()
        };
        let sizes = Sizes::new(self.cuda.is_some(), self.quick);
        let floor = Floor::new(&config, None);
        let mut run =
            Run { bench: self, checkpoint, config, sizes, floor, meter: None, report, progress };
        if self.wants(Group::Start) {
            // First: what has to be opened is opened in its time.
            start::measure(&mut run)?;
        }
        if let Some(cuda) = &self.cuda {
            run.measure_device(cuda)?;
        }
        run.engine_rows()?;
        Ok(run.report)
    }

    fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }
}

// === impl Run ===

impl Run<'_> {
    fn note(&mut self, text: &str) {
        (self.progress)(Progress::Note(text));
    }

    fn row(&mut self, row: Row) {
        (self.progress)(Progress::Row(&row));
        self.report.rows.push(row);
    }

    /// What these took of the device.
    fn energy(&self, spans: &[Span]) -> Option<Energy> {
        self.meter.as_ref()?.energy(spans)
    }

    /// Its rates, and rows of single operations.
    fn measure_device(&mut self, cuda: &CudaOptions) -> Result<()> {
        let yardstick = Yardstick::open(cuda)?;
        yardstick.device_name().clone_into(&mut self.report.device);
        let ceilings = Ceilings::measure(&yardstick)?;
        self.report.ceilings = Some(ceilings);
        self.floor = Floor::new(&self.config, Some(ceilings));
        self.meter = Meter::of_gpu(&yardstick.device_uuid()?);
        self.note(&format!("{}: {ceilings}", yardstick.device_name()));
        if self.bench.wants(Group::Attention) {
            operations::attention(self, &yardstick, cuda)?;
        }
        if self.bench.wants(Group::Products) {
            operations::products(self, &yardstick, cuda)?;
        }
        Ok(())
    }

    /// Rows through one engine's loop.
    fn engine_rows(&mut self) -> Result<()> {
        if ![Group::Decode, Group::Prefill, Group::Mixed]
            .into_iter()
            .any(|group| self.bench.wants(group))
        {
            return Ok(());
        }
        self.note(&format!("starting an engine for {}", self.checkpoint.name().to_owned()));
        let config = self.engine_config();
        let mut driver = Driver::start(&config, self.bench.seed)?;
        let slots = u64::from(driver.info().total_blocks) * u64::from(BLOCK_TOKENS);
        self.note(&format!("{slots} tokens of KV fit; warming up"));
        driver.warm_up(config.batch_tokens_max)?;
        if self.bench.wants(Group::Decode) {
            decode::measure(self, &mut driver)?;
        }
        if self.bench.wants(Group::Prefill) {
            prefill::measure(self, &mut driver)?;
        }
        if self.bench.wants(Group::Mixed) {
            mixed::measure(self, &mut driver)?;
        }
        Ok(())
    }

    /// As a worker runs the model, without a prefix cache.
    fn engine_config(&self) -> EngineConfig {
        let is_gpu = self.bench.cuda.is_some();
        let (batch_tokens, sequences) = if is_gpu { (8448, 256) } else { (512, 64) };
        EngineConfig {
            model_dir: self.checkpoint.dir().to_owned(),
            model: ModelOptions {
                kv_blocks: (!is_gpu).then_some(CPU_KV_BLOCKS),
                block_tokens: BLOCK_TOKENS,
                cuda: self.bench.cuda.clone(),
                load_format: if self.checkpoint.has_weights() {
                    LoadFormat::Auto
                } else {
                    LoadFormat::Dummy { seed: self.bench.seed }
                },
                layer_group: 4,
                ..ModelOptions::default()
            },
            batch_tokens_max: self.bench.batch_tokens_max.unwrap_or(batch_tokens),
            sequences_max: sequences,
            queue_max: 1024,
            context_tokens_max: None,
            prefix_cache: false,
            targets: words::Targets::default(),
            tiers: engine::TierOptions::default(),
        }
    }
}

// === impl Group ===

impl Group {
    /// All of them, in the order they are measured in.
    pub const ALL: &'static [Self] =
        &[Self::Start, Self::Attention, Self::Products, Self::Decode, Self::Prefill, Self::Mixed];

    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Attention => "attention",
            Self::Products => "products",
            Self::Decode => "decode",
            Self::Prefill => "prefill",
            Self::Mixed => "mixed",
        }
    }

    /// Whether it is measured on a GPU alone: it has rows of kernels.
    #[must_use]
    pub fn needs_gpu(self) -> bool {
        matches!(self, Self::Attention | Self::Products)
    }
}

impl FromStr for Group {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.iter().copied().find(|group| group.name() == text);
        known.with_context(|| {
            let names: Vec<_> = Self::ALL.iter().map(|group| group.name()).collect();
            format!("want {}", names.join(", "))
        })
    }
}
