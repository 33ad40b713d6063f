//! What the GPU can't do is said in words that help.

use engine::backend::cuda::CudaOptions;
use engine::{EngineError, Model, ModelOptions};
use kv_cache::KvCodec;
use serde_json::json;

use crate::models::{Source, gpu, narrow_llama};

fn refusal(source: &Source, options: &ModelOptions, cuda: &CudaOptions) -> String {
    match Model::load_cuda(&source.dir, options, cuda, &mut |_| ()) {
        Ok(_) => panic!("{} was loaded", source.name),
        Err(error) => {
            println!("{}: {error}", source.name);
            error.to_string()
        }
    }
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{text:?} doesn't say {word:?}");
    }
}

#[test]
#[ignore = "needs a GPU"]
fn more_kv_than_there_is_memory_for() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let text = refusal(&source, &source.options(100_000_000), &cuda);
    assert_says(&text, &["not enough GPU memory", "GiB", "free"]);
}

#[test]
#[ignore = "needs a GPU"]
fn no_memory_left_of_the_share() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let options = ModelOptions { kv_blocks: None, ..source.options(0) };
    let text = refusal(&source, &options, &CudaOptions { memory_share: 0.001, ..cuda.clone() });
    assert_says(&text, &["not enough GPU memory for KV", "engine.gpu_memory_utilization"]);
    let model = Model::load_cuda(&source.dir, &options, &cuda, &mut |_| ());
    let model = model.unwrap_or_else(|error| panic!("{error}"));
    let bytes = u64::from(model.kv_blocks()) * model.layout().block_bytes() as u64;
    println!("{} blocks, {:.1} GiB", model.kv_blocks(), bytes as f64 / f64::from(1 << 30));
    assert!(bytes > 8 << 30, "most of the memory goes to KV");
}

#[test]
#[ignore = "needs a GPU"]
fn heads_of_an_odd_size() {
    let cuda = gpu(false);
    for head_dim in [12, 20, 264, 512] {
        let source = Source::random(
            &format!("heads of {head_dim}"),
            &json!({
                "architectures": ["LlamaForCausalLM"],
                "vocab_size": 100,
                "hidden_size": 64,
                "intermediate_size": 64,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "head_dim": head_dim,
                "max_position_embeddings": 256,
                "torch_dtype": "bfloat16",
            }),
        );
        let text = refusal(&source, &source.options(20), &cuda);
        assert_says(&text, &["head", &head_dim.to_string()]);
    }
}

#[test]
#[ignore = "needs a GPU"]
fn kv_of_32_bits() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let options = ModelOptions { kv_codec: Some(KvCodec::F32), ..source.options(20) };
    let error = Model::load_cuda(&source.dir, &options, &cuda, &mut |_| ()).err();
    let Some(EngineError::Limits { field, reason }) = error else { panic!("{error:?}") };
    println!("{field}: {reason}");
    assert_eq!(field, "kv_dtype");
    assert_says(&reason, &["bf16", "f16"]);
}

#[test]
#[ignore = "needs a GPU"]
fn blocks_of_an_odd_size() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let text = refusal(&source, &ModelOptions { block_tokens: 5, ..source.options(20) }, &cuda);
    assert_says(&text, &["block", "multiple of 16"]);
}

#[test]
#[ignore = "needs a GPU"]
fn a_gpu_that_is_not_there() {
    let cuda = gpu(false);
    let source = narrow_llama();
    let text = refusal(&source, &source.options(20), &CudaOptions { ordinal: 99, ..cuda });
    assert_says(&text, &["99"]);
}
