use std::collections::BTreeMap;
use std::path::PathBuf;

use rstest::rstest;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::testing::tiny_config;

/// A folder with one file that holds `a` of shape [2, 3] and `b` of shape [2].
fn checkpoint() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "model.safetensors", &["a.weight", "b"]);
    dir
}

fn write(dir: &TempDir, file: &str, names: &[&str]) {
    let (a, b): (Vec<u8>, Vec<u8>) = ((0..24).collect(), (100..104).collect());
    let all = BTreeMap::from([
        ("a.weight", TensorView::new(Dtype::F32, vec![2, 3], &a).unwrap()),
        ("b", TensorView::new(Dtype::BF16, vec![2], &b).unwrap()),
    ]);
    let some = names.iter().map(|name| (*name, &all[name]));
    std::fs::write(dir.path().join(file), safetensors::serialize(some, None).unwrap()).unwrap();
}

/// What is asked for.
#[derive(Debug)]
enum Spec {
    Matrix(MatrixSpec),
    Vector(VectorSpec),
}

fn matrix(name: &str, rows: usize, cols: usize) -> Spec {
    Spec::Matrix(MatrixSpec::new(name, rows, cols))
}

fn vector(name: &str, len: usize) -> Spec {
    Spec::Vector(VectorSpec::new(name, len))
}

fn open<'a>(
    dir: &TempDir,
    report: &'a mut dyn FnMut(LoadProgress),
) -> Result<WeightReader<'a>, EngineError> {
    let from = WeightSource {
        dir: dir.path(),
        load: LoadFormat::Auto,
        format: &dense::FORMAT,
        dtype: None,
        count: 2,
    };
    WeightReader::open(from, &tiny_config(), report)
}

fn read(dir: &TempDir, spec: &Spec) -> Result<(WeightDtype, Vec<u8>), EngineError> {
    let mut report = |_| ();
    let mut reader = open(dir, &mut report)?;
    let all_of = |tensor: &Tensor<'_>| (tensor.dtype, tensor.bytes().into_owned());
    match spec {
        Spec::Matrix(spec) => reader.matrices(std::slice::from_ref(spec), |matrices| {
            Ok(all_of(&dense::of(&matrices[0]).expect("it is dense")))
        }),
        Spec::Vector(spec) => {
            reader.vectors(std::slice::from_ref(spec), |vectors| Ok(all_of(&vectors[0])))
        }
    }
}

fn complaint(dir: &TempDir, spec: &Spec) -> (PathBuf, String, String) {
    match read(dir, spec) {
        Err(EngineError::Weights { file, tensor, reason }) => {
            (file.strip_prefix(dir.path()).unwrap().to_owned(), tensor, reason)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn tensors_come_out_of_one_file_as_they_went_in() {
    let dir = checkpoint();
    let a = read(&dir, &matrix("a", 2, 3)).unwrap();
    assert_eq!(a, (WeightDtype::F32, (0..24).collect()));
    let b = read(&dir, &vector("b", 2)).unwrap();
    assert_eq!(b, (WeightDtype::Bf16, (100..104).collect()));
}

#[test]
fn tensors_come_out_of_several_files() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "one.safetensors", &["a.weight"]);
    write(&dir, "two.safetensors", &["b"]);
    let index = json!({"weight_map": {"a.weight": "one.safetensors", "b": "two.safetensors"}});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    assert_eq!(read(&dir, &matrix("a", 2, 3)).unwrap().1[0], 0);
    assert_eq!(read(&dir, &vector("b", 2)).unwrap().1[0], 100);
    let (file, tensor, _) = complaint(&dir, &vector("c", 2));
    assert_eq!((file.to_str().unwrap(), &*tensor), ("", "c"), "the folder, since no file has it");
}

#[test]
fn a_tensor_in_two_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir, "one.safetensors", &["a.weight", "b"]);
    write(&dir, "two.safetensors", &["b"]);
    let index = json!({"weight_map": {"a.weight": "one.safetensors", "b": "two.safetensors"}});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (file, tensor, reason) = complaint(&dir, &vector("b", 2));
    assert_eq!((file.to_str().unwrap(), &*tensor), ("two.safetensors", "b"));
    assert!(reason.contains("one.safetensors, too"), "{reason}");
}

