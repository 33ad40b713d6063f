//! Qwen3: Llama with a norm on each head's queries and keys, and Qwen2's windows.

use model_folder::{Fields, FolderError};

use super::{Extras, Family, llama, qwen2};

/// See the module.
pub(super) const FAMILY: Family = Family {
    class: "Qwen3ForCausalLM",
    name: "Qwen3",
    default_head_dim: |_, _| Some(128),
    extras,
    layer: llama::layer,
};

fn extras(fields: &Fields, layers: u32) -> Result<Extras, FolderError> {
    let has_bias = fields.bool("attention_bias")?.unwrap_or(false);
    Ok(Extras {
        qkv_bias: has_bias,
        output_bias: has_bias,
        mlp_bias: false,
        qk_norm: true,
        windows: qwen2::windows(fields, layers)?,
    })
}
