//! The models that are measured: known shapes, or a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Which model is measured.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A known shape, with random weights.
    Shape(Shape),
    /// A checkpoint's folder; random weights where it has none.
    Folder(PathBuf),
}

/// A known model's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    name: &'static str,
    /// Its `config.json`.
    config: &'static str,
}

const SHAPES: &[Shape] = &[
    Shape { name: "llama-3.1-8b", config: include_str!("../shapes/llama-3.1-8b.json") },
    Shape { name: "qwen3-0.6b", config: include_str!("../shapes/qwen3-0.6b.json") },
    Shape { name: "tiny", config: include_str!("../shapes/tiny.json") },
];

/// A folder in the layout of a checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    name: String,
    dir: PathBuf,
    has_weights: bool,
    /// Where a shape's configuration was written; removed with it.
    _made: Option<TempDir>,
}

// === impl Shape ===

impl Shape {
    /// As it is written on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Names of all.
    #[must_use]
    pub fn names() -> Vec<&'static str> {
        SHAPES.iter().map(|shape| shape.name).collect()
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = SHAPES.iter().copied().find(|shape| shape.name == text);
        known.with_context(|| format!("want {}", Self::names().join(", ")))
    }
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Finds the folder, or makes one for a shape.
    pub(crate) fn open(source: &ModelSource) -> Result<Self> {
        match source {
            ModelSource::Shape(shape) => {
                let made = tempfile::tempdir().context("no folder for a configuration")?;
                fs::write(made.path().join("config.json"), shape.config)
                    .context("can't write a configuration")?;
                let (name, dir) = (shape.name.to_owned(), made.path().to_owned());
                Ok(Self { name, dir, has_weights: false, _made: Some(made) })
            }
            ModelSource::Folder(dir) => {
                let name = dir.file_name().map_or_else(
                    || dir.display().to_string(),
                    |name| name.to_string_lossy().into_owned(),
                );
                let has_weights = ["model.safetensors", "model.safetensors.index.json"]
                    .iter()
                    .any(|file| dir.join(file).exists());
                Ok(Self { name, dir: dir.clone(), has_weights, _made: None })
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn has_weights(&self) -> bool {
        self.has_weights
    }
}

#[cfg(test)]
mod tests {
    use engine::ModelConfig;

    use super::*;

    #[test]
    fn every_shape_is_a_model() {
        for &shape in SHAPES {
            let checkpoint = Checkpoint::open(&ModelSource::Shape(shape)).unwrap();
            let config = ModelConfig::load(checkpoint.dir()).unwrap();
            assert!(config.layers > 0, "{}", shape.name);
            assert!(!checkpoint.has_weights());
        }
        assert!("no-such".parse::<Shape>().is_err());
    }
}
