//! Models to compare, and how to run them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use engine::backend::Backend;
use engine::backend::cpu::CpuBackend;
use engine::backend::cuda::{CudaBackend, CudaOptions};
use engine::{LoadFormat, Model, ModelOptions, SequenceRows, StepBatch};
use kv_cache::{BlockId, KvCodec, TokenId};
use serde_json::{Value, json};

pub(crate) const BLOCK_TOKENS: u32 = 16;

/// How to open the GPU of these tests.
///
/// - `portable`: with the kernels for any GPU.
pub(crate) fn gpu(portable: bool) -> CudaOptions {
    CudaOptions {
        ordinal: engine::cuda::first_usable().expect("a GPU that the kernels run on"),
        portable,
        kernel_cache: Some(std::env::temp_dir().join("baton-test-kernels")),
        turns: Some(std::env::temp_dir().join("baton-test-kernels")),
        step_rows_max: 2048,
        sequences_max: 64,
        ..CudaOptions::default()
    }
}

/// A model's folder, and what its weights are.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) format: LoadFormat,
    pub(crate) block_tokens: u32,
    _made: Option<tempfile::TempDir>,
}

// === impl Source ===

impl Source {
    /// A checkpoint.
    pub(crate) fn stored(dir: &Path) -> Self {
        let name = dir.file_name().and_then(|name| name.to_str()).expect("a folder's name");
        let (name, dir) = (name.to_owned(), dir.to_owned());
        let (format, block_tokens) = (LoadFormat::Auto, BLOCK_TOKENS);
        Self { name, dir, format, block_tokens, _made: None }
    }

    /// A configuration with random weights.
    pub(crate) fn random(name: &str, config: &Value) -> Self {
        let made = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(made.path().join("config.json"), config.to_string()).expect("a file in it");
        Self {
            name: name.to_owned(),
            dir: made.path().to_owned(),
            format: LoadFormat::Dummy { seed: 5 },
            block_tokens: BLOCK_TOKENS,
            _made: Some(made),
        }
    }

    /// The same configuration with weights of IEEE halves.
    pub(crate) fn in_halves(&self) -> Self {
        let text = std::fs::read_to_string(self.dir.join("config.json")).expect("config.json");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        config["torch_dtype"] = json!("float16");
        Self::random(&format!("{} in halves", self.name), &config)
    }

    /// On the CPU, with 32-bit activations and KV.
    pub(crate) fn on_cpu(&self, kv_blocks: u32) -> Model<CpuBackend> {
        let options = ModelOptions { kv_codec: Some(KvCodec::F32), ..self.options(kv_blocks) };
        Model::load(&self.dir, &options, &mut |_| ())
            .unwrap_or_else(|error| panic!("{} on the CPU: {error}", self.name))
    }

    pub(crate) fn on_gpu(&self, cuda: &CudaOptions, kv_blocks: u32) -> Model<CudaBackend> {
        self.on_gpu_as(None, cuda, kv_blocks)
    }

    /// With weights, activations and KV of another type than the checkpoint's.
    ///
    /// IEEE halves have three bits more than bfloat16, so they show a mistake that is an eighth as
    /// large. The same kernels compute with both.
    pub(crate) fn on_gpu_as(
        &self,
        kv_codec: Option<KvCodec>,
        cuda: &CudaOptions,
        kv_blocks: u32,
    ) -> Model<CudaBackend> {
        let options = ModelOptions { kv_codec, ..self.options(kv_blocks) };
        Model::load_cuda(&self.dir, &options, cuda, &mut |_| ())
            .unwrap_or_else(|error| panic!("{} on the GPU: {error}", self.name))
    }

    pub(crate) fn options(&self, kv_blocks: u32) -> ModelOptions {
        ModelOptions {
            kv_blocks: Some(kv_blocks),
            block_tokens: self.block_tokens,
            load_format: self.format,
            ..ModelOptions::default()
        }
    }
}

/// Llama-3.1-8B's heads and proportions, an eighth as wide and of two layers: what the kernels for
/// Hopper are made for.
pub(crate) fn narrow_llama() -> Source {
    Source::random(
        "narrow-llama",
        &json!({
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": 1000,
            "hidden_size": 512,
            "intermediate_size": 1024,
            "num_hidden_layers": 2,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "max_position_embeddings": 16384,
            "rope_theta": 500_000.0,
            "torch_dtype": "bfloat16",
            "eos_token_id": 2,
        }),
    )
}

