//! A model's folder, its small files read.

use std::path::{Path, PathBuf};

use crate::{Fields, FolderError};

/// The small files of a model's folder. Only `config.json` has to be there.
#[derive(Debug)]
pub struct ModelFolder {
    pub(crate) dir: PathBuf,
    config: Fields,
    text_config: Option<Fields>,
    generation: Option<Fields>,
    pub(crate) tokenizer: Option<Fields>,
    pub(crate) special_tokens_map: Option<Fields>,
}

// === impl ModelFolder ===

impl ModelFolder {
    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads `config.json` and, where present, `generation_config.json`, `tokenizer_config.json`
    /// and `special_tokens_map.json`.
    ///
    /// # Errors
    /// [`FolderError`] if `config.json` is missing, or any of them isn't a JSON object.
    pub fn open(dir: &Path) -> Result<Self, FolderError> {
        let config = Fields::read(&dir.join("config.json"))?;
        let if_present = |name: &str| Fields::read_if_present(&dir.join(name));
        Ok(Self {
            dir: dir.to_owned(),
            text_config: config.object("text_config")?,
            config,
            generation: if_present("generation_config.json")?,
            tokenizer: if_present("tokenizer_config.json")?,
            special_tokens_map: if_present("special_tokens_map.json")?,
        })
    }

    /// `config.json`.
    #[must_use]
    pub fn config(&self) -> &Fields {
        &self.config
    }

    /// The part of `config.json` that describes the language model: all of it, but in models that
    /// see and hear as well.
    #[must_use]
    pub fn text_config(&self) -> &Fields {
        self.text_config.as_ref().unwrap_or(&self.config)
    }

    /// `generation_config.json`.
    #[must_use]
    pub fn generation(&self) -> Option<&Fields> {
        self.generation.as_ref()
    }
}
