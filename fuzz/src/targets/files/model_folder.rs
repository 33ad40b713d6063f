//! The small files of a model's folder.

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use engine::ModelConfig;
use model_folder::{FolderError, ModelFolder};
use router::text::ChatTemplate;
use router::{ServedModel, ServedModelConfig};
use tempfile::TempDir;

use crate::words::sections;
use crate::{Cost, Target};

pub(in crate::targets) const TARGET: Target = Target::new("model_folder", run).with_cost(Cost {
    bytes_max: 8 << 10,
    memory_bytes_max: 64 << 20,
    ..Cost::USUAL
});

/// What is read of a folder.
const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
];

/// Complaints are for a terminal.
const COMPLAINT_BYTES_MAX: usize = 4 << 10;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a temporary folder"));

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let dir = FOLDER.path();
    let written: Vec<&str> =
        sections(text).filter_map(|(name, body)| write(dir, name, body)).collect();
    match ModelFolder::open(dir) {
        Ok(folder) => read(&folder),
        Err(error) => heard(&error),
    }
    if let Err(error) = ModelConfig::load(dir) {
        heard(&error);
    }
    if written.contains(&"tokenizer.json") {
        serve(dir);
    }
    for name in written {
        // The same name twice is one file.
        let _ = fs::remove_file(dir.join(name));
    }
}

fn write<'a>(dir: &Path, name: &'a str, body: &str) -> Option<&'a str> {
    FILES.contains(&name).then(|| fs::write(dir.join(name), body).expect("a temporary folder"))?;
    Some(name)
}

fn read(folder: &ModelFolder) {
    let _ = (folder.special_tokens(), folder.added_tokens());
    let errors: [Option<FolderError>; 2] =
        [folder.end_tokens().err(), folder.context_tokens().err()];
    errors.iter().flatten().for_each(|error| heard(error));
    if let Err(error) = ChatTemplate::from_folder(folder) {
        heard(&error);
    }
}

fn serve(dir: &Path) {
    let config = ServedModelConfig {
        folder: dir.to_owned(),
        name: "fuzzed".into(),
        aliases: Vec::new(),
        context_tokens_max: Some(1024),
        merge_system_messages: true,
        control_tokens_as_text: true,
    };
    match ServedModel::load(&config) {
        Ok(model) => assert!(model.context_tokens_max <= 1024),
        Err(error) => heard(&error),
    }
}

/// A complaint names the file, or what of it is wrong, in few words.
fn heard(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(
        !text.is_empty() && text.len() <= COMPLAINT_BYTES_MAX,
        "{} bytes: {text:.200}",
        text.len()
    );
}
