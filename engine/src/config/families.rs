//! The model families: what each says in its `config.json`, and what its tensors are called.
//!
//! A family is a file here and a row in [`FAMILIES`].

mod llama;
mod mistral;
mod qwen2;
mod qwen3;

use std::fmt;

use model_folder::{Fields, FolderError};
use serde::{Serialize, Serializer};

use super::ModelConfig;
use super::layer::LayerSpec;

/// All of them.
const FAMILIES: &[&Family] = &[&llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

/// Models of one kind: a class of transformers.
pub struct Family {
    /// The class, as `architectures` has it.
    class: &'static str,
    /// The name in fingerprints.
    name: &'static str,
    /// The head size where the file names none; from the hidden size and the number of heads.
    pub(super) default_head_dim: fn(u32, u32) -> Option<u32>,
    /// What the family says beyond what all do; of so many layers.
    pub(super) extras: fn(&Fields, u32) -> Result<Extras, FolderError>,
    /// What one of its layers is made of.
    pub(super) layer: fn(&ModelConfig, u32) -> LayerSpec,
}

/// See the fields of [`ModelConfig`] that are called the same.
pub(super) struct Extras {
    pub(super) qkv_bias: bool,
    pub(super) output_bias: bool,
    pub(super) mlp_bias: bool,
    pub(super) qk_norm: bool,
    pub(super) windows: Vec<Option<u32>>,
}

// === impl Family ===

impl Family {
    /// The family that a `config.json` names.
    ///
    /// # Errors
    /// [`FolderError`] if it names none that is here.
    pub(super) fn of(fields: &Fields) -> Result<&'static Self, FolderError> {
        let names = fields.require("architectures", fields.strings("architectures")?)?;
        let name = names.first().map_or("an empty list", String::as_str);
        let family = FAMILIES.iter().copied().find(|family| family.class == name);
        family.ok_or_else(|| {
            let known: Vec<_> = FAMILIES.iter().map(|family| family.class).collect();
            let (last, others) = known.split_last().expect("there are several");
            let reason = format!("{name} is not supported: want {} or {last}", others.join(", "));
            fields.error("architectures", reason)
        })
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.class == other.class
    }
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

/// Heads share the hidden size, as most families have it.
fn equal_heads(hidden_size: u32, heads: u32) -> Option<u32> {
    hidden_size.is_multiple_of(heads).then(|| hidden_size / heads)
}

/// What families of transformers take for a window where the file doesn't mention one.
const WINDOW_DEFAULT: u32 = 4096;
