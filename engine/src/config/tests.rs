use rstest::rstest;
use serde_json::{Value, json};

use super::*;
use crate::testing::{load_config, tiny_config, tiny_json, tiny_json_with, write_config};

fn load_with(changes: &Value) -> Result<ModelConfig, EngineError> {
    load_config(&tiny_json_with(changes))
}

#[test]
fn absent_fields_take_the_defaults_of_transformers() {
    let config = load_config(&json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": 10, "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 8,
        "max_position_embeddings": 128, "num_key_value_heads": null, "head_dim": null,
        "rope_scaling": null, "eos_token_id": null,
    }))
    .unwrap();
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (8, 8, 8));
    assert_eq!(config.rope, RopeConfig { theta: 10_000.0, scaling: RopeScaling::None });
    assert!(!config.tie_embeddings && !config.qkv_bias && !config.mlp_bias && !config.qk_norm);
    assert_eq!(config.windows, [None, None]);
    assert_eq!((config.rms_norm_eps, config.dtype, config.eos_token_ids), (1e-6, None, vec![]));
}

#[rstest]
#[case::llama(json!({"attention_bias": true, "mlp_bias": true}), (true, true, true, false))]
#[case::mistral_has_none(
    json!({"architectures": ["MistralForCausalLM"], "attention_bias": true}),
    (false, false, false, false)
)]
#[case::qwen2_biases_qkv(json!({"architectures": ["Qwen2ForCausalLM"]}), (true, false, false, false))]
#[case::qwen3_norms(json!({"architectures": ["Qwen3ForCausalLM"]}), (false, false, false, true))]
#[case::qwen3_with_bias(
    json!({"architectures": ["Qwen3ForCausalLM"], "attention_bias": true}),
    (true, true, false, true)
)]
fn each_family_has_its_own_extras(#[case] changes: Value, #[case] want: (bool, bool, bool, bool)) {
    let config = load_with(&changes).unwrap();
    assert_eq!((config.qkv_bias, config.output_bias, config.mlp_bias, config.qk_norm), want);
}

#[test]
fn more_layers_than_any_model_has_are_refused_before_anything_is_kept_for_them() {
    let error = load_with(&json!({"num_hidden_layers": u32::MAX})).unwrap_err();
    assert!(error.to_string().contains("`num_hidden_layers`: 4294967295, at most"), "{error}");
}

#[test]
fn qwen3_heads_are_128_wide_unless_said_otherwise() {
    let changes = json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": null});
    assert_eq!(load_with(&changes).unwrap().head_dim, 128);
}

#[rstest]
#[case::llama_ignores_it("LlamaForCausalLM", json!({"sliding_window": 8}), [None; 3])]
#[case::mistral("MistralForCausalLM", json!({"sliding_window": 8}), [Some(8); 3])]
#[case::mistral_null("MistralForCausalLM", json!({"sliding_window": null}), [None; 3])]
#[case::mistral_absent("MistralForCausalLM", json!({}), [Some(4096); 3])]
#[case::qwen_off("Qwen2ForCausalLM", json!({"sliding_window": 8, "max_window_layers": 0}), [None; 3])]
#[case::qwen_last_layers(
    "Qwen2ForCausalLM",
    json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1}),
    [None, Some(8), Some(8)]
)]
#[case::qwen_layer_types(
    "Qwen3ForCausalLM",
    json!({
        "use_sliding_window": true, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]
    }),
    [Some(8), None, Some(8)]
)]
#[case::qwen_layer_types_off(
    "Qwen3ForCausalLM",
    json!({
        "use_sliding_window": false, "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]
    }),
    [None; 3]
)]
fn windows_are_those_of_the_family(
    #[case] architecture: &str,
    #[case] mut changes: Value,
    #[case] want: [Option<u32>; 3],
) {
    changes["architectures"] = json!([architecture]);
    changes["num_hidden_layers"] = json!(3);
    assert_eq!(load_with(&changes).unwrap().windows, want);
}

