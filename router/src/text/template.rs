//! Chat templates, rendered as transformers renders them.

use std::collections::HashSet;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};
use model_folder::{ModelFolder, NamedTemplate, SpecialTokens};
use serde_json::{Map, Value as Json};

use super::Cancelled;
use content::ContentHabits;
use paper::Paper;
use system::SystemPlace;

mod content;
mod load;
mod paper;
mod python;
mod system;

pub use load::TemplateLoadError;

/// Marks where a continued message ends in the rendered text.
const CONTINUE_TAG: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Steps that a template may take: a second's worth. A conversation of 4,096 messages takes templates of
/// well-known models half of it.
const FUEL: u64 = 4_000_000;

/// Stack for values that lie in each other as deep as a template can put them in so many steps, as they are dropped
/// one in the other. Only what is used of it takes memory.
pub(super) const STACK_BYTES: usize = 512 << 20;

/// A model's chat template: a conversation in, a prompt out.
pub struct ChatTemplate {
    env: Environment<'static>,
    special_tokens: SpecialTokens,
    source: String,
    /// Every word of it.
    words: HashSet<String>,
    content: ContentHabits,
    system: SystemPlace,
    merges_system: bool,
    has_tool_template: bool,
}

/// What to render.
#[derive(Clone, Debug)]
pub struct ChatRender {
    /// OpenAI's messages, already checked.
    pub messages: Vec<Json>,
    /// Tool descriptions, if there are any.
    pub tools: Option<Vec<Json>>,
    /// For models that answer from given documents.
    pub documents: Option<Vec<Json>>,
    /// Open the assistant's turn at the end.
    pub add_generation_prompt: bool,
    /// Leave the last message open, to be continued.
    pub continue_final_message: bool,
    /// More variables for the template (`enable_thinking` and the like).
    pub variables: Map<String, Json>,
    /// What templates that print the date call today.
    pub now: SystemTime,
}

/// The template didn't accept the conversation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template itself refused (`raise_exception`).
    #[error("the model's chat template refused the messages: {0}")]
    Refused(String),
    /// The template broke on this input.
    #[error("the model's chat template can't render the messages: {0}")]
    Failed(String),
    /// `continue_final_message`, and there is nothing to continue.
    #[error("`continue_final_message` is set, but {0}")]
    NothingToContinue(&'static str),
    /// The prompt is larger than any that could be served.
    #[error("the model's chat template makes a prompt of more than {0} bytes of the messages")]
    TooLong(usize),
}

/// Of a conversation that ends with tool calls alone, or without a message.
const NO_TEXT: TemplateError = TemplateError::NothingToContinue("the last message has no text");

/// What `raise_exception` was called with, carried through the template library's errors.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

// === impl ChatRender ===

impl Default for ChatRender {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            tools: None,
            documents: None,
            add_generation_prompt: true,
            continue_final_message: false,
            variables: Map::new(),
            now: SystemTime::UNIX_EPOCH,
        }
    }
}

// === impl ChatTemplate ===

impl ChatTemplate {
    /// Loads the templates of a model's folder. `None` if it has none: it can't chat.
    ///
    /// # Errors
    /// [`TemplateLoadError`] if a file can't be read or a template has a syntax error.
    pub fn from_folder(folder: &ModelFolder) -> Result<Option<Self>, TemplateLoadError> {
        load::from_folder(folder)
    }

    /// Compiles one template.
    ///
    /// # Errors
    /// [`TemplateLoadError::Syntax`] if it has a syntax error.
    pub fn from_source(
        source: &str,
        special_tokens: SpecialTokens,
    ) -> Result<Self, TemplateLoadError> {
        Self::from_named(&[NamedTemplate::new("default", source)], special_tokens)
    }

    /// Compiles a model's templates: `default`, and perhaps `tool_use` for requests with tools.
    fn from_named(
        templates: &[NamedTemplate],
        special_tokens: SpecialTokens,
    ) -> Result<Self, TemplateLoadError> {
        let mut env = environment();
        for NamedTemplate { name, source } in templates {
            let source = load::without_generation_tags(source);
            env.add_template_owned(name.clone(), source).map_err(|error| {
                let (name, reason) = (name.clone(), describe(&error));
                TemplateLoadError::Syntax { name, reason, folder: None }
            })?;
        }
        let mut template = Self {
            special_tokens,
            source: templates.iter().map(|template| template.source.as_str()).collect(),
            words: templates.iter().flat_map(|template| words(&template.source)).collect(),
            content: ContentHabits::UNKNOWN,
            system: SystemPlace::Anywhere,
            merges_system: false,
            has_tool_template: env.get_template("tool_use").is_ok(),
            env,
        };
        template.content = ContentHabits::detect(&template);
        template.system = SystemPlace::detect(&template);
        Ok(template)
    }

    /// The same template, for conversations with system messages wherever clients put them: where it
    /// prints none, they become part of one at the beginning, or of the user's first message.
    #[must_use]
    pub fn merging_system_messages(self) -> Self {
        Self { merges_system: true, ..self }
    }

    /// Whether its source has that word: a field of that name may have an effect.
    #[must_use]
    pub fn mentions(&self, word: &str) -> bool {
        self.words.contains(word)
    }

    /// Whether its source has that text.
    #[must_use]
    pub fn writes(&self, text: &str) -> bool {
        self.source.contains(text)
    }

