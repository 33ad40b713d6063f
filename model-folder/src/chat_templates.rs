//! Where a folder keeps its chat templates.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::Value;

use crate::{Fields, FolderError, ModelFolder};

/// The template for requests that need no other.
const DEFAULT: &str = "default";

/// A chat template and its name: `default`, `tool_use`, ...
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTemplate {
    /// Its name.
    pub name: String,
    /// Its text in the template language, every line ended by `\n` alone.
    pub source: String,
}

// === impl NamedTemplate ===

impl NamedTemplate {
    /// A template as Jinja reads it: every end of line in its text becomes `\n` first, those
    /// within string literals included.
    #[must_use]
    pub fn new(name: &str, source: &str) -> Self {
        let source = source.replace("\r\n", "\n").replace('\r', "\n");
        Self { name: name.to_owned(), source }
    }
}

impl ModelFolder {
    /// The model's templates: those of `chat_template.jinja` and `additional_chat_templates/`; else
    /// of `tokenizer_config.json`; else of `chat_template.json`. Empty if it can't chat. Otherwise
    /// one is called `default`.
    ///
    /// # Errors
    /// [`FolderError`] if a file can't be read.
    pub fn chat_templates(&self) -> Result<Vec<NamedTemplate>, FolderError> {
        let mut templates = self.templates_of_their_own()?;
        if templates.is_empty() {
            let config = self.tokenizer.as_ref().and_then(|file| file.get("chat_template"));
            templates = config.map(named).unwrap_or_default();
        }
        if templates.is_empty() {
            let file = Fields::read_if_present(&self.dir.join("chat_template.json"))?;
            let config = file.as_ref().and_then(|file| file.get("chat_template"));
            templates = config.map(named).unwrap_or_default();
        }
        if !templates.iter().any(|template| template.name == DEFAULT)
            && let Some(first) = templates.first_mut()
        {
            DEFAULT.clone_into(&mut first.name);
        }
        Ok(templates)
    }

    fn templates_of_their_own(&self) -> Result<Vec<NamedTemplate>, FolderError> {
        let mut templates = Vec::new();
        if let Some(source) = read(&self.dir.join("chat_template.jinja"))? {
            templates.push(NamedTemplate::new(DEFAULT, &source));
        }
        let more = self.dir.join("additional_chat_templates");
        let Ok(entries) = std::fs::read_dir(&more) else { return Ok(templates) };
        let mut files: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|file| is_jinja(file))
            .collect();
        files.sort();
        for file in files {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let source = read(&file)?.unwrap_or_default();
            templates.push(NamedTemplate::new(&name, &source));
        }
        Ok(templates)
    }
}

/// `chat_template` is one template, or a list of named ones, or an object of them.
fn named(chat_template: &Value) -> Vec<NamedTemplate> {
    match chat_template {
        Value::String(source) => vec![NamedTemplate::new(DEFAULT, source)],
        Value::Array(entries) => entries
            .iter()
            .filter_map(|entry| {
                Some(NamedTemplate::new(entry["name"].as_str()?, entry["template"].as_str()?))
            })
            .collect(),
        Value::Object(entries) => entries
            .iter()
            .filter_map(|(name, source)| Some(NamedTemplate::new(name, source.as_str()?)))
            .collect(),
        _ => Vec::new(),
    }
}

fn is_jinja(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "jinja")
}

fn read(file: &Path) -> Result<Option<String>, FolderError> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FolderError::io(file, &error)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const LIST: &str = r#"{"chat_template": [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]}"#;

    #[rstest]
    #[case::none(&[], "")]
    #[case::of_the_tokenizer(&[("tokenizer_config.json", r#"{"chat_template": "c"}"#)], "default=c")]
    #[case::a_list(&[("tokenizer_config.json", LIST)], "default=d tool_use=t")]
    #[case::a_list_without_default(
        &[("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#)],
        "default=r"
    )]
    #[case::a_file_comes_first(
        &[("tokenizer_config.json", LIST), ("chat_template.jinja", "f")], "default=f"
    )]
    #[case::files(
        &[("chat_template.jinja", "f"), ("additional_chat_templates/tool_use.jinja", "t"),
          ("additional_chat_templates/README.md", "-")],
        "default=f tool_use=t"
    )]
    #[case::json_alone(&[("chat_template.json", r#"{"chat_template": "j"}"#)], "default=j")]
    #[case::json_comes_last(
        &[("chat_template.json", r#"{"chat_template": "j"}"#),
          ("tokenizer_config.json", r#"{"chat_template": "c"}"#)],
        "default=c"
    )]
    #[case::behind_a_mark(
        &[("tokenizer_config.json", "\u{feff}{\"chat_template\": \"c\"}")], "default=c"
    )]
    #[case::lines_of_windows(&[("chat_template.jinja", "a\r\nb{{ 'c\r\nd\re' }}")], "default=a|b{{ 'c|d|e' }}")]
    #[case::lines_of_windows_in_json(
        &[("tokenizer_config.json", r#"{"chat_template": "a\r\nb"}"#)], "default=a|b"
    )]
    #[case::escapes_stay(
        &[("tokenizer_config.json", r#"{"chat_template": "{{ 'a\\r\\n' }}"}"#)],
        "default={{ 'a\\r\\n' }}"
    )]
    fn templates_are_found(#[case] files: &[(&str, &str)], #[case] want: &str) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
        std::fs::write(dir.path().join("config.json"), "{}").unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let templates = ModelFolder::open(dir.path()).unwrap().chat_templates().unwrap();
        let shown: Vec<String> = templates
            .iter()
            .map(|t| format!("{}={}", t.name, t.source.replace('\n', "|")))
            .collect();
        assert_eq!(shown.join(" "), want);
    }
}
