//! The checkpoints of `tests/goldens`, and what transformers computed of them. The README there says
//! how.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

pub(crate) struct Golden {
    pub(crate) dir: PathBuf,
    pub(crate) prompts: Vec<Prompt>,
}

pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    /// `[ids, vocab]`.
    pub(crate) logits: Vec<f32>,
    pub(crate) greedy: Vec<u32>,
}

/// All of them, by name.
pub(crate) fn goldens() -> Vec<Golden> {
    // Test binaries may be carried to a machine with a GPU, and run in the repository's root there.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let root = [here.as_path(), Path::new("tests/goldens")].into_iter().find(|dir| dir.exists());
    let entries = std::fs::read_dir(root.expect("tests/goldens")).expect("a folder");
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    dirs.retain(|dir| dir.join("golden.json").exists() && dir.join("config.json").exists());
    dirs.sort();
    assert!(!dirs.is_empty(), "no goldens");
    dirs.iter().map(|dir| Golden::read(dir)).collect()
}

// === impl Golden ===

impl Golden {
    fn read(dir: &Path) -> Self {
        let text = std::fs::read_to_string(dir.join("golden.json")).expect("golden.json");
        let json: Value = serde_json::from_str(&text).expect("golden.json is JSON");
        assert_eq!(json["format"], 1, "{}: unknown format", dir.display());
        let tensors = std::fs::read(dir.join("golden.safetensors")).expect("golden.safetensors");
        let tensors = SafeTensors::deserialize(&tensors).expect("golden.safetensors is valid");
        let prompts = json["prompts"].as_array().expect("prompts");
        let prompts = prompts.iter().map(|prompt| Prompt::read(prompt, &tensors)).collect();
        Self { dir: dir.to_owned(), prompts }
    }

    pub(crate) fn name(&self) -> &str {
        self.dir.file_name().and_then(|name| name.to_str()).expect("a folder's name")
    }
}

// === impl Prompt ===

impl Prompt {
    /// Where a golden has `stepwise` numbers, they are the ones whose rows depend on nothing that
    /// comes after them, as ours do (see `engine::rope`).
    fn read(prompt: &Value, tensors: &SafeTensors<'_>) -> Self {
        let numbers = |value: &Value| -> Vec<u32> {
            let items = value.as_array().expect("a list");
            items.iter().map(|item| item.as_u64().expect("a token") as u32).collect()
        };
        let computed = if prompt["stepwise"].is_object() { &prompt["stepwise"] } else { prompt };
        let tensor = tensors.tensor(computed["logits"].as_str().expect("a name")).expect("logits");
        let floats = tensor.data().chunks_exact(4);
        Self {
            ids: numbers(&prompt["ids"]),
            logits: floats.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect(),
            greedy: numbers(&computed["greedy"]),
        }
    }
}