#[rstest]
#[case::absent(json!({}), RopeScaling::None)]
#[case::old_default(json!({"rope_scaling": {"rope_type": "default"}}), RopeScaling::None)]
#[case::empty(json!({"rope_scaling": {}}), RopeScaling::None)]
#[case::oldest_form(
    json!({"rope_scaling": {"type": "linear", "factor": 2}}),
    RopeScaling::Linear { factor: 2.0 }
)]
#[case::new_form(
    json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10_000.0}}),
    RopeScaling::Linear { factor: 2.0 }
)]
#[case::old_wins_over_new(
    json!({
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0}
    }),
    RopeScaling::Linear { factor: 2.0 }
)]
#[case::dynamic(
    json!({"rope_scaling": {"type": "dynamic", "factor": 4.0}}),
    RopeScaling::Dynamic { factor: 4.0, original_max: 256 }
)]
#[case::llama3(
    json!({"rope_scaling": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64
    }}),
    RopeScaling::Llama3(Llama3Scaling {
        factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max: 64
    })
)]
#[case::yarn_defaults(
    json!({"rope_scaling": {"type": "yarn", "factor": 1.0, "original_max_position_embeddings": 64}}),
    RopeScaling::Yarn(YarnScaling {
        factor: 1.0, attention_factor: 1.0, beta_fast: 32.0, beta_slow: 1.0, truncate: true,
        original_max: 64
    })
)]
#[case::yarn_factor_from_lengths(
    json!({"rope_scaling": {
        "type": "yarn", "factor": null, "original_max_position_embeddings": 64,
        "attention_factor": 1.5, "beta_fast": 0, "beta_slow": 2, "truncate": false
    }}),
    RopeScaling::Yarn(YarnScaling {
        factor: 4.0, attention_factor: 1.5, beta_fast: 32.0, beta_slow: 2.0, truncate: false,
        original_max: 64
    })
)]
fn rope_in_every_form(#[case] changes: Value, #[case] want: RopeScaling) {
    assert_eq!(load_with(&changes).unwrap().rope.scaling, want);
}

#[rstest]
#[case::beside(json!({"rope_theta": 500.0}), 500.0)]
#[case::inside_wins(json!({"rope_theta": 500.0, "rope_parameters": {"rope_theta": 7.0}}), 7.0)]
#[case::absent(json!({}), 10_000.0)]
fn theta_beside_or_inside(#[case] changes: Value, #[case] want: f64) {
    assert_eq!(load_with(&changes).unwrap().rope.theta, want);
}

#[test]
fn only_dynamic_scaling_stretches_the_longest_sequence() {
    let max = |kind: &str| {
        let scaling = json!({"rope_scaling": {"type": kind, "factor": 4.0}});
        load_with(&scaling).unwrap().max_position
    };
    assert_eq!((max("linear"), max("yarn"), max("dynamic")), (256, 256, 1024));
}

#[rstest]
#[case::yarn_deepseek(40.0, Some(1.0), Some(0.5), (0.1 * 40f64.ln() + 1.0) / (0.05 * 40f64.ln() + 1.0))]
#[case::zero_is_absent(40.0, Some(0.0), Some(1.0), 0.1 * 40f64.ln() + 1.0)]
#[case::not_stretched(0.5, None, None, 1.0)]
fn yarn_attention(
    #[case] factor: f64,
    #[case] mscale: Option<f64>,
    #[case] mscale_all_dim: Option<f64>,
    #[case] want: f64,
) {
    let changes = json!({"rope_scaling": {
        "type": "yarn", "factor": factor, "mscale": mscale, "mscale_all_dim": mscale_all_dim
    }});
    let RopeScaling::Yarn(yarn) = load_with(&changes).unwrap().rope.scaling else {
        panic!("not yarn")
    };
    assert!((yarn.attention_factor - want).abs() < 1e-12);
}

#[rstest]
#[case::number(json!(7), None, vec![7])]
#[case::list(json!([7, 8]), None, vec![7, 8])]
#[case::both_count(json!(7), Some(json!({"eos_token_id": [1, 2]})), vec![1, 2, 7])]
#[case::generation_without(json!(7), Some(json!({"temperature": 0.6})), vec![7])]
#[case::generation_null(json!(7), Some(json!({"eos_token_id": null})), vec![7])]
fn end_of_sequence_tokens(
    #[case] own: Value,
    #[case] generation: Option<Value>,
    #[case] want: Vec<TokenId>,
) {
    let dir = tempfile::tempdir().unwrap();
    write_config(dir.path(), &tiny_json_with(&json!({"eos_token_id": own})));
    if let Some(generation) = generation {
        std::fs::write(dir.path().join("generation_config.json"), generation.to_string()).unwrap();
    }
    assert_eq!(ModelConfig::load(dir.path()).unwrap().eos_token_ids, want);
}

