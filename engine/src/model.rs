//! A model: weights, KV memory, and the forward pass, written once for every backend.

mod layers;
mod validate;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use kv_cache::{BlockId, Fence, KvCodec, KvLayout, KvRegion};

use crate::backend::cpu::CpuBackend;
use crate::backend::cuda::{CudaBackend, CudaOptions};
use crate::backend::{Attention, Backend, Linear, Norm, Pass};
use crate::batch::{ScoreRow, StepBatch, StepOutput};
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::host_memory::HostDemand;
use crate::rope::Rope;
use crate::weights::{LoadFormat, LoadProgress, WeightReader};
use layers::{Layer, Weights, tensors_total};

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
}

/// Activations of the step under way; kept between steps for their memory.
struct Scratch<B: Backend> {
    /// `[tokens, hidden]`: the residual stream.
    hidden: B::Buffer,
    /// `[tokens, hidden]`: the normed residual stream.
    normed: B::Buffer,
    /// `[tokens, qkv width]`.
    qkv: B::Buffer,
    /// `[tokens, q width]`.
    attended: B::Buffer,
    /// `[tokens, hidden]`: what attention or MLP adds.
    delta: B::Buffer,
    /// `[kept, hidden]`, `[kept, qkv width]`: of the rows that go on past the last layer's cache write.
    kept_hidden: B::Buffer,
    kept_qkv: B::Buffer,
    /// `[tokens, 2 * intermediate]`.
    gate_up: B::Buffer,
    /// `[tokens, intermediate]`.
    activated: B::Buffer,
    /// `[up to LOGIT_ROWS_MAX, vocab]`.
    logits: B::Buffer,
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
        Self::load_with(dir, &options, progress, |config, layout| {
            CudaBackend::new(config, layout, options.kv_blocks, cuda)
        })
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
        let total = tensors_total(&config);
        let mut reader = WeightReader::open(dir, &config, options.load_format, total, progress)?;
        if config.tie_embeddings && reader.has_own_head()? {
            tracing::warn!(
                model = %dir.display(),
                "config.json ties the output projection to the embedding, but the weights hold \
                 another one, which is used; say tie_word_embeddings: false there"
            );
            config.tie_embeddings = false;
        }
        let codec = match options.kv_codec {
            Some(codec) => codec,
            None => reader.dtype()?.codec(),
        };
        let layout = config.kv_layout(options.block_tokens, codec);
        let mut backend = start(&config, &layout)?;
        let weights = Weights::load(&config, &mut reader, &mut backend)?;
        let scratch = Scratch::new(&config, &mut backend)?;
        let rope = Rope::new(&config.rope, config.head_dim as usize);
        backend.finish_loading(&config, &rope)?;
        Ok(Self {
            scratch,
            rope,
            fingerprint: reader.fingerprint(),
            layer_group: options.layer_group.max(1),
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

    /// See [`Backend::is_shared`].
    pub(crate) fn is_shared(&self) -> bool {
        self.backend.is_shared()
    }

    /// See [`Backend::expects_others`].
    pub(crate) fn expects_others(&self) -> bool {
        self.backend.expects_others()
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
            self.backend.pass(end)?;
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

// === impl Scratch ===

impl<B: Backend> Scratch<B> {
    fn new(config: &ModelConfig, backend: &mut B) -> Result<Self, EngineError> {
        let shape = config.head_shape();
        let hidden = config.hidden_size as usize;
        let intermediate = config.intermediate_size as usize;
        Ok(Self {
            hidden: backend.buffer(hidden)?,
            normed: backend.buffer(hidden)?,
            qkv: backend.buffer(shape.qkv_width())?,
            attended: backend.buffer(shape.q_width())?,
            delta: backend.buffer(hidden)?,
            kept_hidden: backend.kept_buffer(hidden)?,
            kept_qkv: backend.kept_buffer(shape.qkv_width())?,
            gate_up: backend.buffer(2 * intermediate)?,
            activated: backend.buffer(intermediate)?,
            logits: backend.logit_buffer(config.vocab_size as usize)?,
        })
    }
}

/// The forward pass of one step.
struct Forward<'a, B: Backend> {
    config: &'a ModelConfig,
    weights: &'a Weights<B>,
    scratch: &'a mut Scratch<B>,
    layer_group: u32,
    /// See [`StepBatch::kept_rows`].
    kept: Option<Vec<usize>>,
    /// Whether only kept rows are left.
    is_narrow: bool,
}

// === impl Forward ===

impl<B: Backend> Forward<'_, B> {
    /// Embeds the tokens and runs all layers; leaves the normed last hidden state in `normed`, of the
    /// rows that are kept.
    fn layers(
        &mut self,
        backend: &mut B,
        batch: &B::Batch,
        mut on_layers: Option<&mut OnLayers<'_>>,
    ) -> Result<(), EngineError> {
        let eps = self.config.rms_norm_eps;
        let weights = self.weights;
        backend.embed(batch, &weights.embedding, &mut self.scratch.hidden)?;
        for (index, layer) in (0u32..).zip(&weights.layers) {
            self.norm(backend, index > 0, Norm { weight: &layer.attention_norm, eps })?;
            let attention = self.attention_of(index, layer);
            self.write_kv(backend, batch, &attention, layer, on_layers.as_deref_mut())?;
            match &self.kept {
                Some(kept) if index + 1 == self.config.layers => {
                    if kept.is_empty() {
                        return Ok(());
                    }
                    self.attend_kept(backend, batch, &attention)?;
                }
                _ => {
                    let Scratch { qkv, attended, .. } = &mut *self.scratch;
                    backend.attention(batch, &attention, qkv, attended)?;
                }
            }
            let Scratch { attended, delta, .. } = &mut *self.scratch;
            backend.linear(attended, layer.output.as_linear(), delta)?;
            self.norm(backend, true, Norm { weight: &layer.mlp_norm, eps })?;
            self.mlp(backend, layer)?;
        }
        self.norm(backend, true, Norm { weight: &weights.norm, eps })
    }

    /// The residual stream, with `delta` added to it if that is pending, to `normed`.
    fn norm(
        &mut self,
        backend: &mut B,
        pending: bool,
        norm: Norm<'_, B>,
    ) -> Result<(), EngineError> {
        let Scratch { hidden, kept_hidden, normed, delta, .. } = &mut *self.scratch;
        let hidden = if self.is_narrow { kept_hidden } else { hidden };
        backend.add_norm(hidden, pending.then_some(&*delta), norm, normed)
    }

    /// What is particular to a layer's attention.
    fn attention_of<'l>(&self, index: u32, layer: &'l Layer<B>) -> Attention<'l, B> {
        let eps = self.config.rms_norm_eps;
        Attention {
            layer: index,
            shape: self.config.head_shape(),
            window: self.config.windows[index as usize],
            q_norm: layer.q_norm.as_ref().map(|weight| Norm { weight, eps }),
            k_norm: layer.k_norm.as_ref().map(|weight| Norm { weight, eps }),
        }
    }

