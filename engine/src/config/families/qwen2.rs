//! Qwen2: Llama with biases on queries, keys and values, and windows in some layers.

use model_folder::{Fields, FolderError};

use super::{Extras, Family, WINDOW_DEFAULT, equal_heads, llama};

/// See the module.
pub(super) const FAMILY: Family = Family {
    class: "Qwen2ForCausalLM",
    name: "Qwen2",
    default_head_dim: equal_heads,
    extras,
    layer: llama::layer,
};

fn extras(fields: &Fields, layers: u32) -> Result<Extras, FolderError> {
    Ok(Extras {
        qkv_bias: true,
        output_bias: false,
        mlp_bias: false,
        qk_norm: false,
        windows: windows(fields, layers)?,
    })
}

/// Which layers see only a window, as transformers decides it for this family and the next.
pub(super) fn windows(fields: &Fields, layers: u32) -> Result<Vec<Option<u32>>, FolderError> {
    let window = fields.positive_u32("sliding_window")?;
    let default = (!fields.mentions("sliding_window")).then_some(WINDOW_DEFAULT);
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
