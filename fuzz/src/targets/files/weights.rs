//! A checkpoint: headers and index of safetensors files.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use engine::{Model, ModelOptions};
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;

use crate::words::sections;
use crate::{Cost, Target};

pub(in crate::targets) const TARGET: Target = Target::new("weights", run)
    .with_seeds(seeds)
    .with_cost(Cost { bytes_max: 8 << 10, ..Cost::USUAL });

/// The model that the weights are of: as small as can be.
const CONFIG: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 2,
    "intermediate_size": 2, "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 2,
    "max_position_embeddings": 8, "torch_dtype": "bfloat16", "tie_word_embeddings": true}"#;
/// Bytes behind a header, unless it says otherwise.
const DATA_BYTES: usize = 128;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| {
    let dir = TempDir::new().expect("a temporary folder");
    fs::write(dir.path().join("config.json"), CONFIG).expect("a temporary folder");
    dir
});

/// Takes files by name: an index as it is, headers without what is before and behind them. After a name
/// may come how long a header says that it is, and how many bytes are behind it.
fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let dir = FOLDER.path();
    let written: Vec<&str> =
        sections(&text).filter_map(|(name, body)| write(dir, name, body)).collect();
    let options = ModelOptions { kv_blocks: Some(1), threads: Some(1), ..ModelOptions::default() };
    if let Err(error) = Model::load(dir, &options, &mut |_| ()) {
        let text = error.to_string();
        assert!(text.len() <= 4 << 10, "{} bytes: {text:.200}", text.len());
    }
    for name in written {
        // The same name twice is one file.
        let _ = fs::remove_file(dir.join(name));
    }
}

fn write<'a>(dir: &Path, line: &'a str, body: &str) -> Option<&'a str> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let mut number =
        |otherwise: u64| words.next().map_or(Some(otherwise), |word| word.parse().ok());
    let (length, data_bytes) = (number(body.len() as u64)?, number(DATA_BYTES as u64)?);
    let bytes = match name {
        "model.safetensors.index.json" => body.as_bytes().to_vec(),
        "model.safetensors" | "a.safetensors" | "b.safetensors" => {
            let data = vec![0; usize::try_from(data_bytes).unwrap_or_default().min(4 * DATA_BYTES)];
            [&length.to_le_bytes(), body.as_bytes(), &data].concat()
        }
        _ => return None,
    };
    fs::write(dir.join(name), bytes).expect("a temporary folder");
    Some(name)
}

fn seeds() -> Vec<Vec<u8>> {
    let layer = |part: &str| format!("model.layers.0.{part}.weight");
    let matrices = [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let vectors = ["input_layernorm", "post_attention_layernorm"];
    let matrices = matrices.iter().map(|part| (layer(part), vec![2, 2]));
    let vectors = vectors.iter().map(|part| (layer(part), vec![2]));
    let tops = [
        ("model.embed_tokens.weight".to_owned(), vec![4, 2]),
        ("model.norm.weight".to_owned(), vec![2]),
    ];
    let tensors: Vec<(String, Vec<usize>)> =
        tops.into_iter().chain(matrices).chain(vectors).collect();
    let whole = format!("\n=== model.safetensors\n{}", header(&tensors));
    let (first, second) = tensors.split_at(5);
    let names = |part: &[(String, Vec<usize>)], file: &str| -> Map<String, Json> {
        part.iter().map(|(name, _)| (name.clone(), file.into())).collect()
    };
    let mut map = names(first, "a.safetensors");
    map.extend(names(second, "b.safetensors"));
    let index = json!({"metadata": {"total_size": 88}, "weight_map": map});
    let divided = format!(
        "\n=== model.safetensors.index.json\n{index}\n=== a.safetensors\n{}\n=== b.safetensors\n{}",
        header(first),
        header(second)
    );
    let cut = format!("\n=== model.safetensors 700 3\n{}", header(&tensors));
    [whole, divided, cut].map(String::into_bytes).to_vec()
}

/// A header padded as its writers do, so that the data behind it is as long as it says.
fn header(tensors: &[(String, Vec<usize>)]) -> String {
    let mut end = 0;
    let mut header = Map::new();
    for (name, shape) in tensors {
        let begin = end;
        end += 2 * shape.iter().product::<usize>();
        header.insert(
            name.clone(),
            json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}),
        );
    }
    // One more, so that all of what is behind it belongs to a tensor.
    let rest =
        json!({"dtype": "U8", "shape": [DATA_BYTES - end], "data_offsets": [end, DATA_BYTES]});
    header.insert("rest".into(), rest);
    Json::Object(header).to_string()
}
