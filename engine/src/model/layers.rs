//! A model's weights on the device, and the names they have in a checkpoint.

use crate::backend::Backend;
use crate::config::ModelConfig;
use crate::error::EngineError;
use crate::weights::{EMBEDDING, HEAD, TensorSpec, WeightReader};

/// All weights of a model.
pub(super) struct Weights<B: Backend> {
    pub(super) embedding: B::Matrix,
    pub(super) layers: Vec<Layer<B>>,
    pub(super) norm: B::Vector,
    /// Absent where the embedding is used for it.
    head: Option<B::Matrix>,
}

/// One transformer layer.
pub(super) struct Layer<B: Backend> {
    pub(super) attention_norm: B::Vector,
    /// Queries, keys and values, fused.
    pub(super) qkv: Projection<B>,
    pub(super) q_norm: Option<B::Vector>,
    pub(super) k_norm: Option<B::Vector>,
    pub(super) output: Projection<B>,
    pub(super) mlp_norm: B::Vector,
    /// Gate and up, fused.
    pub(super) gate_up: Projection<B>,
    pub(super) down: Projection<B>,
}

/// A weight matrix and perhaps a bias.
pub(super) struct Projection<B: Backend> {
    pub(super) weight: B::Matrix,
    pub(super) bias: Option<B::Vector>,
}

/// Loads one thing after another.
struct Loader<'a, 'r, B> {
    config: &'a ModelConfig,
    reader: &'a mut WeightReader<'r>,
    backend: &'a mut B,
}

/// How many tensors a model reads from its checkpoint.
pub(super) fn tensors_total(config: &ModelConfig) -> usize {
    let biases = 3 * usize::from(config.qkv_bias)
        + usize::from(config.output_bias)
        + 3 * usize::from(config.mlp_bias);
    let per_layer = 9 + biases + 2 * usize::from(config.qk_norm);
    2 + usize::from(!config.tie_embeddings) + per_layer * config.layers as usize
}

// === impl Weights ===

impl<B: Backend> Weights<B> {
    pub(super) fn load(
        config: &ModelConfig,
        reader: &mut WeightReader<'_>,
        backend: &mut B,
    ) -> Result<Self, EngineError> {
        let mut loader = Loader { config, reader, backend };
        let (vocab, hidden) = (config.vocab_size as usize, config.hidden_size as usize);
        let embedding = loader.matrix(&[TensorSpec::matrix(EMBEDDING, vocab, hidden)])?;
        let layers =
            (0..config.layers).map(|layer| loader.layer(layer)).collect::<Result<_, _>>()?;
        let norm = loader.vector("model.norm.weight", hidden)?;
        let head = match config.tie_embeddings {
            true => None,
            false => Some(loader.matrix(&[TensorSpec::matrix(HEAD, vocab, hidden)])?),
        };
        Ok(Self { embedding, layers, norm, head })
    }

    /// The matrix that turns hidden states into logits.
    pub(super) fn head(&self) -> &B::Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

// === impl Loader ===

impl<B: Backend> Loader<'_, '_, B> {
    fn layer(&mut self, layer: u32) -> Result<Layer<B>, EngineError> {
        let config = self.config;
        let shape = config.head_shape();
        let (q, kv) = (shape.q_width(), shape.kv_width());
        let (hidden, inner) = (config.hidden_size as usize, config.intermediate_size as usize);
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (attention, mlp) = (name("self_attn"), name("mlp"));
        let qk_norm = |loader: &mut Self, part: &str| match config.qk_norm {
            true => loader.vector(&format!("{attention}.{part}.weight"), shape.head_dim).map(Some),
            false => Ok(None),
        };
        Ok(Layer {
            attention_norm: self.vector(&name("input_layernorm.weight"), hidden)?,
            qkv: self.projection(
                &attention,
                &[("q_proj", q), ("k_proj", kv), ("v_proj", kv)],
                hidden,
                config.qkv_bias,
            )?,
            q_norm: qk_norm(self, "q_norm")?,
            k_norm: qk_norm(self, "k_norm")?,
            output: self.projection(&attention, &[("o_proj", hidden)], q, config.output_bias)?,
            mlp_norm: self.vector(&name("post_attention_layernorm.weight"), hidden)?,
            gate_up: self.projection(
                &mlp,
                &[("gate_proj", inner), ("up_proj", inner)],
                hidden,
                config.mlp_bias,
            )?,
            down: self.projection(&mlp, &[("down_proj", hidden)], inner, config.mlp_bias)?,
        })
    }

    /// Projections of one input, fused into one: `parts` are names and numbers of outputs.
    fn projection(
        &mut self,
        prefix: &str,
        parts: &[(&str, usize)],
        inputs: usize,
        has_bias: bool,
    ) -> Result<Projection<B>, EngineError> {
        let weights: Vec<_> = parts
            .iter()
            .map(|(part, rows)| {
                TensorSpec::matrix(format!("{prefix}.{part}.weight"), *rows, inputs)
            })
            .collect();
        let biases: Vec<_> = parts
            .iter()
            .map(|(part, rows)| TensorSpec::vector(format!("{prefix}.{part}.bias"), *rows))
            .collect();
        let weight = self.matrix(&weights)?;
        let bias = has_bias.then(|| self.vectors(&biases)).transpose()?;
        Ok(Projection { weight, bias })
    }

    fn matrix(&mut self, specs: &[TensorSpec]) -> Result<B::Matrix, EngineError> {
        let backend = &mut *self.backend;
        self.reader.read(specs, |tensors| backend.matrix(tensors))
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<B::Vector, EngineError> {
        self.vectors(&[TensorSpec::vector(name, len)])
    }

    fn vectors(&mut self, specs: &[TensorSpec]) -> Result<B::Vector, EngineError> {
        let backend = &mut *self.backend;
        self.reader.read(specs, |tensors| backend.vector(tensors))
    }
}
