//! Llama: attention in groups, a gated MLP, norms before both. Other families are this one and more.

use model_folder::{Fields, FolderError};

use super::{Extras, Family, equal_heads};
use crate::config::ModelConfig;
use crate::config::layer::{
    AttentionSpec, GatedSpec, GroupedSpec, LayerSpec, MlpSpec, ProjectionSpec,
};
use crate::weights::VectorSpec;

/// See the module.
pub(super) const FAMILY: Family = Family {
    class: "LlamaForCausalLM",
    name: "Llama",
    default_head_dim: equal_heads,
    extras,
    layer,
};

fn extras(fields: &Fields, layers: u32) -> Result<Extras, FolderError> {
    let has_bias = fields.bool("attention_bias")?.unwrap_or(false);
    Ok(Extras {
        qkv_bias: has_bias,
        output_bias: has_bias,
        mlp_bias: fields.bool("mlp_bias")?.unwrap_or(false),
        qk_norm: false,
        windows: vec![None; layers as usize],
    })
}

/// The names that Llama's tensors have, and those of the families that came after it.
pub(super) fn layer(config: &ModelConfig, index: u32) -> LayerSpec {
    let heads = config.head_shape();
    let (q, kv) = (heads.q_width(), heads.kv_width());
    let (hidden, inner) = (config.hidden_size as usize, config.intermediate_size as usize);
    let name = |part: &str| format!("model.layers.{index}.{part}");
    let (attention, mlp) = (name("self_attn"), name("mlp"));
    let head_norm = |part: &str| {
        let spec = VectorSpec::new(format!("{attention}.{part}.weight"), heads.head_dim);
        config.qk_norm.then_some(spec)
    };
    let qkv = [("q_proj", q), ("k_proj", kv), ("v_proj", kv)];
    let gate_up = [("gate_proj", inner), ("up_proj", inner)];
    LayerSpec {
        attention_norm: VectorSpec::new(name("input_layernorm.weight"), hidden),
        attention: AttentionSpec::Grouped(GroupedSpec {
            heads,
            window: config.windows[index as usize],
            qkv: ProjectionSpec::fused(&attention, &qkv, hidden, config.qkv_bias),
            q_norm: head_norm("q_norm"),
            k_norm: head_norm("k_norm"),
            output: ProjectionSpec::fused(&attention, &[("o_proj", hidden)], q, config.output_bias),
        }),
        mlp_norm: VectorSpec::new(name("post_attention_layernorm.weight"), hidden),
        mlp: MlpSpec::Gated(GatedSpec {
            gate_up: ProjectionSpec::fused(&mlp, &gate_up, hidden, config.mlp_bias),
            down: ProjectionSpec::fused(&mlp, &[("down_proj", hidden)], inner, config.mlp_bias),
        }),
    }
}
