//! A model: weights, KV memory, and the forward pass, written once for every backend.

mod attention;
mod forward;
mod load;
mod mlp;
mod validate;
mod weights;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kv_cache::{BlockId, Fence, KvCodec, KvLayout, KvRegion};

use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::HostDemand;
use crate::backend::cuda::{CudaBackend, CudaOptions};
use crate::backend::rope::Rope;
use crate::backend::{Backend, Pass};
use crate::batch::{ScoreRow, StepBatch, StepOutput};
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::neighbours::Neighbours;
use crate::weights::{LoadFormat, LoadProgress, WeightReader, WeightSource};
use forward::{Forward, Scratch, place};
use load::Loader;
use weights::Weights;

/// How to load a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelOptions {
    /// Blocks of KV memory; `None` for as many as a GPU has memory for.
    pub kv_blocks: Option<u32>,
    /// Token slots of a block.
    pub block_tokens: u32,
    /// How KV memory is written; `None` keeps numbers of the weights' type.
    pub kv_codec: Option<KvCodec>,
    /// Threads of the CPU backend; `None` takes one per core.
    pub threads: Option<usize>,
    /// The GPU to run on; `None` for the CPU.
    pub cuda: Option<CudaOptions>,
    /// Where the weights come from.
    pub load_format: LoadFormat,
    /// Layers per call of `on_layers`: how finely a hand-off overlaps with computing.
    pub layer_group: u32,
}

/// Called during a step as soon as a group of layers has written the step's keys and values, with a
/// fence behind those writes. On the step's thread: hand on, don't wait.
pub type OnLayers<'a> = dyn FnMut(Range<u32>, Fence) + Send + 'a;

/// A batch that was submitted: what it will give.
pub struct PendingStep<B: Backend> {
    samples: Vec<B::Samples>,
    scores: Vec<B::Scores>,
    /// Behind all of it; `None` for an empty batch.
    end: Option<B::Mark>,
}

/// A loaded model with its KV memory.
pub struct Model<B: Backend> {
    backend: B,
    config: ModelConfig,
    layout: KvLayout,
    weights: Weights<B>,
    rope: Rope,
    scratch: Scratch<B>,
    fingerprint: String,
    layer_group: u32,
    neighbours: Neighbours,
}

// === impl ModelOptions ===

impl Default for ModelOptions {
    fn default() -> Self {
        Self {
            kv_blocks: Some(1024),
            block_tokens: 16,
            kv_codec: None,
            threads: None,
            cuda: None,
            load_format: LoadFormat::Auto,
            layer_group: 1,
        }
    }
}

// === impl Model ===

impl Model<CpuBackend> {
    /// Loads a checkpoint's folder onto the CPU.
    ///
    /// - `progress`: called after each tensor group.
    ///
    /// # Errors
    /// [`EngineError::Io`], [`EngineError::Config`] and [`EngineError::Weights`] name the file;
    /// [`EngineError::Device`] if there is not enough memory.
    pub fn load(
        dir: &Path,
        options: &ModelOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, EngineError> {
        let blocks = options.kv_blocks.ok_or_else(|| EngineError::Limits {
            field: "kv_blocks".to_owned(),
            reason: "the CPU backend has to be told how many".to_owned(),
        })?;
        Self::load_with(dir, options, progress, |_, layout| {
            let demand = HostDemand::new(dir, layout, blocks);
            match options.load_format {
                LoadFormat::Auto => demand.check()?,
                LoadFormat::Dummy { .. } => HostDemand { weights_bytes: 0, ..demand }.check()?,
            }
            CpuBackend::new(layout, blocks, options.threads)
        })
    }
}

impl Model<CudaBackend> {
    /// Loads a checkpoint's folder onto a GPU. Weights in 32-bit floats become bfloat16.
    ///
    /// # Errors
    /// As [`Model::load`]; [`EngineError::Device`] says, too, what is missing to use the GPU.
    pub fn load_cuda(
        dir: &Path,
        options: &ModelOptions,
        cuda: &CudaOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, EngineError> {
        let options = ModelOptions {
            kv_codec: options.kv_codec.or(CudaBackend::kv_codec(dir)?),
            ..options.clone()
        };
        let model = Self::load_with(dir, &options, progress, |config, layout| {
            CudaBackend::new(config, layout, options.kv_blocks, cuda)
        })?;
        Ok(Self { neighbours: model.backend.neighbours(), ..model })
    }
}

impl<B: Backend> Model<B> {
    /// Loads a checkpoint's folder onto the backend that `start` makes for the model's KV layout.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_with(
        dir: &Path,
        options: &ModelOptions,
        progress: &mut dyn FnMut(LoadProgress),
        start: impl FnOnce(&ModelConfig, &KvLayout) -> Result<B, EngineError>,
    ) -> Result<Self, EngineError> {
        let mut config = ModelConfig::load(dir)?;
        let from = WeightSource {
            dir,
            load: options.load_format,
            format: config.format,
            dtype: config.dtype,
            count: weights::count(&config),
        };
        let mut reader = WeightReader::open(from, &config, progress)?;
        let (embedding, head) = (config.embedding(), config.head());
        if config.tie_embeddings && reader.differ(&embedding, &head)? {
            tracing::warn!(
                model = %dir.display(),
                "config.json ties the output projection to the embedding, but the weights hold \
                 another one, which is used; say tie_word_embeddings: false there"
            );
            config.tie_embeddings = false;
        }
        let codec = match options.kv_codec {
            Some(codec) => codec,
            None => reader.dtype(&embedding)?.codec(),
        };
        let layout = config.kv_layout(options.block_tokens, codec);
        let mut backend = start(&config, &layout)?;
        let loader = Loader { config: &config, reader: &mut reader, backend: &mut backend };
        let weights = Weights::load(loader)?;
        let scratch = Scratch::new(&config, &mut backend)?;
        let rope = Rope::new(&config.rope, config.head_dim as usize);
        backend.finish_loading(&config, &rope)?;
        Ok(Self {
            scratch,
            rope,
            fingerprint: reader.fingerprint(),
            layer_group: options.layer_group.max(1),
            neighbours: Neighbours::default(),
            backend,
            config,
            layout,
            weights,
        })
    }

