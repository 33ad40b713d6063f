//! What a checkpoint's `config.json` says, as plain typed values.

mod rope;

use std::path::Path;

use kv_cache::{KvCodec, KvLayout, PageShape, TokenId};
use model_folder::{Fields, FolderError, ModelFolder};
use serde::Serialize;

use crate::error::EngineError;
pub use rope::{Llama3Scaling, RopeConfig, RopeScaling, YarnScaling};

/// Layers of a model: ten times those of the deepest. Something is kept for each before a weight is read.
const LAYERS_MAX: u32 = 4096;

/// The model families the forward pass knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Architecture {
    /// `LlamaForCausalLM`.
    Llama,
    /// `MistralForCausalLM`: Llama with a sliding window.
    Mistral,
    /// `Qwen2ForCausalLM`: Llama with biases on queries, keys and values.
    Qwen2,
    /// `Qwen3ForCausalLM`: Llama with a norm on each head's queries and keys.
    Qwen3,
}

/// The element type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum WeightDtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    F16,
}

/// How a layer's projection splits into heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
}

/// A decoder-only transformer, as its configuration files describe it.
///
/// Serialized into the model's fingerprint, so only what changes a computed number is serialized.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding; token ids are below it.
    pub vocab_size: u32,
    /// Width of the residual stream.
    pub hidden_size: u32,
    /// Width of the MLP.
    pub intermediate_size: u32,
    /// Transformer layers.
    pub layers: u32,
    /// Query heads of a layer.
    pub heads: u32,
    /// Key/value heads of a layer.
    pub kv_heads: u32,
    /// Elements of one head.
    pub head_dim: u32,
    /// The longest sequence, tokens.
    pub max_position: u32,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f32,
    /// Whether the output projection is the embedding.
    pub tie_embeddings: bool,
    /// Biases on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the attention's output projection.
    pub output_bias: bool,
    /// Biases in the MLP.
    pub mlp_bias: bool,
    /// Norms on each head's queries and keys.
    pub qk_norm: bool,
    /// `[layers]`: how many tokens back a row sees, itself included; `None` sees all.
    pub windows: Vec<Option<u32>>,
    /// Rotary position embedding.
    pub rope: RopeConfig,
    /// The dtype the file declares; weights are kept in the one their tensors have.
    #[serde(skip)]
    pub dtype: Option<WeightDtype>,
    /// Tokens that end a sequence: see [`ModelFolder::end_tokens`].
    #[serde(skip)]
    pub eos_token_ids: Vec<TokenId>,
}

// === impl Architecture ===

impl Architecture {
    fn parse(fields: &Fields) -> Result<Self, FolderError> {
        let names = fields.require("architectures", fields.strings("architectures")?)?;
        match names.first().map(String::as_str) {
            Some("LlamaForCausalLM") => Ok(Self::Llama),
            Some("MistralForCausalLM") => Ok(Self::Mistral),
            Some("Qwen2ForCausalLM") => Ok(Self::Qwen2),
            Some("Qwen3ForCausalLM") => Ok(Self::Qwen3),
            other => Err(fields.error(
                "architectures",
                format!(
                    "{} is not supported: want LlamaForCausalLM, MistralForCausalLM, \
                     Qwen2ForCausalLM or Qwen3ForCausalLM",
                    other.unwrap_or("an empty list")
                ),
            )),
        }
    }

    /// The head size where the file names none.
    fn default_head_dim(self, hidden_size: u32, heads: u32) -> Option<u32> {
        match self {
            Self::Qwen3 => Some(128),
            _ if hidden_size.is_multiple_of(heads) => Some(hidden_size / heads),
            _ => None,
        }
    }
}

// === impl WeightDtype ===

impl WeightDtype {
    /// Bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// The name used in configuration files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// What keeps such numbers as they are in KV memory.
    #[must_use]
    pub fn codec(self) -> KvCodec {
        match self {
            Self::F32 => KvCodec::F32,
            Self::Bf16 => KvCodec::BF16,
            Self::F16 => KvCodec::F16,
        }
    }

    /// The type that pages in `codec` are arrays of, if they are.
    #[must_use]
    pub fn kept_in(codec: &KvCodec) -> Option<Self> {
        let all = [Self::F32, Self::Bf16, Self::F16];
        all.into_iter().find(|dtype| codec.plain() == Some(dtype.codec().numbers))
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16, Self::F16].into_iter().find(|dtype| dtype.name() == name)
    }
}

// === impl HeadShape ===

impl HeadShape {
    /// Width of the queries, and of the attention's output.
    #[must_use]
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the keys, and of the values.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Width of the fused projection: queries, keys, values.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        self.q_width() + 2 * self.kv_width()
    }

    /// Query heads that share one key/value head.
    #[must_use]
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

// === impl ModelConfig ===

impl ModelConfig {
    /// Reads a model's small files (see [`ModelFolder`]).
    ///
    /// # Errors
    /// [`EngineError::Io`] if `config.json` can't be read; [`EngineError::Config`], naming file and
    /// field, for anything missing, malformed or unsupported.
    pub fn load(dir: &Path) -> Result<Self, EngineError> {
        Ok(Self::parse(&ModelFolder::open(dir)?)?)
    }

    /// The heads of every layer.
    #[must_use]
    pub fn head_shape(&self) -> HeadShape {
        HeadShape {
            heads: self.heads as usize,
            kv_heads: self.kv_heads as usize,
            head_dim: self.head_dim as usize,
        }
    }

    /// What a pool holds of the model: all of its cache.
    #[must_use]
    pub fn kv_layout(&self, block_tokens: u32, codec: KvCodec) -> KvLayout {
        let page = PageShape::keys_and_values(self.head_dim, block_tokens);
        KvLayout::whole(self.layers, self.kv_heads, page, codec)
    }

