//! Models of the Hugging Face hub, and those of them that its cache has.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, bail};
use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo};

use super::look;
use crate::settings;

/// Unless `HF_ENDPOINT` names another.
const USUAL: &str = "https://huggingface.co";

/// A hub, and who asks it.
struct Hub {
    endpoint: Option<String>,
    token: Option<String>,
}

/// The snapshot's folder if everything the engine and the router need is in it.
pub(super) fn complete_snapshot(cache: &Cache, repo: &Repo, is_dummy: bool) -> Option<PathBuf> {
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

/// Downloads what is read of a model, with a progress bar.
///
/// # Errors
/// If it can't be had. Says what to do.
pub(super) fn download(cache: Cache, repo: Repo, is_dummy: bool) -> Result<PathBuf> {
    let hub = Hub {
        endpoint: settings::foreign_variable("HF_ENDPOINT"),
        token: settings::foreign_variable("HF_TOKEN"),
    };
    let model = repo.url();
    let told = |error: ApiError| hub.told(&model, error);
    let api = hub.api(cache).map_err(told)?.repo(repo);
    let listed = api.info().map_err(told)?.siblings;
    let all: Vec<String> = listed.into_iter().map(|file| file.rfilename).collect();
    let files: Vec<&String> = all.iter().filter(|name| is_needed(name, is_dummy)).collect();
    if !is_dummy && !files.iter().any(|name| name.ends_with(".safetensors")) {
        bail!("it has no *.safetensors weights{}", other_format(&all));
    }
    let mut dir = None;
    for file in files {
        dir = api.get(file).map_err(told)?.parent().map(Path::to_owned);
    }
    dir.context("it has no files")
}

/// What weights it has instead.
pub(super) fn other_format(files: &[String]) -> String {
    let ends = |end: &str| files.iter().find(|name| name.to_lowercase().ends_with(end));
    let other = ends(".gguf").or_else(|| ends(".bin"));
    other.map_or_else(String::new, |file| format!(", but {file}: {}", look::format_of(file)))
}

/// Files of a snapshot's top folder that Baton reads; the weights' other formats are not among them.
pub(super) fn is_needed(file: &str, is_dummy: bool) -> bool {
    let ends = |ends: &[&str]| ends.iter().any(|end| file.ends_with(end));
    let weights: &[&str] = if is_dummy { &[] } else { &[".safetensors"] };
    !file.contains('/') && (ends(&[".json", ".jinja", ".model"]) || ends(weights))
}

// === impl Hub ===

impl Hub {
    fn api(&self, cache: Cache) -> Result<hf_hub::api::sync::Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(cache).with_progress(true).with_retries(3);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        if let Some(token) = &self.token {
            builder = builder.with_token(Some(token.clone()));
        }
        builder.build()
    }

    /// Why `model` can't be had, with what to do.
    fn told(&self, model: &str, error: ApiError) -> Error {
        match self.advice(model, &error) {
            Some(advice) => Error::new(error).context(advice),
            None => error.into(),
        }
    }

    fn advice(&self, model: &str, error: &ApiError) -> Option<String> {
        let hub = self.endpoint.as_deref().unwrap_or(USUAL);
        match error {
            ApiError::TooManyRetries(error) => self.advice(model, error),
            ApiError::RequestError(error) => match &**error {
                ureq::Error::StatusCode(401 | 403) => Some(self.stranger(model, hub)),
                ureq::Error::StatusCode(404) => Some(format!(
                    "{hub} has no such model, or not at this --revision; one that is private needs HF_TOKEN"
                )),
                ureq::Error::StatusCode(429 | 500..) => Some(format!(
                    "{hub} can't answer now: try again, or give a folder with --model DIR"
                )),
                ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                    Some(format!(
                        "{hub} can't be reached from here: give a folder with --model DIR, or another hub in \
                         HF_ENDPOINT"
                    ))
                }
                _ => None,
            },
            _ => None,
        }
    }

    /// For the hub doesn't tell whether there is no such model, or one that not everybody may read.
    fn stranger(&self, model: &str, hub: &str) -> String {
        let token = match self.token {
            Some(_) => "is the token in HF_TOKEN one of an account that may read it",
            None => "set HF_TOKEN to a token of an account that may read it",
        };
        format!(
            "{hub} has no such model, or it is private or gated: is the name right? Then ask for access at \
             {hub}/{model}, and {token}"
        )
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::gated(ureq::Error::StatusCode(403), None, "and set HF_TOKEN to a token")]
    #[case::gated_for_this_one(ureq::Error::StatusCode(401), Some("t"), "is the token in HF_TOKEN")]
    #[case::unknown(ureq::Error::StatusCode(404), None, "--revision")]
    #[case::broken(ureq::Error::StatusCode(503), None, "try again")]
    #[case::unreachable(ureq::Error::HostNotFound, None, "can't be reached from here")]
    fn a_hub_that_gives_nothing_is_told_with_what_to_do(
        #[case] error: ureq::Error,
        #[case] token: Option<&str>,
        #[case] told: &str,
    ) {
        let hub = Hub { endpoint: None, token: token.map(str::to_owned) };
        let is_about_rights = matches!(error, ureq::Error::StatusCode(401..=404));
        let said = hub.told("org/name", ApiError::RequestError(Box::new(error))).to_string();
        assert!(said.contains(told), "{said}");
        assert_eq!(said.contains("HF_TOKEN"), is_about_rights, "{said}");
    }
}
