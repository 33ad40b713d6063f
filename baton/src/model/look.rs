//! What somebody gave for a model, where it is none that can be read: says what it is, and what to do.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

/// What files of llama.cpp begin with.
const GGUF: &[u8; 4] = b"GGUF";

/// What is the matter with a folder that is to hold a model; `None` if it may be one.
///
/// - `is_dummy`: whether its weights don't matter.
pub(super) fn folder(dir: &Path, is_dummy: bool) -> Option<String> {
    let (here, names) = (dir.display(), names(dir));
    let has = |name: &str| names.iter().any(|it| it == name);
    let ends = |end: &str| names.iter().find(|it| it.to_lowercase().ends_with(end));
    if has("config.json") {
        if is_dummy || ends(".safetensors").is_some() {
            return None;
        }
        let other = ends(".bin").or(ends(".gguf"));
        return other.map(|file| {
            format!("{here}/{file}: {}; --load-format dummy needs no weights", format_of(file))
        });
    }
    if has("adapter_config.json") {
        return Some(format!(
            "{here} is an adapter, not a model: merge it into the model it was made for, and give that"
        ));
    }
    if let Some(file) = ends(".gguf") {
        return Some(format!("{here}/{file}: {}", format_of(file)));
    }
    let inner = names
        .iter()
        .filter(|name| !name.starts_with('.'))
        .find(|name| dir.join(name).join("config.json").is_file());
    let advice = match inner {
        Some(inner) => format!("did you mean {here}/{inner}?"),
        None => {
            "a folder in Hugging Face layout has it, with *.safetensors and tokenizer.json".into()
        }
    };
    is_readable(dir).then(|| format!("{here}/config.json is missing: {advice}"))
}

/// What a file is that was given for a model's folder.
pub(super) fn file(path: &Path) -> String {
    let here = path.display();
    if begins_with_gguf(path) {
        return format!("{here}: {}", format_of(".gguf"));
    }
    let name = path.to_string_lossy().to_lowercase();
    if [".gguf", ".bin", ".pt", ".pth"].iter().any(|end| name.ends_with(end)) {
        return format!("{here}: {}", format_of(&name));
    }
    let folder = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let folder = folder.map_or_else(|| ".".into(), |dir| dir.display().to_string());
    format!("{here} is a file: give its folder, --model {folder}")
}

/// What a format is, and what to take instead.
pub(super) fn format_of(file: &str) -> &'static str {
    if file.to_lowercase().ends_with(".gguf") {
        "this is GGUF, the format of llama.cpp; Baton reads Hugging Face folders (config.json, \
         *.safetensors, tokenizer.json): give the model that it was made from, --model ORG/NAME"
    } else {
        "these are weights as PyTorch pickles them; Baton reads *.safetensors: take a version of the \
         model that has them, or save it anew with transformers' save_pretrained"
    }
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether its absence can be told; of a folder that can't be read the system says why.
fn is_readable(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok()
}

fn begins_with_gguf(path: &Path) -> bool {
    let mut begin = [0; GGUF.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut begin)).is_ok() && begin == *GGUF
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::whole(&["config.json", "model.safetensors"], None)]
    #[case::dummy(&["config.json"], None)]
    #[case::gguf(&["q4.GGUF"], Some("GGUF, the format of llama.cpp"))]
    #[case::gguf_with_config(&["config.json", "q4.gguf"], Some("GGUF"))]
    #[case::pickles(&["config.json", "pytorch_model.bin"], Some("save_pretrained"))]
    #[case::adapter(&["adapter_config.json", "adapter_model.safetensors"], Some("merge it"))]
    #[case::empty(&[], Some("config.json is missing"))]
    #[case::one_above(&["demo/config.json"], Some("did you mean"))]
    fn a_folder_that_is_no_model_is_told_as_what_it_is(
        #[case] files: &[&str],
        #[case] told: Option<&str>,
    ) {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let said = folder(dir.path(), false);
        assert_eq!(said.is_some(), told.is_some(), "{said:?}");
        assert!(said.unwrap_or_default().contains(told.unwrap_or_default()));
    }

    #[test]
    fn a_file_is_told_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = dir.path().join(name);
            fs::write(&path, bytes).unwrap();
            file(&path)
        };
        assert!(write("blob", b"GGUF\x03\0\0\0").contains("llama.cpp"));
        assert!(write("model.gguf", b"").contains("llama.cpp"));
        assert!(write("model.bin", b"").contains("save_pretrained"));
        assert!(write("config.json", b"{}").contains("give its folder"));
    }
}
