//! The algorithms chosen so far, in memory and on disk.
//!
//! The file has a line for each: the shape, the algorithm, and a hash of both. A line that is
//! damaged, or that a newer Baton wrote otherwise, is no line.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::backend::cuda::compile::files::write_whole;
use crate::backend::cuda::gemm::cublaslt::{Algorithm, Shape};

/// See the module.
#[derive(Debug)]
pub(super) struct Choices {
    /// Nowhere if `None`.
    file: Option<PathBuf>,
    /// What algorithms depend on beside the shape: the device and the library's version.
    maker: String,
    chosen: HashMap<Key, Algorithm>,
    /// As read, by the key as a word, to be verified before use.
    kept: BTreeMap<String, Algorithm>,
}

/// What an algorithm is chosen for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) shape: Shape,
    /// Of all operands, bytes.
    pub(super) alignment: u32,
}

// === impl Key ===

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shape, alignment } = self;
        let Shape { rows, outputs, inputs, x_stride, out_stride, .. } = shape;
        write!(
            f,
            "{rows}x{outputs}x{inputs}:{x_stride}:{out_stride}:{:?}:{:?}:{}:{alignment}",
            shape.element,
            shape.out_element,
            if shape.has_bias { "bias" } else { "plain" }
        )
    }
}

// === impl Choices ===

impl Choices {
    /// The choices kept in `folder` by the same maker; none if there are none.
    pub(super) fn open(folder: Option<&Path>, maker: &str) -> Self {
        let file = folder.map(|folder| {
            let hash = blake3::hash(maker.as_bytes()).to_hex();
            folder.join(format!("matmul-{}.txt", &hash[..16]))
        });
        let text = file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        let kept = text.lines().filter_map(|line| parse(line, maker)).collect();
        Self { file, maker: maker.to_owned(), chosen: HashMap::new(), kept }
    }

    pub(super) fn get(&self, key: &Key) -> Option<Algorithm> {
        self.chosen.get(key).copied()
    }

    /// What another start chose.
    pub(super) fn kept(&self, key: &Key) -> Option<Algorithm> {
        self.kept.get(&key.to_string()).copied()
    }

    pub(super) fn set(&mut self, key: Key, algorithm: Algorithm) {
        self.chosen.insert(key, algorithm);
    }

    pub(super) fn set_and_keep(&mut self, key: Key, algorithm: Algorithm) {
        self.kept.insert(key.to_string(), algorithm);
        self.set(key, algorithm);
        if let Some(file) = &self.file
            && let Err(why) = self.write(file)
        {
            // The next start measures again; nothing else is lost.
            tracing::warn!(file = %file.display(), %why, "chosen matrix products can't be kept");
        }
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let lines = self.kept.iter().map(|(key, algorithm)| line(key, *algorithm, &self.maker));
        let text: String = lines.map(|line| line + "\n").collect();
        write_whole(file, text.as_bytes())
    }
}

fn line(key: &str, algorithm: Algorithm, maker: &str) -> String {
    let words: Vec<_> = algorithm.words.iter().map(|word| format!("{word:016x}")).collect();
    let said = format!("{key} {}", words.join("."));
    let hash = blake3::hash(format!("{maker} {said}").as_bytes()).to_hex();
    format!("{said} {}", &hash[..16])
}

fn parse(text: &str, maker: &str) -> Option<(String, Algorithm)> {
    let mut parts = text.split(' ');
    let (key, words) = (parts.next()?, parts.next()?);
    let words: Vec<_> = words
        .split('.')
        .map(|word| u64::from_str_radix(word, 16))
        .collect::<Result<_, _>>()
        .ok()?;
    let algorithm = Algorithm { words: words.try_into().ok()? };
    (line(key, algorithm, maker) == text).then(|| (key.to_owned(), algorithm))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cuda::driver::element::ElementType;

    #[test]
    fn choices_are_found_again_by_the_same_maker_alone() {
        let folder = tempfile::tempdir().unwrap();
        let algorithm = Algorithm { words: [1, 2, 3, 4, 5, 6, 7, u64::MAX] };
        let shape = Shape {
            rows: 8,
            outputs: 16,
            inputs: 32,
            x_stride: 32,
            out_stride: 16,
            element: ElementType::Bf16,
            out_element: ElementType::F32,
            has_bias: false,
        };
        let key = Key { shape, alignment: 16 };
        assert_eq!(key.to_string(), "8x16x32:32:16:Bf16:F32:plain:16");
        let mut first = Choices::open(Some(folder.path()), "a GPU, 13.0");
        first.set_and_keep(key, algorithm);
        assert_eq!(first.get(&key), Some(algorithm));

        let second = Choices::open(Some(folder.path()), "a GPU, 13.0");
        assert_eq!(second.kept(&key), Some(algorithm));
        assert_eq!(second.kept(&Key { alignment: 8, ..key }), None);
        assert_eq!(second.get(&key), None, "kept choices are verified before use");
        let other = Choices::open(Some(folder.path()), "a GPU, 13.1");
        assert_eq!(other.kept(&key), None);
    }

    #[test]
    fn damaged_lines_are_no_lines() {
        let whole = line("8x16x32", Algorithm { words: [7; 8] }, "maker");
        assert!(parse(&whole, "maker").is_some());
        let flipped = whole.replacen('7', "6", 1);
        for text in ["", "8x16x32", &whole[..whole.len() - 1], &flipped] {
            assert_eq!(parse(text, "maker"), None, "{text:?}");
        }
    }
}
