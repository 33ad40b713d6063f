//! The models a router serves: tokenizer, chat template, defaults, limits.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kv_cache::TokenId;
use scheduler::Sampling;
use serde_json::Value as Json;

use crate::text::template::TemplateLoadError;
use crate::text::{ChatTemplate, ControlTokens, Tokenizer, TokenizerError};
use crate::{RequestError, RouterError};

/// Which model to serve, and under which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedModelConfig {
    /// A folder with `tokenizer.json`, `config.json` and, mostly, `tokenizer_config.json` and
    /// `generation_config.json`; weights are not read.
    pub folder: PathBuf,
    /// The name in `/v1/models`.
    pub name: String,
    /// Other names that mean the same model.
    pub aliases: Vec<String>,
    /// At most this much of the model's own context.
    pub context_tokens_max: Option<u32>,
    /// Move system messages to where the chat template takes them.
    pub merge_system_messages: bool,
    /// Take control tokens for text where messages spell them.
    pub control_tokens_as_text: bool,
}

/// A model as the router knows it.
#[derive(Debug)]
pub struct ServedModel {
    /// The name in `/v1/models`.
    pub name: String,
    /// Other names that mean this model.
    pub aliases: Vec<String>,
    /// Text to tokens.
    pub tokenizer: Arc<Tokenizer>,
    /// Conversations to text; `None`: a base model, completions only.
    pub template: Option<ChatTemplate>,
    /// Keeps control tokens that messages spell from being any; `None`: they are what they spell.
    pub control_tokens: Option<ControlTokens>,
    /// Prompt and answer together have at most this many tokens.
    pub context_tokens_max: u32,
    /// Token ids are below this.
    pub vocab_tokens: u32,
    /// End-of-sequence tokens.
    pub eos_tokens: Vec<TokenId>,
    /// For parameters that a client leaves out.
    pub sampling_defaults: Sampling,
    /// When it was loaded, seconds since 1970.
    pub created_s: u64,
}