    /// `normed` to `qkv`, and keys and values on to the layer's pages.
    fn write_kv(
        &mut self,
        backend: &mut B,
        batch: &B::Batch,
        attention: &Attention<'_, B>,
        layer: &Layer<B>,
        on_layers: Option<&mut OnLayers<'_>>,
    ) -> Result<(), EngineError> {
        let written = self.group_ending_with(attention.layer);
        let Scratch { normed, qkv, .. } = &mut *self.scratch;
        backend.linear(normed, layer.qkv.as_linear(), qkv)?;
        backend.rope_and_cache(batch, attention, qkv)?;
        if let (Some(written), Some(on_layers)) = (written, on_layers) {
            on_layers(written, backend.fence()?);
        }
        Ok(())
    }

    /// `qkv` to `attended`, of the rows that are kept; from here on there are no others.
    fn attend_kept(
        &mut self,
        backend: &mut B,
        batch: &B::Batch,
        attention: &Attention<'_, B>,
    ) -> Result<(), EngineError> {
        let Scratch { hidden, kept_hidden, qkv, kept_qkv, attended, .. } = &mut *self.scratch;
        self.is_narrow = true;
        backend.keep(batch, hidden, kept_hidden)?;
        backend.keep(batch, qkv, kept_qkv)?;
        backend.attention_of_kept(batch, attention, kept_qkv, attended)
    }

    /// `normed` to `delta`.
    fn mlp(&mut self, backend: &mut B, layer: &Layer<B>) -> Result<(), EngineError> {
        let Scratch { normed, gate_up, activated, delta, .. } = &mut *self.scratch;
        backend.gated(normed, layer.gate_up.as_linear(), gate_up, activated)?;
        backend.linear(activated, layer.down.as_linear(), delta)
    }

    /// The layers to report once layer `index` has been written, if a group ends with it.
    fn group_ending_with(&self, index: u32) -> Option<Range<u32>> {
        let end = index + 1;
        let ends_group = end.is_multiple_of(self.layer_group) || end == self.config.layers;
        ends_group.then(|| index / self.layer_group * self.layer_group..end)
    }

    /// Computes logits where they are wanted, a bounded number of rows at a time, and asks for tokens
    /// and scores.
    fn choose(
        &mut self,
        backend: &mut B,
        batch: &StepBatch<'_>,
        pending: &mut PendingStep<B>,
    ) -> Result<(), EngineError> {
        for (chunk, samples) in batch.samples.chunks(B::LOGIT_ROWS_MAX).enumerate() {
            let rows = self.wanted_logits(backend, samples.iter().map(|sample| sample.row))?;
            let requests: Vec<_> =
                samples.iter().map(|sample| (place(&rows, sample.row), sample)).collect();
            let first = chunk * B::LOGIT_ROWS_MAX;
            pending.samples.push(backend.sample(&self.scratch.logits, first, &requests)?);
        }
        for scores in batch.scores.chunks(B::LOGIT_ROWS_MAX) {
            let rows = self.wanted_logits(backend, scores.iter().map(|score| score.row))?;
            let requests: Vec<_> =
                scores.iter().map(|score| (place(&rows, score.row), score)).collect();
            pending.scores.push(backend.score(&self.scratch.logits, &requests)?);
        }
        Ok(())
    }

    /// Computes the logits of some batch rows, each once; returns which rows, ascending.
    fn wanted_logits(
        &mut self,
        backend: &mut B,
        rows: impl Iterator<Item = usize>,
    ) -> Result<Vec<usize>, EngineError> {
        let mut rows: Vec<usize> = rows.collect();
        rows.sort_unstable();
        rows.dedup();
        let Scratch { normed, logits, .. } = &mut *self.scratch;
        let computed: Vec<usize> = match &self.kept {
            Some(kept) => rows.iter().map(|&row| place(kept, row)).collect(),
            None => rows.clone(),
        };
        backend.logits(normed, &computed, self.weights.head(), logits)?;
        Ok(rows)
    }
}

fn place(rows: &[usize], row: usize) -> usize {
    rows.binary_search(&row).expect("every wanted row was computed")
}

impl<B: Backend> layers::Projection<B> {
    fn as_linear(&self) -> Linear<'_, B> {
        Linear { weight: &self.weight, bias: self.bias.as_ref() }
    }
}

#[cfg(test)]
mod tests;
