//! Tiny models for this crate's tests.

use std::path::Path;

use kv_cache::{BlockId, TokenId};
use serde_json::{Value, json};

use crate::backend::cpu::CpuBackend;
use crate::batch::{SequenceRows, StepBatch};
use crate::config::ModelConfig;
use crate::model::{Model, ModelOptions};
use crate::sampler::philox::Philox;
use crate::weights::LoadFormat;

/// A Llama of two layers, small enough for any test.
pub(crate) fn tiny_json() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 80,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 24,
        "max_position_embeddings": 256,
        "torch_dtype": "bfloat16",
        "eos_token_id": 2,
    })
}

/// `tiny_json` with some fields replaced.
pub(crate) fn tiny_json_with(changes: &Value) -> Value {
    let mut config = tiny_json();
    let fields = config.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        fields.insert(name.clone(), value.clone());
    }
    config
}

pub(crate) fn write_config(dir: &Path, config: &Value) {
    std::fs::write(dir.join("config.json"), config.to_string()).expect("a temporary folder");
}

pub(crate) fn load_config(config: &Value) -> Result<ModelConfig, crate::error::EngineError> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_config(dir.path(), config);
    ModelConfig::load(dir.path())
}

pub(crate) fn tiny_config() -> ModelConfig {
    load_config(&tiny_json()).expect("the tiny configuration is valid")
}

/// A model of random weights; the same ones for the same configuration.
pub(crate) fn dummy_model(config: &Value, options: &ModelOptions) -> Model<CpuBackend> {
    let dir = tempfile::tempdir().expect("a temporary folder");
    write_config(dir.path(), config);
    let options = ModelOptions { load_format: LoadFormat::Dummy { seed: 7 }, ..options.clone() };
    Model::load(dir.path(), &options, &mut |_| ()).expect("dummy weights always load")
}

/// Tokens that look random, the same for the same seed.
pub(crate) fn some_tokens(seed: u64, count: usize, vocab_size: u32) -> Vec<TokenId> {
    let generator = Philox::new(seed);
    (0..count as u32).map(|i| generator.block([i, 0, 0, 0])[0] % vocab_size).collect()
}

/// One sequence's part of a step that [`step_of`] puts together.
pub(crate) struct Part<'a> {
    /// The sequence so far, these rows included.
    pub(crate) tokens: &'a [TokenId],
    /// Where its new rows begin.
    pub(crate) from: usize,
    pub(crate) blocks: &'a [u32],
}

/// A batch of the parts' rows, one part after the other, asking for no token.
pub(crate) fn step_of(parts: &[Part<'_>]) -> StepBatch<'static> {
    let mut batch = StepBatch::default();
    for part in parts {
        let start = batch.tokens.len();
        batch.tokens.extend(&part.tokens[part.from..]);
        batch.positions.extend(part.from as u32..part.tokens.len() as u32);
        batch.sequences.push(SequenceRows {
            rows: start..batch.tokens.len(),
            context_tokens: part.tokens.len() as u32,
            blocks: part.blocks.iter().copied().map(BlockId).collect(),
        });
    }
    batch
}

/// Runs one sequence in chunks that end at `ends`; returns the logits' bits of every position.
pub(crate) fn logits_in_chunks(
    model: &mut Model<CpuBackend>,
    tokens: &[TokenId],
    blocks: &[u32],
    ends: &[usize],
) -> Vec<u32> {
    let (mut bits, mut from) = (Vec::new(), 0);
    for &end in ends {
        let batch = step_of(&[Part { tokens: &tokens[..end], from, blocks }]);
        let rows: Vec<usize> = (0..end - from).collect();
        bits.extend(to_bits(&model.logits(&batch, &rows).expect("a valid batch")));
        from = end;
    }
    bits
}

pub(crate) fn to_bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}
