//! The model that tests serve: the demo model, or a random one of the same kind.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

pub mod alone;

/// A model folder, and how to load it.
#[derive(Clone, Debug)]
pub struct TestModel {
    /// The folder, in Hugging Face layout.
    pub dir: PathBuf,
    /// Whether its weights are read, or made at random from `config.json`.
    pub has_weights: bool,
    /// Token ids are below it.
    pub vocab_size: u32,
    /// The longest prompt and output together, tokens.
    pub context_tokens_max: u32,
}

/// The name under which it is served.
pub const NAME: &str = "tested";

/// Token ids of the random model's byte-level vocabulary: 256 bytes, then these.
const SPECIAL_TOKENS: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
pub(crate) const BYTES: u32 = 256;

const CHAT_TEMPLATE: &str = "{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

// === impl TestModel ===

impl TestModel {
    /// The demo model if it is in the checkout, else (or with `BATON_TEST_MODEL=random`) a random one
    /// written to `folder`.
    ///
    /// # Panics
    /// If a model's files cannot be read or written.
    #[must_use]
    pub fn demo_or_random(folder: &Path) -> Self {
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
        let may_be_demo = std::env::var("BATON_TEST_MODEL").as_deref() != Ok("random");
        if may_be_demo && demo.join("config.json").is_file() && has_weights(&demo) {
            return Self::at(demo.canonicalize().expect("the demo model's path"), true);
        }
        Self::random(folder)
    }

    /// A random model with a byte-level tokenizer, written to `folder`.
    ///
    /// # Panics
    /// If its files cannot be written.
    #[must_use]
    pub fn random(folder: &Path) -> Self {
        let dir = folder.join("random-model");
        fs::create_dir_all(&dir).expect("a folder for the model");
        write(&dir, "config.json", &config());
        write(&dir, "tokenizer.json", &tokenizer());
        write(&dir, "tokenizer_config.json", &tokenizer_config());
        write(&dir, "generation_config.json", &json!({ "eos_token_id": end_ids() }));
        Self::at(dir, false)
    }

    /// The same model trained a little otherwise, in a folder of its own: what a new version is to a
    /// cluster.
    ///
    /// # Panics
    /// If its files cannot be copied.
    #[must_use]
    pub fn reweighted(&self, folder: &Path) -> Self {
        let dir = folder.join("reweighted-model");
        fs::create_dir_all(&dir).expect("a folder for the model");
        for file in fs::read_dir(&self.dir).expect("the model's folder") {
            let file = file.expect("a file of the model");
            fs::copy(file.path(), dir.join(file.file_name())).expect("a copy");
        }
        let text = fs::read(dir.join("config.json")).expect("config.json");
        let mut config: Value = serde_json::from_slice(&text).expect("config.json is JSON");
        config["rope_theta"] = 20_000.0.into();
        fs::remove_file(dir.join("config.json")).expect("a copy of config.json");
        write(&dir, "config.json", &config);
        Self { dir, ..self.clone() }
    }

    /// The command line's model options.
    #[must_use]
    pub fn args(&self) -> Vec<String> {
        let mut args = vec!["--model".to_owned(), self.dir.display().to_string()];
        args.extend(["--served-model-name", NAME].map(str::to_owned));
        if !self.has_weights {
            args.extend(["--load-format".to_owned(), "dummy".to_owned()]);
        }
        args
    }

    fn at(dir: PathBuf, has_weights: bool) -> Self {
        let text = fs::read(dir.join("config.json")).expect("config.json");
        let config: Value = serde_json::from_slice(&text).expect("config.json is JSON");
        let number = |name: &str| {
            let value = config[name].as_u64().unwrap_or_else(|| panic!("{name} in config.json"));
            u32::try_from(value).expect("a number of tokens")
        };
        let (vocab_size, context_tokens_max) =
            (number("vocab_size"), number("max_position_embeddings"));
        Self { dir, has_weights, vocab_size, context_tokens_max }
    }
}

/// The random model's tokens of a chat of one message, as its template renders it.
pub(crate) fn chat_tokens(message: &str) -> Vec<u32> {
    let [start, end] = [BYTES + 1, BYTES + 2];
    let text = |text: &str| text.bytes().map(u32::from).collect::<Vec<u32>>();
    [vec![start], text("user\n"), text(message), vec![end], text("\n")]
        .into_iter()
        .chain([vec![start], text("assistant\n")])
        .flatten()
        .collect()
}

fn has_weights(dir: &Path) -> bool {
    ["model.safetensors", "model.safetensors.index.json"]
        .iter()
        .any(|file| dir.join(file).is_file())
}

fn write(dir: &Path, name: &str, value: &Value) {
    let text = serde_json::to_string_pretty(value).expect("JSON");
    fs::write(dir.join(name), text).expect("a model file");
}

fn end_ids() -> Vec<u32> {
    vec![BYTES, BYTES + 2]
}

/// Small enough to be quick without a GPU, with grouped heads and several layers like a real one.
fn config() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": BYTES + SPECIAL_TOKENS.len() as u32,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "hidden_act": "silu",
        "torch_dtype": "float32",
        "eos_token_id": end_ids(),
    })
}

/// GPT-2's way of writing bytes as characters, without merges: one token per byte.
fn tokenizer() -> Value {
    let vocab: Map<String, Value> = byte_characters()
        .into_iter()
        .zip(0u32..)
        .map(|(c, id)| (c.to_string(), id.into()))
        .collect();
    let added: Vec<Value> = SPECIAL_TOKENS
        .iter()
        .zip(BYTES..)
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "special": true, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": false, "vocab": vocab, "merges": [],
        },
    })
}

fn tokenizer_config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "eos_token": SPECIAL_TOKENS[2],
        "pad_token": SPECIAL_TOKENS[0],
        "chat_template": CHAT_TEMPLATE,
    })
}

/// The printable character that stands for each byte: itself, or one from 256 up.
fn byte_characters() -> Vec<char> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut substitutes = (BYTES..).filter_map(char::from_u32);
    (0..=u8::MAX)
        .map(
            |byte| {
                if is_printable(byte) {
                    char::from(byte)
                } else {
                    substitutes.next().unwrap_or('?')
                }
            },
        )
        .collect()
}