    /// Renders a conversation, its messages brought into the form this template expects: contents
    /// as text or as parts, `developer` as `system` where the template doesn't know it.
    ///
    /// # Errors
    /// [`TemplateError`] if the template refuses the conversation or breaks on it.
    pub fn render(&self, chat: ChatRender) -> Result<String, TemplateError> {
        self.render_within(chat, usize::MAX, &Cancelled::default())
    }

    /// The same, up to a prompt of `bytes_max` bytes, and as long as somebody waits for it.
    ///
    /// # Errors
    /// [`TemplateError`] as above, or if the prompt gets larger.
    pub fn render_within(
        &self,
        mut chat: ChatRender,
        bytes_max: usize,
        cancelled: &Cancelled,
    ) -> Result<String, TemplateError> {
        let knows_developer = self.mentions("developer");
        for message in &mut chat.messages {
            if !knows_developer && message["role"] == "developer" {
                message["role"] = "system".into();
            }
        }
        if self.merges_system {
            self.system.merge(&mut chat.messages);
        }
        if chat.continue_final_message && has_no_content(&chat.messages) {
            return Err(NO_TEXT);
        }
        chat.messages.iter_mut().for_each(|message| self.content.adapt(message));
        self.render_prepared(chat, Paper::new(bytes_max, cancelled.clone()))
    }

    /// Renders a conversation exactly as given.
    ///
    /// # Errors
    /// [`TemplateError`] if the template refuses the conversation or breaks on it.
    pub fn render_as_is(&self, chat: ChatRender) -> Result<String, TemplateError> {
        self.render_prepared(chat, Paper::new(usize::MAX, Cancelled::default()))
    }

    fn render_prepared(&self, mut chat: ChatRender, paper: Paper) -> Result<String, TemplateError> {
        if !chat.continue_final_message {
            return self.run(&chat, paper);
        }
        let last = chat.messages.last_mut();
        let text = last.and_then(content::last_text_mut);
        let text = text.ok_or(NO_TEXT)?;
        text.push_str(CONTINUE_TAG);
        chat.add_generation_prompt = false;
        let rendered = self.run(&chat, paper)?;
        cut_at_tag(rendered)
    }

    fn run(&self, chat: &ChatRender, paper: Paper) -> Result<String, TemplateError> {
        // The text threads have as much from the start.
        stacker::maybe_grow(STACK_BYTES, STACK_BYTES, || self.run_here(chat, paper))
    }

    fn run_here(&self, chat: &ChatRender, mut paper: Paper) -> Result<String, TemplateError> {
        let with_tools = chat.tools.is_some() && self.has_tool_template;
        let name = if with_tools { "tool_use" } else { "default" };
        let template = self.env.get_template(name).map_err(|error| failed(&error))?;
        let now = chat.now;
        let special = self.special_tokens.iter();
        let mut context: Vec<(String, Value)> =
            special.map(|(name, text)| (name.to_owned(), python::value_of(text))).collect();
        context.extend(chat.variables.iter().map(|(k, v)| (k.clone(), python::value_of(v))));
        context.extend([
            ("messages".into(), list(Some(&chat.messages))),
            ("tools".into(), list(chat.tools.as_deref())),
            ("documents".into(), list(chat.documents.as_deref())),
            ("add_generation_prompt".into(), chat.add_generation_prompt.into()),
            (
                "strftime_now".into(),
                Value::from_function(move |format: &str| python::strftime(now, format)),
            ),
        ]);
        let rendered = template.render_captured_to(Value::from_pairs(context), &mut paper);
        if paper.is_full() {
            return Err(TemplateError::TooLong(paper.bytes_max()));
        }
        rendered.map_err(|error| failed(&error))?;
        paper.into_text().map_err(|error| TemplateError::Failed(error.to_string()))
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("content", &self.content).finish_non_exhaustive()
    }
}

/// Whether the last message says nothing, not even an empty text.
fn has_no_content(messages: &[Json]) -> bool {
    messages.last().is_some_and(|message| message["content"].is_null())
}

/// The names and other words of a template.
fn words(source: &str) -> impl Iterator<Item = String> {
    let words = source.split(|c: char| !c.is_alphanumeric() && c != '_');
    words.filter(|word| !word.is_empty()).map(str::to_owned)
}

/// The template language with transformers' settings.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.unwrap_or_default());
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_fuel(Some(FUEL));
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    minijinja_contrib::add_to_environment(&mut env);
    python::add_to(&mut env);
    env.add_function("raise_exception", raise_exception);
    env
}

/// A list as a template sees it; `none` where there is none.
fn list(items: Option<&[Json]>) -> Value {
    items.map_or_else(|| Value::from(()), |items| items.iter().map(python::value_of).collect())
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let refusal = Refusal(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, message.to_owned()).with_source(refusal))
}

fn failed(error: &Error) -> TemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(refusal) = current.downcast_ref::<Refusal>() {
            return TemplateError::Refused(refusal.0.clone());
        }
        source = current.source();
    }
    TemplateError::Failed(describe(error))
}

/// The error in one line.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (line {line})"))
}

/// Ends the rendered text where the tagged message's own text ends.
fn cut_at_tag(rendered: String) -> Result<String, TemplateError> {
    const LOST: TemplateError =
        TemplateError::NothingToContinue("the template doesn't print the last message");
    let tag = CONTINUE_TAG.trim_end();
    let begin = rendered.rfind(tag).ok_or(LOST)?;
    let mut text = rendered;
    let spacing_kept = text[begin..].starts_with(CONTINUE_TAG);
    text.truncate(begin);
    if !spacing_kept {
        // The template trims messages: so does the continued one end.
        text.truncate(text.trim_end().len());
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
