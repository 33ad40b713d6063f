//! From what the user calls a model to a folder with its files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::settings;

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
        if let Some(dir) = complete_snapshot(&cache, &repo, self.is_dummy) {
            return Ok(LocalModel { dir, name: name.to_owned() });
        }
        if self.offline {
            bail!(
                "{name} is not in {} and --offline forbids to download it",
                cache.path().display()
            );
        }
        let dir = download(cache, repo, self.is_dummy).with_context(|| {
            format!("{name} could not be downloaded; give a folder with --model DIR, or set HF_TOKEN if it is private")
        })?;
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

/// The snapshot's folder if everything the engine and the router need is in it.
fn complete_snapshot(cache: &Cache, repo: &Repo, is_dummy: bool) -> Option<PathBuf> {
    let config = cache.repo(repo.clone()).get("config.json")?;
    let dir = config.parent()?.to_owned();
    let has_weights = is_dummy || weights_are_complete(&dir);
    (dir.join("tokenizer.json").exists() && has_weights).then_some(dir)
}

fn weights_are_complete(dir: &Path) -> bool {
    let Ok(index) = std::fs::read(dir.join("model.safetensors.index.json")) else {
        return dir.join("model.safetensors").exists();
    };
    let Ok(index) = serde_json::from_slice::<serde_json::Value>(&index) else { return false };
    let files = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    files.filter_map(|file| file.as_str()).all(|file| dir.join(file).exists())
}

fn download(cache: Cache, repo: Repo, is_dummy: bool) -> Result<PathBuf> {
    let mut builder = ApiBuilder::from_cache(cache).with_progress(true).with_retries(3);
    if let Some(endpoint) = settings::foreign_variable("HF_ENDPOINT") {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(token) = settings::foreign_variable("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build()?.repo(repo);
    let all: Vec<String> = api.info()?.siblings.into_iter().map(|file| file.rfilename).collect();
    let files: Vec<&String> = all.iter().filter(|name| is_needed(name, is_dummy)).collect();
    if !is_dummy && !files.iter().any(|name| name.ends_with(".safetensors")) {
        bail!("it has no *.safetensors weights{}", other_format(&all));
    }
    let mut dir = None;
    for file in files {
        dir = api.get(file)?.parent().map(Path::to_owned);
    }
    dir.context("it has no files")
}

/// What weights it has instead.
fn other_format(files: &[String]) -> String {
    let ends = |end: &str| files.iter().find(|name| name.to_lowercase().ends_with(end));
    let other = ends(".gguf").or_else(|| ends(".bin"));
    other.map_or_else(String::new, |file| format!(", but {file}: {}", look::format_of(file)))
}

/// Files of a snapshot's top folder that Baton reads; the weights' other formats are not among them.
fn is_needed(file: &str, is_dummy: bool) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|end| file.ends_with(end));
    let weights: &[&str] = if is_dummy { &[] } else { &[".safetensors"] };
    !file.contains('/') && (ends(&[".json", ".jinja", ".model"]) || ends(weights))
}

#[cfg(test)]
mod tests;
