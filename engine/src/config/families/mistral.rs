//! Mistral: Llama with a sliding window.

use model_folder::{Fields, FolderError};

use super::{Extras, Family, WINDOW_DEFAULT, equal_heads, llama};

/// See the module.
pub(super) const FAMILY: Family = Family {
    class: "MistralForCausalLM",
    name: "Mistral",
    default_head_dim: equal_heads,
    extras,
    layer: llama::layer,
};

fn extras(fields: &Fields, layers: u32) -> Result<Extras, FolderError> {
    // Absent means the family's default, `null` means none.
    let window = match fields.mentions("sliding_window") {
        true => fields.positive_u32("sliding_window")?,
        false => Some(WINDOW_DEFAULT),
    };
    Ok(Extras {
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        windows: vec![window; layers as usize],
    })
}