    /// What the checkpoint says of itself.
    #[must_use]
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Blocks of the KV memory.
    #[must_use]
    pub fn kv_blocks(&self) -> u32 {
        self.backend.kv_blocks()
    }

    /// The shape of the KV memory.
    #[must_use]
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// The KV memory, to copy pages to and from on other threads while steps run.
    #[must_use]
    pub fn region(&self) -> Arc<dyn KvRegion> {
        self.backend.region()
    }

    /// 32 hex digits over configuration and weights: equal for models that compute the same KV.
    #[must_use]
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Runs one batch: writes its keys and values, chooses and scores the tokens asked for.
    ///
    /// # Errors
    /// As [`Model::submit`] and [`Model::collect`].
    pub fn step(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<StepOutput, EngineError> {
        let pending = self.submit(batch, on_layers)?;
        self.collect(pending)
    }

    /// Submits one batch to the device, behind all that was submitted before.
    ///
    /// - `on_layers`: see [`OnLayers`].
    ///
    /// # Errors
    /// [`EngineError::InvalidBatch`] before anything is written; [`EngineError::Device`] with the
    /// batch's slots undefined.
    pub fn submit(
        &mut self,
        batch: &StepBatch<'_>,
        on_layers: &mut OnLayers<'_>,
    ) -> Result<PendingStep<B>, EngineError> {
        validate::batch(batch, &self.config, &self.layout, self.backend.kv_blocks())?;
        let mut pending = PendingStep { samples: Vec::new(), scores: Vec::new(), end: None };
        if batch.tokens.is_empty() {
            return Ok(pending);
        }
        let Self { backend, config, weights, rope, scratch, layer_group, .. } = self;
        let kept = batch.kept_rows();
        let mut forward =
            Forward { config, weights, scratch, layer_group: *layer_group, kept, is_narrow: false };
        backend.run(|backend| {
            let prepared = backend.prepare(batch, rope)?;
            let pass = backend.layers(&prepared, |backend, pass| match pass {
                Pass::Live => forward.layers(backend, &prepared, Some(&mut *on_layers)),
                // Nothing is written yet that could be announced.
                Pass::Recorded => forward.layers(backend, &prepared, None),
            })?;
            if pass == Pass::Recorded {
                on_layers(0..forward.config.layers, backend.fence()?);
            }
            forward.choose(backend, batch, &mut pending)?;
            pending.end = Some(backend.mark()?);
            Ok(pending)
        })
    }

    /// Other processes' engines on the device.
    pub(crate) fn neighbours(&self) -> &Neighbours {
        &self.neighbours
    }

    /// Whether the device is done with a submitted batch.
    #[must_use]
    pub fn is_done(&self, pending: &PendingStep<B>) -> bool {
        pending.end.as_ref().is_none_or(|end| self.backend.has_passed(end))
    }

    /// Waits for what a submitted batch gives.
    ///
    /// # Errors
    /// [`EngineError::Device`] with the batch's slots undefined.
    pub fn collect(&mut self, pending: PendingStep<B>) -> Result<StepOutput, EngineError> {
        let mut output = StepOutput::default();
        if let Some(end) = pending.end {
            output.took = self.backend.pass(end)?;
        }
        for samples in pending.samples {
            output.samples.extend(self.backend.sampled(samples)?);
        }
        for scores in pending.scores {
            output.scores.extend(self.backend.scored(scores)?);
        }
        Ok(output)
    }

    /// Copies a whole block, for copy-on-write.
    ///
    /// # Errors
    /// [`EngineError::InvalidBatch`] for a block that doesn't exist, [`EngineError::Device`].
    pub fn copy_block(&mut self, from: BlockId, to: BlockId) -> Result<(), EngineError> {
        let blocks = self.backend.kv_blocks();
        match [from, to].into_iter().find(|block| block.0 >= blocks) {
            Some(block) => {
                Err(EngineError::InvalidBatch(format!("block {block} of a pool of {blocks}")))
            }
            None => self.backend.copy_block(from, to),
        }
    }

    /// Runs one batch and returns the logits of `rows`, row after row: for tests and diagnosis.
    ///
    /// # Errors
    /// As [`Model::step`].
    pub fn logits(
        &mut self,
        batch: &StepBatch<'_>,
        rows: &[usize],
    ) -> Result<Vec<f32>, EngineError> {
        // Rows that nothing is wanted of have no logits.
        let scores = rows.iter().map(|&row| ScoreRow { row, next: 0, top: 0 });
        let batch = StepBatch { scores: scores.collect(), ..batch.clone() };
        self.step(&batch, &mut |_, _| ())?;
        let rows: Vec<usize> = match batch.kept_rows() {
            Some(kept) => rows.iter().map(|&row| place(&kept, row)).collect(),
            None => rows.to_vec(),
        };
        let Self { backend, weights, scratch, .. } = self;
        let mut logits = Vec::with_capacity(rows.len() * self.config.vocab_size as usize);
        for group in rows.chunks(B::LOGIT_ROWS_MAX) {
            backend.logits(&scratch.normed, group, weights.head(), &mut scratch.logits)?;
            logits.extend(backend.download(&scratch.logits)?);
        }
        Ok(logits)
    }
}

#[cfg(test)]
mod tests;
