use rstest::rstest;

use super::hub::{complete_snapshot, is_needed, other_format};
use super::*;

fn request(source: &str) -> ModelRequest {
    ModelRequest {
        source: Some(source.to_owned()),
        revision: "main".to_owned(),
        served_name: None,
        offline: true,
        is_dummy: false,
    }
}

#[test]
fn a_folder_is_served_under_its_own_name() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("my-model");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("config.json"), "{}").unwrap();
    let model = request(dir.to_str().unwrap()).resolve().unwrap();
    assert_eq!(model.name, "my-model");
}

#[test]
fn of_a_dummy_only_the_configuration_matters() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["config.json", "pytorch_model.bin", "q4.gguf"] {
        std::fs::write(dir.path().join(file), "{}").unwrap();
    }
    let folder = request(dir.path().to_str().unwrap());
    assert!(folder.resolve().unwrap_err().to_string().contains("--load-format dummy"));
    assert!(ModelRequest { is_dummy: true, ..folder }.resolve().is_ok());
}

#[rstest]
#[case("no/such/folder")]
#[case("nothing")]
#[case("/nowhere/at/all")]
fn what_is_neither_folder_nor_name_is_refused(#[case] source: &str) {
    let error = request(source).resolve().unwrap_err().to_string();
    assert!(error.contains("want a folder"), "{error}");
}

#[rstest]
#[case("config.json", true)]
#[case("model-00001-of-00002.safetensors", true)]
#[case("chat_template.jinja", true)]
#[case("pytorch_model.bin", false)]
#[case("original/consolidated.safetensors", false)]
#[case("README.md", false)]
fn only_what_is_read_is_downloaded(#[case] file: &str, #[case] needed: bool) {
    assert_eq!(is_needed(file, false), needed);
    assert_eq!(is_needed(file, true), needed && !file.ends_with(".safetensors"));
}

/// Writes a hub cache with one snapshot that holds `files`.
fn cache_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Cache, Repo) {
    let root = tempfile::tempdir().unwrap();
    let repo_dir = root.path().join("models--org--name");
    let snapshot = repo_dir.join("snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo_dir.join("refs")).unwrap();
    std::fs::write(repo_dir.join("refs/main"), "abc").unwrap();
    for (name, text) in files {
        std::fs::write(snapshot.join(name), text).unwrap();
    }
    let repo = Repo::with_revision("org/name".into(), RepoType::Model, "main".into());
    let cache = Cache::new(root.path().to_owned());
    (root, cache, repo)
}

#[test]
fn a_complete_snapshot_in_the_cache_is_taken() {
    let files = [("config.json", "{}"), ("tokenizer.json", "{}"), ("model.safetensors", "")];
    let (root, cache, repo) = cache_with(&files);
    let dir = complete_snapshot(&cache, &repo, false).unwrap();
    assert_eq!(dir, root.path().join("models--org--name/snapshots/abc"));
}

#[test]
fn a_snapshot_without_all_its_shards_is_not_complete() {
    let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
    let files = [
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", index),
        ("one.safetensors", ""),
    ];
    let (_root, cache, repo) = cache_with(&files);
    assert_eq!(complete_snapshot(&cache, &repo, false), None);
    assert!(complete_snapshot(&cache, &repo, true).is_some(), "for dummies it is");
}

#[test]
fn weights_in_another_format_are_named() {
    let files =
        |names: &[&str]| other_format(&names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
    assert!(files(&["README.md", "q4_k_m.gguf"]).contains("q4_k_m.gguf: this is GGUF"));
    assert!(files(&["pytorch_model.bin"]).contains("save_pretrained"));
    assert_eq!(files(&["README.md"]), "");
}
