//! The models a router serves: tokenizer, chat template, defaults, limits.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use kv_cache::TokenId;
use model_folder::{Fields, FolderError, ModelFolder};
use tracing::warn;
use words::Sampling;

use crate::error::{ModelLoadError, echo};
use crate::text::{ChatTemplate, ControlTokens, Tokenizer};
use crate::{RequestError, RouterError};

/// Models named to who asks for one that is none.
const SHOWN_MAX: usize = 4;

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
        let dir = &config.folder;
        let tokenizer = Tokenizer::from_file(&dir.join("tokenizer.json"))?;
        let folder = ModelFolder::open(dir)?;
        let tokenizer = tokenizer.with_added(&folder.added_tokens())?;
        let template = ChatTemplate::from_folder(&folder)?.map(|template| {
            if config.merge_system_messages { template.merging_system_messages() } else { template }
        });
        if template.is_none() {
            let (model, folder) = (&config.name, dir.display());
            warn!(%model, %folder, "no chat template: conversations are refused, and completions only are served");
        }
        let control_tokens = match &template {
            Some(template) if config.control_tokens_as_text => {
                Some(ControlTokens::of(&tokenizer, template)?)
            }
            _ => None,
        };
        Ok(Self {
            name: config.name.clone(),
            aliases: config.aliases.clone(),
            vocab_tokens: folder
                .text_config()
                .positive_u32("vocab_size")?
                .unwrap_or_else(|| tokenizer.vocab_tokens()),
            tokenizer: Arc::new(tokenizer),
            template,
            control_tokens,
            context_tokens_max: context_tokens(&folder, config)?,
            eos_tokens: folder.end_tokens()?,
            sampling_defaults: folder
                .generation()
                .map_or_else(|| Ok(Sampling::default()), sampling_defaults)?,
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
        self.by_name.get(name).ok_or_else(|| {
            let names: Vec<String> =
                self.models.iter().take(SHOWN_MAX).map(|it| format!("`{}`", it.name)).collect();
            let (name, served) = (echo(name).into_owned(), names.join(", "));
            RequestError::UnknownModel { name, served }
        })
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
fn context_tokens(folder: &ModelFolder, config: &ServedModelConfig) -> Result<u32, FolderError> {
    match (folder.context_tokens()?, config.context_tokens_max) {
        (Some(own), Some(most)) => Ok(own.min(most)),
        (Some(only), None) | (None, Some(only)) => Ok(only),
        (None, None) => {
            let problem = "is missing, and no context limit is configured";
            Err(folder.text_config().error("max_position_embeddings", problem))
        }
    }
}

/// What the model's authors recommend, over OpenAI's defaults.
fn sampling_defaults(generation: &Fields) -> Result<Sampling, FolderError> {
    let defaults = Sampling::default();
    let number =
        |name: &str, default: f32| Ok(generation.f64(name)?.map_or(default, |value| value as f32));
    Ok(Sampling {
        temperature: number("temperature", defaults.temperature)?,
        top_p: number("top_p", defaults.top_p)?,
        min_p: number("min_p", defaults.min_p)?,
        top_k: generation.u32("top_k")?.unwrap_or(defaults.top_k),
        repetition_penalty: number("repetition_penalty", defaults.repetition_penalty)?,
        ..defaults
    })
}

#[cfg(test)]
mod tests;