/// Why a model folder can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelLoadError {
    /// No tokenizer, or a broken one.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A broken chat template.
    #[error(transparent)]
    Template(#[from] TemplateLoadError),
    /// A file is missing or not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Every model served, by each of its names.
#[derive(Clone, Debug, Default)]
pub struct ModelCatalog {
    models: Vec<Arc<ServedModel>>,
    by_name: HashMap<String, Arc<ServedModel>>,
}

// === impl ServedModel ===

impl ServedModel {
    /// Loads a model's text side from its folder.
    ///
    /// # Errors
    /// [`ModelLoadError`] if a file that is needed is missing or broken.
    pub fn load(config: &ServedModelConfig) -> Result<Self, ModelLoadError> {
        let folder = &config.folder;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"))?;
        let template = ChatTemplate::from_folder(folder)?.map(|template| {
            if config.merge_system_messages { template.merging_system_messages() } else { template }
        });
        let control_tokens = match &template {
            Some(template) if config.control_tokens_as_text => {
                Some(ControlTokens::from_file(&folder.join("tokenizer.json"), template)?)
            }
            _ => None,
        };
        let model_json = read_json(&folder.join("config.json"))?.ok_or_else(|| {
            let problem = "missing".to_owned();
            ModelLoadError::File { path: folder.join("config.json"), problem }
        })?;
        let generation = read_json(&folder.join("generation_config.json"))?.unwrap_or_default();
        let text_config = model_json.get("text_config").unwrap_or(&model_json);
        let context = context_tokens(text_config, config, folder)?;
        let eos = [&generation, text_config].into_iter().map(|j| token_ids(&j["eos_token_id"]));
        Ok(Self {
            name: config.name.clone(),
            aliases: config.aliases.clone(),
            vocab_tokens: unsigned(&text_config["vocab_size"])
                .unwrap_or_else(|| tokenizer.vocab_tokens()),
            tokenizer: Arc::new(tokenizer),
            template,
            control_tokens,
            context_tokens_max: context,
            eos_tokens: eos.into_iter().find(|ids| !ids.is_empty()).unwrap_or_default(),
            sampling_defaults: sampling_defaults(&generation),
            created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        })
    }

    /// Whether the token ends a sequence by itself.
    #[must_use]
    pub fn is_eos(&self, token: TokenId) -> bool {
        self.eos_tokens.contains(&token)
    }
}

// === impl ModelCatalog ===

impl ModelCatalog {
    /// A catalog of `models`.
    ///
    /// # Errors
    /// [`RouterError::Config`] if there is none, or if two have a name in common.
    pub fn new(models: Vec<Arc<ServedModel>>) -> Result<Self, RouterError> {
        if models.is_empty() {
            let problem = "is empty: a router serves at least one model".to_owned();
            return Err(RouterError::Config { field: "models", problem });
        }
        let mut by_name = HashMap::new();
        for model in &models {
            for name in std::iter::once(&model.name).chain(&model.aliases) {
                if by_name.insert(name.clone(), Arc::clone(model)).is_some() {
                    let problem = format!("has the name `{name}` twice");
                    return Err(RouterError::Config { field: "models", problem });
                }
            }
        }
        Ok(Self { models, by_name })
    }

    /// The model of that name or alias.
    ///
    /// # Errors
    /// [`RequestError::UnknownModel`].
    pub fn get(&self, name: &str) -> Result<&Arc<ServedModel>, RequestError> {
        self.by_name.get(name).ok_or_else(|| RequestError::UnknownModel(name.to_owned()))
    }

    /// The model that a request names; the only one served, where it names none.
    ///
    /// # Errors
    /// [`RequestError`] if there is no such model, or the request has to say which.
    pub fn named(&self, name: Option<&str>) -> Result<&Arc<ServedModel>, RequestError> {
        match (name, &self.models[..]) {
            (Some(name), _) => self.get(name),
            (None, [only]) => Ok(only),
            (None, _) => {
                let message = "`model` is missing; GET /v1/models lists the models served";
                Err(RequestError::invalid("model", message))
            }
        }
    }

    /// All models, in the order given.
    #[must_use]
    pub fn all(&self) -> &[Arc<ServedModel>] {
        &self.models
    }
}

/// The model's own context, or less if so configured.
fn context_tokens(
    model_json: &Json,
    config: &ServedModelConfig,
    folder: &Path,
) -> Result<u32, ModelLoadError> {
    let own = unsigned(&model_json["max_position_embeddings"]);
    match (own, config.context_tokens_max) {
        (Some(own), Some(most)) => Ok(own.min(most)),
        (Some(only), None) | (None, Some(only)) => Ok(only),
        (None, None) => Err(ModelLoadError::File {
            path: folder.join("config.json"),
            problem: "has no `max_position_embeddings`, and no context limit is configured".into(),
        }),
    }
}

/// What the model's authors recommend, over OpenAI's defaults.
fn sampling_defaults(generation: &Json) -> Sampling {
    let defaults = Sampling::default();
    let number =
        |name: &str, default: f32| generation[name].as_f64().map_or(default, |value| value as f32);
    Sampling {
        temperature: number("temperature", defaults.temperature),
        top_p: number("top_p", defaults.top_p),
        min_p: number("min_p", defaults.min_p),
        top_k: unsigned(&generation["top_k"]).unwrap_or(defaults.top_k),
        repetition_penalty: number("repetition_penalty", defaults.repetition_penalty),
        ..defaults
    }
}

/// Token ids are written as one number or as a list.
fn token_ids(json: &Json) -> Vec<TokenId> {
    match json {
        Json::Array(ids) => ids.iter().filter_map(unsigned).collect(),
        one => unsigned(one).into_iter().collect(),
    }
}

fn unsigned(json: &Json) -> Option<u32> {
    json.as_u64().and_then(|value| u32::try_from(value).ok())
}

fn read_json(path: &Path) -> Result<Option<Json>, ModelLoadError> {
    let file = |problem: String| ModelLoadError::File { path: path.to_owned(), problem };
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|error| file(error.to_string()))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(error.to_string())),
    }
}

#[cfg(test)]
mod tests;
