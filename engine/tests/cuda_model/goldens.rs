//! Every checkpoint of `tests/goldens`, against what transformers computed of it.

use std::path::{Path, PathBuf};

use engine::backend::cuda::CudaOptions;
use kv_cache::{KvDtype, TokenId};
use rstest::rstest;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::compare::{Errors, errors};
use crate::models::{Source, blocks_of, gpu, logits_in_chunks};

/// Bounds of relative errors with bfloat16: of all rows, and of the worst. It keeps 8 bits, and these
/// models' weights are wide, so that attention is sharp and an error grows from layer to layer:
/// transformers in bfloat16 is off by as much (`tests/goldens/live`).
const BOUNDS: (f64, f64) = (4e-2, 1.2e-1);

/// With halves, which keep 11 bits.
const HALF_BOUNDS: (f64, f64) = (BOUNDS.0 / 8.0, BOUNDS.1 / 8.0);

const KV_BLOCKS: u32 = 32;

pub(crate) struct Golden {
    pub(crate) source: Source,
    pub(crate) prompts: Vec<Prompt>,
}

pub(crate) struct Prompt {
    pub(crate) ids: Vec<TokenId>,
    /// `[ids, vocab]`.
    pub(crate) logits: Vec<f32>,
}

// === impl Prompt ===

impl Prompt {
    fn read(prompt: &Value, tensors: &SafeTensors<'_>) -> Self {
        let ids = prompt["ids"].as_array().expect("a list").iter();
        let computed = if prompt["stepwise"].is_object() { &prompt["stepwise"] } else { prompt };
        let name = computed["logits"].as_str().expect("a name");
        let floats = tensors.tensor(name).expect("logits").data().chunks_exact(4);
        Self {
            ids: ids.map(|id| id.as_u64().expect("a token") as u32).collect(),
            logits: floats.map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes"))).collect(),
        }
    }
}

fn read(dir: &Path) -> Golden {
    let text = std::fs::read_to_string(dir.join("golden.json")).expect("golden.json");
    let json: Value = serde_json::from_str(&text).expect("golden.json is JSON");
    let tensors = std::fs::read(dir.join("golden.safetensors")).expect("golden.safetensors");
    let tensors = SafeTensors::deserialize(&tensors).expect("golden.safetensors is valid");
    let prompts = json["prompts"].as_array().expect("prompts").iter();
    Golden {
        source: Source::stored(dir),
        prompts: prompts.map(|prompt| Prompt::read(prompt, &tensors)).collect(),
    }
}

pub(crate) fn goldens() -> Vec<Golden> {
    // Test binaries may be carried to a machine with a GPU, and run in the repository's root there.
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens");
    let root = [here.as_path(), Path::new("tests/goldens")].into_iter().find(|dir| dir.exists());
    let entries = std::fs::read_dir(root.expect("tests/goldens")).expect("a folder");
    let mut dirs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    dirs.retain(|dir| dir.join("golden.json").exists() && dir.join("config.json").exists());
    dirs.sort();
    dirs.iter().map(|dir| read(dir)).collect()
}

#[rstest]
fn logits_are_those_of_transformers_and_of_the_cpu(
    #[values(KvDtype::Bf16, KvDtype::F16)] dtype: KvDtype,
    #[values(false, true)] portable: bool,
) {
    let Some(cuda) = gpu(portable) else { return };
    let wrong: usize = goldens().iter().map(|golden| wrong_prompts(golden, dtype, &cuda)).sum();
    assert!(wrong == 0, "{wrong} prompts are out of bounds");
}

/// How many prompts of a model have logits out of bounds.
fn wrong_prompts(golden: &Golden, dtype: KvDtype, cuda: &CudaOptions) -> usize {
    let Golden { source, prompts } = golden;
    let mut gpu = source.on_gpu_as(Some(dtype), cuda, KV_BLOCKS);
    let mut cpu = source.on_cpu(KV_BLOCKS);
    let vocab = cpu.config().vocab_size as usize;
    let bounds = if dtype == KvDtype::F16 { HALF_BOUNDS } else { BOUNDS };
    let mut is_wrong = |prompt: &Prompt| {
        let blocks = blocks_of(0, prompt.ids.len(), KV_BLOCKS);
        let ends = [prompt.ids.len()];
        let got = logits_in_chunks(&mut gpu, &prompt.ids, &blocks, &ends);
        let same = logits_in_chunks(&mut cpu, &prompt.ids, &blocks, &ends);
        let of_transformers = errors(&got, &prompt.logits, vocab);
        let of_cpu = errors(&got, &same, vocab);
        println!(
            "{:20} {} {:3} tokens: off transformers by {of_transformers}, off the CPU by {of_cpu}",
            source.name,
            dtype.name(),
            prompt.ids.len()
        );
        let exceed = |errors: Errors| errors.overall > bounds.0 || errors.worst > bounds.1;
        exceed(of_transformers) || exceed(of_cpu)
    };
    prompts.iter().filter(|prompt| is_wrong(prompt)).count()
}