    fn parse(folder: &ModelFolder) -> Result<Self, FolderError> {
        let fields = folder.config();
        let architecture = Architecture::parse(fields)?;
        refuse_unsupported(fields)?;
        let required = |name: &str| fields.require(name, fields.positive_u32(name)?);
        let flag = |name: &str| Ok(fields.bool(name)?.unwrap_or(false));
        let (hidden_size, heads) = (required("hidden_size")?, required("num_attention_heads")?);
        let (layers, max_position) =
            (required("num_hidden_layers")?, required("max_position_embeddings")?);
        if layers > LAYERS_MAX {
            return Err(
                fields.error("num_hidden_layers", format!("{layers}, at most {LAYERS_MAX}"))
            );
        }
        let head_dim = head_dim(fields, architecture, hidden_size, heads)?;
        let rope = RopeConfig::parse(fields, max_position)?;
        let has_attention_bias = match architecture {
            Architecture::Llama | Architecture::Qwen3 => flag("attention_bias")?,
            Architecture::Mistral | Architecture::Qwen2 => false,
        };
        Ok(Self {
            architecture,
            vocab_size: required("vocab_size")?,
            hidden_size,
            intermediate_size: required("intermediate_size")?,
            layers,
            heads,
            kv_heads: kv_heads(fields, heads)?,
            head_dim,
            max_position: folder.context_tokens()?.unwrap_or(max_position),
            rms_norm_eps: fields.positive_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            tie_embeddings: flag("tie_word_embeddings")?,
            qkv_bias: has_attention_bias || architecture == Architecture::Qwen2,
            output_bias: has_attention_bias,
            mlp_bias: architecture == Architecture::Llama && flag("mlp_bias")?,
            qk_norm: architecture == Architecture::Qwen3,
            windows: windows(fields, architecture, layers)?,
            rope,
            dtype: dtype(fields)?,
            eos_token_ids: folder.end_tokens()?,
        })
    }
}

fn refuse_unsupported(fields: &Fields) -> Result<(), FolderError> {
    if fields.get("quantization_config").is_some() {
        return Err(fields.error("quantization_config", "quantized checkpoints are not supported"));
    }
    match fields.str("hidden_act")?.as_deref() {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => {
            Err(fields.error("hidden_act", format!("{other} is not supported: want silu")))
        }
    }
}

fn head_dim(
    fields: &Fields,
    architecture: Architecture,
    hidden_size: u32,
    heads: u32,
) -> Result<u32, FolderError> {
    let head_dim = match fields.positive_u32("head_dim")? {
        Some(explicit) => explicit,
        None => architecture.default_head_dim(hidden_size, heads).ok_or_else(|| {
            fields.error(
                "head_dim",
                format!("is missing, and {hidden_size} is no multiple of {heads} heads"),
            )
        })?,
    };
    if head_dim.is_multiple_of(2) {
        Ok(head_dim)
    } else {
        Err(fields.error("head_dim", format!("{head_dim} is odd: rotation works on pairs")))
    }
}

fn kv_heads(fields: &Fields, heads: u32) -> Result<u32, FolderError> {
    let kv_heads = fields.positive_u32("num_key_value_heads")?.unwrap_or(heads);
    if heads.is_multiple_of(kv_heads) {
        Ok(kv_heads)
    } else {
        Err(fields.error("num_key_value_heads", format!("{heads} heads can't share {kv_heads}")))
    }
}

/// Which layers see only a window, as each family of transformers decides it.
fn windows(
    fields: &Fields,
    architecture: Architecture,
    layers: u32,
) -> Result<Vec<Option<u32>>, FolderError> {
    let window = fields.positive_u32("sliding_window")?;
    match architecture {
        Architecture::Llama => Ok(vec![None; layers as usize]),
        // Absent means the family's default, `null` means none.
        Architecture::Mistral if !fields.mentions("sliding_window") => {
            Ok(vec![Some(4096); layers as usize])
        }
        Architecture::Mistral => Ok(vec![window; layers as usize]),
        Architecture::Qwen2 | Architecture::Qwen3 => qwen_windows(fields, window, layers),
    }
}

fn qwen_windows(
    fields: &Fields,
    window: Option<u32>,
    layers: u32,
) -> Result<Vec<Option<u32>>, FolderError> {
    let default = (!fields.mentions("sliding_window")).then_some(4096);
    let window = match fields.bool("use_sliding_window")? {
        Some(true) => window.or(default),
        _ => None,
    };
    let Some(types) = fields.strings("layer_types")? else {
        let full_layers = fields.u32("max_window_layers")?.unwrap_or(28);
        return Ok((0..layers).map(|layer| window.filter(|_| layer >= full_layers)).collect());
    };
    if types.len() != layers as usize {
        return Err(
            fields.error("layer_types", format!("has {} entries for {layers} layers", types.len()))
        );
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            "full_attention" => Ok(None),
            "sliding_attention" => Ok(window),
            other => Err(fields.error("layer_types", format!("{other} is not supported"))),
        })
        .collect()
}

fn dtype(fields: &Fields) -> Result<Option<WeightDtype>, FolderError> {
    let field = if fields.get("dtype").is_some() { "dtype" } else { "torch_dtype" };
    let Some(name) = fields.str(field)? else { return Ok(None) };
    match WeightDtype::parse(&name) {
        Some(dtype) => Ok(Some(dtype)),
        None => Err(fields
            .error(field, format!("{name} is not supported: want bfloat16, float16 or float32"))),
    }
}

#[cfg(test)]
mod tests;