/// Shapes that the kernels have paths of their own for, all small: head sizes, heads to a key/value
/// head, norms of heads, biases, windows, half precision.
pub(crate) fn other_shapes() -> Vec<Source> {
    let base = json!({
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": 1000,
        "hidden_size": 256,
        "intermediate_size": 320,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
        "eos_token_id": 2,
    });
    let shapes = [
        ("d64", json!({})),
        ("d16", json!({ "head_dim": 16 })),
        ("d16-odd-vocabulary", json!({ "head_dim": 16, "vocab_size": 999 })),
        ("d128-odd-vocabulary", json!({ "head_dim": 128, "vocab_size": 999 })),
        ("d24", json!({ "head_dim": 24 })),
        ("d128-qwen3", json!({ "architectures": ["Qwen3ForCausalLM"], "head_dim": 128 })),
        ("d128-f16", json!({ "torch_dtype": "float16", "head_dim": 128 })),
        ("d128-mha", json!({ "head_dim": 128, "num_key_value_heads": 8 })),
        ("d128-group-8", json!({ "head_dim": 128, "num_key_value_heads": 1 })),
        (
            "d128-group-7",
            json!({
                "architectures": ["Qwen2ForCausalLM"],
                "hidden_size": 896, "head_dim": 128, "num_attention_heads": 7, "num_key_value_heads": 1,
            }),
        ),
        (
            "d128-window",
            json!({
                "architectures": ["MistralForCausalLM"], "head_dim": 128, "sliding_window": 50,
            }),
        ),
        ("d80", json!({ "head_dim": 80 })),
        ("d96", json!({ "head_dim": 96 })),
        ("d256", json!({ "head_dim": 256, "num_attention_heads": 4 })),
    ];
    let with = |changes: &Value| {
        let mut config = base.clone();
        let fields = config.as_object_mut().expect("an object");
        let changes = changes.as_object().expect("an object");
        fields.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
        config
    };
    shapes.iter().map(|(name, changes)| Source::random(name, &with(changes))).collect()
}

/// Checks all sources, whatever some of them do wrong.
pub(crate) fn each(sources: impl IntoIterator<Item = Source>, check: impl Fn(&Source)) {
    let wrong: Vec<String> = sources
        .into_iter()
        .filter(|source| catch_unwind(AssertUnwindSafe(|| check(source))).is_err())
        .map(|source| source.name)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?} fail");
}

/// Tokens that look random, the same for the same seed.
pub(crate) fn some_tokens(seed: u32, count: usize, vocab: u32) -> Vec<TokenId> {
    let mix = |at: u32| (seed * 7919 + at).wrapping_mul(2_654_435_761) >> 7;
    (0..count as u32).map(|at| mix(at) % vocab).collect()
}

/// One sequence's part of a step.
pub(crate) struct Part<'a> {
    /// The sequence so far, these rows included.
    pub(crate) tokens: &'a [TokenId],
    /// Where its new rows begin.
    pub(crate) from: usize,
    pub(crate) blocks: &'a [BlockId],
}

/// A batch of the parts' rows, one part after the other, asking for no token.
pub(crate) fn step_of(parts: &[Part<'_>]) -> StepBatch<'static> {
    step_in_blocks(parts, BLOCK_TOKENS)
}

fn step_in_blocks(parts: &[Part<'_>], block_tokens: u32) -> StepBatch<'static> {
    let mut batch = StepBatch::default();
    for part in parts {
        let start = batch.tokens.len();
        batch.tokens.extend(&part.tokens[part.from..]);
        batch.positions.extend(part.from as u32..part.tokens.len() as u32);
        let blocks = part.tokens.len().div_ceil(block_tokens as usize);
        batch.sequences.push(SequenceRows {
            rows: start..batch.tokens.len(),
            context_tokens: part.tokens.len() as u32,
            blocks: part.blocks[..blocks].to_vec().into(),
        });
    }
    batch
}

/// Blocks for `tokens` tokens out of a pool, in no order; disjoint for different `sequence`s of as
/// many tokens.
pub(crate) fn blocks_of(sequence: usize, tokens: usize, pool: u32) -> Vec<BlockId> {
    let count = tokens.div_ceil(BLOCK_TOKENS as usize);
    let first = sequence * count;
    assert!(first + count <= pool as usize, "{pool} blocks for sequence {sequence}");
    // Steps of a number that divides no pool visit every block once.
    let step = (3..).step_by(2).find(|step| gcd(*step, pool) == 1).expect("some odd number");
    (first..first + count).map(|at| BlockId((at as u32 * step + 1) % pool)).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Logits of all positions of one sequence, computed in chunks that end at `ends`.
pub(crate) fn logits_in_chunks<B: Backend>(
    model: &mut Model<B>,
    tokens: &[TokenId],
    blocks: &[BlockId],
    ends: &[usize],
) -> Vec<f32> {
    let block_tokens = model.layout().block_tokens();
    let (mut logits, mut from) = (Vec::new(), 0);
    for &end in ends {
        let part = Part { tokens: &tokens[..end], from, blocks };
        let batch = step_in_blocks(&[part], block_tokens);
        let rows: Vec<usize> = (0..end - from).collect();
        logits.extend(model.logits(&batch, &rows).expect("a valid batch"));
        from = end;
    }
    logits
}