#[rstest]
#[case::architecture(json!({"architectures": ["GPT2LMHeadModel"]}), "architectures", "GPT2LMHeadModel")]
#[case::no_architecture(json!({"architectures": null}), "architectures", "missing")]
#[case::empty_architectures(json!({"architectures": []}), "architectures", "an empty list")]
#[case::activation(json!({"hidden_act": "gelu"}), "hidden_act", "gelu")]
#[case::quantized(json!({"quantization_config": {"bits": 4}}), "quantization_config", "not supported")]
#[case::quantized_how(
    json!({"quantization_config": {"quant_method": "awq"}}),
    "quantization_config",
    "checkpoints (awq) are not supported: want the unquantized one, in bf16"
)]
#[case::compressed(
    json!({"compression_config": {"quant_method": "compressed-tensors"}}),
    "compression_config",
    "(compressed-tensors) are not supported"
)]
#[case::missing(json!({"hidden_size": null}), "hidden_size", "missing")]
#[case::zero(json!({"num_hidden_layers": 0}), "num_hidden_layers", "above 0")]
#[case::fraction(json!({"vocab_size": 9.5}), "vocab_size", "9.5")]
#[case::text(json!({"vocab_size": "many"}), "vocab_size", "many")]
#[case::too_large(json!({"vocab_size": 5_000_000_000u64}), "vocab_size", "5000000000")]
#[case::heads(json!({"num_key_value_heads": 3}), "num_key_value_heads", "4 heads")]
#[case::uneven(json!({"head_dim": null, "hidden_size": 50}), "head_dim", "no multiple")]
#[case::odd(json!({"head_dim": 5}), "head_dim", "odd")]
#[case::dtype(json!({"torch_dtype": "int8"}), "torch_dtype", "int8")]
#[case::new_dtype(json!({"dtype": "float64"}), "dtype", "float64")]
#[case::flag(json!({"tie_word_embeddings": "yes"}), "tie_word_embeddings", "true or false")]
#[case::rope_type(json!({"rope_scaling": {"type": "longrope"}}), "rope_scaling.type", "longrope")]
#[case::rope_factor(json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.factor", "missing")]
#[case::rope_negative(
    json!({"rope_parameters": {"rope_type": "linear", "factor": -1}}),
    "rope_parameters.factor",
    "above 0"
)]
#[case::llama3_order(
    json!({"rope_scaling": {
        "type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 4
    }}),
    "rope_scaling.high_freq_factor",
    "above low_freq_factor"
)]
#[case::per_layer_type(
    json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
    "rope_parameters.full_attention",
    "not supported"
)]
#[case::partial(json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor", "only 1")]
#[case::layer_types(
    json!({"architectures": ["Qwen3ForCausalLM"], "layer_types": ["full_attention"]}),
    "layer_types",
    "1 entries for 2"
)]
#[case::layer_type(
    json!({"architectures": ["Qwen3ForCausalLM"], "layer_types": ["full_attention", "mamba"]}),
    "layer_types",
    "mamba"
)]
#[case::eos(json!({"eos_token_id": "end"}), "eos_token_id", "token id")]
fn a_complaint_names_file_field_and_value(
    #[case] changes: Value,
    #[case] want_field: &str,
    #[case] want_reason: &str,
) {
    let Err(EngineError::Config { file, field, reason }) = load_with(&changes) else {
        panic!("{changes} was accepted")
    };
    assert_eq!(file.file_name().unwrap(), "config.json");
    assert_eq!(field, want_field);
    assert!(reason.contains(want_reason), "{reason}");
}

#[test]
fn a_folder_without_configuration_is_an_io_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = ModelConfig::load(dir.path()).unwrap_err();
    assert!(
        matches!(&error, EngineError::Io { file, .. } if file.ends_with("config.json")),
        "{error}"
    );
}

#[rstest]
#[case::not_json("{")]
#[case::not_an_object("[]")]
fn a_damaged_file_is_named(#[case] text: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), text).unwrap();
    assert!(
        matches!(ModelConfig::load(dir.path()), Err(EngineError::Config { field, .. }) if field == "*")
    );
}

#[test]
fn the_tiny_configuration_is_read_as_written() {
    let config = tiny_config();
    assert_eq!(u64::from(config.vocab_size), tiny_json()["vocab_size"].as_u64().unwrap());
    assert_eq!(config.dtype, Some(WeightDtype::Bf16));
    assert_eq!(config.eos_token_ids, [2]);
}