#[rstest]
#[case::missing(vector("c", 2), "c", "is missing")]
#[case::shape(matrix("a", 3, 2), "a.weight", "[2, 3] where the configuration says [3, 2]")]
#[case::dimensions(vector("a.weight", 6), "a.weight", "[2, 3] where the configuration says [6]")]
fn a_wrong_tensor_is_named_with_its_file(
    #[case] spec: Spec,
    #[case] want: &str,
    #[case] want_reason: &str,
) {
    let (file, tensor, reason) = complaint(&checkpoint(), &spec);
    assert_eq!((file.to_str().unwrap(), &*tensor), ("model.safetensors", want));
    assert!(reason.contains(want_reason), "{reason}");
}

#[test]
fn an_integer_tensor_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = TensorView::new(Dtype::I8, vec![4], &[0; 4]).unwrap();
    let bytes = safetensors::serialize([("a", tensor)], None).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    assert!(complaint(&dir, &vector("a", 4)).2.contains("I8"));
}

#[rstest]
#[case::in_the_last_tensor(2, "b", "truncated")]
#[case::in_the_first_tensor(20, "a.weight", "truncated")]
#[case::in_the_header(100, "*", "no valid safetensors file")]
#[case::empty(usize::MAX, "*", "no valid safetensors file")]
fn a_file_cut_short_names_what_is_gone(
    #[case] cut: usize,
    #[case] want: &str,
    #[case] want_reason: &str,
) {
    let dir = checkpoint();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len().saturating_sub(cut)]).unwrap();
    let (file, tensor, reason) = complaint(&dir, &matrix("a", 2, 3));
    assert_eq!((file.to_str().unwrap(), &*tensor), ("model.safetensors", want), "{reason}");
    assert!(reason.contains(want_reason), "{reason}");
}

#[test]
fn a_pointer_of_git_lfs_is_told_as_such() {
    let dir = checkpoint();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    std::fs::write(dir.path().join("model.safetensors"), pointer).unwrap();
    let (_, _, reason) = complaint(&dir, &matrix("a", 2, 3));
    assert!(reason.contains("git lfs pull"), "{reason}");
}

#[test]
fn a_folder_without_weights_says_what_it_lacks() {
    let dir = tempfile::tempdir().unwrap();
    let (_, tensor, reason) = complaint(&dir, &vector("a", 1));
    assert!(tensor == "*" && reason.contains("model.safetensors"), "{reason}");
}

#[rstest]
#[case::outside(json!({"weight_map": {"a": "../one.safetensors"}}), "weight_map.a")]
#[case::no_name(json!({"weight_map": {"a": 3}}), "weight_map.a")]
#[case::no_map(json!({}), "weight_map")]
fn a_bad_index_names_its_field(#[case] index: serde_json::Value, #[case] want: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    match read(&dir, &vector("a", 1)) {
        Err(EngineError::Config { field, .. }) => assert_eq!(field, want),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_missing_shard_is_an_io_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let index = json!({"weight_map": {"a": "gone.safetensors"}});
    std::fs::write(dir.path().join("model.safetensors.index.json"), index.to_string()).unwrap();
    let error = read(&dir, &vector("a", 1)).unwrap_err();
    assert!(
        matches!(&error, EngineError::Io { file, .. } if file.ends_with("gone.safetensors")),
        "{error}"
    );
}

#[test]
fn progress_counts_up_to_the_total() {
    let dir = checkpoint();
    let mut reports = Vec::new();
    let mut report = |progress: LoadProgress| reports.push((progress.tensors, progress.bytes));
    let mut reader = open(&dir, &mut report).unwrap();
    reader.matrices(&[MatrixSpec::new("a", 2, 3)], |_| Ok(())).unwrap();
    reader.vectors(&[VectorSpec::new("b", 2)], |_| Ok(())).unwrap();
    assert_eq!(reports, [(0, 0), (1, 24), (2, 28)]);
}

#[test]
fn dummy_weights_are_a_function_of_seed_and_name() {
    let bytes = |seed: u64, name: &str| {
        let dummy = DummyWeights::new(seed, None);
        dummy.tensor(name, &[5, 7]).bytes().into_owned()
    };
    assert_eq!(bytes(1, "a"), bytes(1, "a"));
    assert_ne!(bytes(1, "a"), bytes(2, "a"));
    assert_ne!(bytes(1, "a"), bytes(1, "b"));
    assert_eq!(bytes(1, "a").len(), 70);
}
