//! Tiny models for this crate's tests.

use std::path::Path;

use serde_json::{Value, json};

use crate::config::ModelConfig;

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
