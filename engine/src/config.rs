//! What a checkpoint's `config.json` says, as plain typed values.

mod families;
pub(crate) mod layer;
mod rope;

use std::path::Path;

use kv_cache::{KvCodec, KvLayout, PageShape, TokenId};
use model_folder::{Fields, FolderError, ModelFolder};
use serde::Serialize;

use crate::error::EngineError;
use crate::weights::{MatrixSpec, VectorSpec, WeightDtype, WeightFormat};
use families::Extras;
pub use families::Family;
use layer::LayerSpec;
pub use rope::{Llama3Scaling, RopeConfig, RopeScaling, YarnScaling};

/// Layers of a model: ten times those of the deepest. Something is kept for each before a weight is read.
const LAYERS_MAX: u32 = 4096;

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
    pub architecture: &'static Family,
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
    /// How matrices are stored.
    #[serde(skip)]
    pub format: &'static WeightFormat,
    /// Tokens that end a sequence: see [`ModelFolder::end_tokens`].
    #[serde(skip)]
    pub eos_token_ids: Vec<TokenId>,
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

    /// The embedding, one row a token.
    pub(crate) fn embedding(&self) -> MatrixSpec {
        MatrixSpec::new("model.embed_tokens", self.vocab_size as usize, self.hidden_size as usize)
    }

    /// What turns hidden states into logits, where that isn't the embedding.
    pub(crate) fn head(&self) -> MatrixSpec {
        MatrixSpec { name: "lm_head".to_owned(), ..self.embedding() }
    }

    /// The norm behind the last layer.
    pub(crate) fn norm(&self) -> VectorSpec {
        VectorSpec::new("model.norm.weight", self.hidden_size as usize)
    }

    /// What a layer is made of.
    pub(crate) fn layer(&self, index: u32) -> LayerSpec {
        (self.architecture.layer)(self, index)
    }

    fn parse(folder: &ModelFolder) -> Result<Self, FolderError> {
        let fields = folder.config();
        let architecture = Family::of(fields)?;
        let format = WeightFormat::of(fields)?;
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
        let Extras { qkv_bias, output_bias, mlp_bias, qk_norm, windows } =
            (architecture.extras)(fields, layers)?;
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
            qkv_bias,
            output_bias,
            mlp_bias,
            qk_norm,
            windows,
            rope,
            dtype: dtype(fields)?,
            format,
            eos_token_ids: folder.end_tokens()?,
        })
    }
}

fn refuse_unsupported(fields: &Fields) -> Result<(), FolderError> {
    match fields.str("hidden_act")?.as_deref() {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => {
            Err(fields.error("hidden_act", format!("{other} is not supported: want silu")))
        }
    }
}

fn head_dim(
    fields: &Fields,
    architecture: &Family,
    hidden_size: u32,
    heads: u32,
) -> Result<u32, FolderError> {
    let head_dim = match fields.positive_u32("head_dim")? {
        Some(explicit) => explicit,
        None => (architecture.default_head_dim)(hidden_size, heads).ok_or_else(|| {
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
