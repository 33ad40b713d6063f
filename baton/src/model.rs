//! From what the user calls a model to a folder with its files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hf_hub::{Cache, Repo, RepoType};

use crate::settings;

mod hub;
mod look;

/// The demo model's name as served.
const DEMO_NAME: &str = "baton-demo";

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalModel {
    /// The folder, in Hugging Face layout.
    pub dir: PathBuf,
    /// The name clients ask for.
    pub name: String,
}

/// What the user asked for.
#[derive(Clone, Debug)]
pub(crate) struct ModelRequest {
    /// A folder, `org/name`, or nothing for the demo model.
    pub source: Option<String>,
    /// Branch, tag or commit.
    pub revision: String,
    /// The name to serve it under, if not its own.
    pub served_name: Option<String>,
    /// Don't ask the network.
    pub offline: bool,
    /// Make weights up: only the configuration and the tokenizer are read.
    pub is_dummy: bool,
}

// === impl ModelRequest ===

impl ModelRequest {
    /// Finds the model's folder; downloads it, with a progress bar, if it is not on this machine.
    ///
    /// # Errors
    /// If there is no such folder and no such model in the cache or on the hub. Says what to do.
    pub(crate) fn resolve(&self) -> Result<LocalModel> {
        let mut model = match &self.source {
            None => LocalModel { dir: demo_dir()?, name: DEMO_NAME.to_owned() },
            Some(source) if Path::new(source).is_dir() => self.in_folder(Path::new(source))?,
            Some(source) if Path::new(source).is_file() => {
                bail!("{}", look::file(Path::new(source)))
            }
            Some(source) if source.to_lowercase().ends_with(".gguf") => {
                bail!("there is no file {source:?}; and {}", look::format_of(source))
            }
            Some(source) if is_hub_name(source) => self.find_on_hub(source)?,
            Some(source) => bail!(
                "there is no model {source:?}: want a folder with config.json, or a name like org/name"
            ),
        };
        if let Some(name) = &self.served_name {
            model.name.clone_from(name);
        }
        Ok(model)
    }

    fn find_on_hub(&self, name: &str) -> Result<LocalModel> {
        let cache = Cache::new(settings::hub_cache().context("neither HF_HOME nor HOME is set")?);
        let repo = Repo::with_revision(name.to_owned(), RepoType::Model, self.revision.clone());
        if let Some(dir) = hub::complete_snapshot(&cache, &repo, self.is_dummy) {
            return Ok(LocalModel { dir, name: name.to_owned() });
        }
        if self.offline {
            bail!(
                "{name} is not in {} and --offline forbids to download it",
                cache.path().display()
            );
        }
        let dir = hub::download(cache, repo, self.is_dummy)
            .with_context(|| format!("{name} could not be downloaded"))?;
        Ok(LocalModel { dir, name: name.to_owned() })
    }

    fn in_folder(&self, dir: &Path) -> Result<LocalModel> {
        let dir = dir.canonicalize().with_context(|| format!("can't open {}", dir.display()))?;
        if let Some(matter) = look::folder(&dir, self.is_dummy) {
            bail!("{matter}");
        }
        let name = dir.file_name().map_or_else(|| DEMO_NAME.into(), |name| name.to_string_lossy());
        // The demo model's folder is called `demo`; under that name nobody would know it.
        let name = if is_demo(&dir) { DEMO_NAME.to_owned() } else { name.into_owned() };
        Ok(LocalModel { dir, name })
    }
}

fn is_demo(dir: &Path) -> bool {
    demo_dir().is_ok_and(|demo| demo == dir)
}

/// The folder of the model that comes with Baton: beside the program where it is installed, in the
/// repository where it was built.
fn demo_dir() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let mut places: Vec<PathBuf> =
        program.ancestors().skip(1).map(|dir| dir.join("models/demo")).collect();
    places.extend(program.ancestors().nth(2).map(|dir| dir.join("share/baton/models/demo")));
    places.push("models/demo".into());
    let found = places.iter().find(|dir| dir.join("config.json").is_file());
    found.and_then(|dir| dir.canonicalize().ok()).with_context(|| {
        let looked: Vec<String> = places.iter().map(|dir| dir.display().to_string()).collect();
        format!(
            "the demo model is not where it is looked for ({}): put the folder models/demo of the \
             repository there, or give a model with --model DIR|ORG/NAME",
            looked.join(", ")
        )
    })
}

fn is_hub_name(source: &str) -> bool {
    let well_formed = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let mut parts = source.split('/');
    matches!((parts.next(), parts.next(), parts.next()), (Some(org), Some(name), None) if well_formed(org) && well_formed(name))
}

#[cfg(test)]
mod tests;
