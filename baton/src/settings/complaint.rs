//! What is wrong with a file or a variable, in one line that names it as its author did.

use std::path::Path;

use figment::error::{Actual, Kind};
use toml::Table;

use super::schema::{KNOWN, Known, PREFIX, nearest};

/// Reads the file as TOML.
///
/// # Errors
/// Naming the file, and the line that is no TOML.
pub(super) fn check_toml(path: &Path) -> Result<(), String> {
    let file = format!("--config {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| format!("{file}: {error}"))?;
    let Err(error) = text.parse::<Table>() else { return Ok(()) };
    let message = error.message().replace('\n', ", ");
    let begun = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    Err(format!("{file}: line {} is no TOML: {message}", begun.matches('\n').count() + 1))
}

/// What figment says, in words.
pub(super) fn of(error: &figment::Error, file: Option<&Path>) -> String {
    let from_variables =
        error.metadata.as_ref().is_some_and(|metadata| metadata.name.contains("environment"));
    let path: Vec<String> = error.path.iter().map(|part| part.to_lowercase()).collect();
    let name = match (from_variables, file) {
        (true, _) => format!("{PREFIX}{}", error.path.join("__").to_uppercase()),
        (false, Some(file)) => format!("--config {}: {}", file.display(), path.join(".")),
        (false, None) => path.join("."),
    };
    match &error.kind {
        Kind::UnknownField(field, known) => {
            format!("{name} is no setting: {}", meant(field, known))
        }
        Kind::InvalidType(found, wanted) | Kind::InvalidValue(found, wanted) => {
            format!("{name} is {}: want {}", shown(found), plain(wanted, found))
        }
        kind => format!("{name}: {}", kind.to_string().replace('\n', " ")),
    }
}

/// What its author may have had in mind.
fn meant(field: &str, known: &[&str]) -> String {
    if let Some(near) = nearest(field, known.iter().copied()) {
        return format!("did you mean {near}?");
    }
    // In another table, or by the name of its flag.
    let as_flag = field.replace('_', "-");
    let is_it = |it: &&Known| it.key == field || it.flag.as_deref() == Some(&as_flag);
    match KNOWN.iter().find(is_it) {
        Some(known) => format!("did you mean {}?", known.path()),
        None => format!("there are {}", known.join(", ")),
    }
}

fn shown(found: &Actual) -> String {
    match found {
        Actual::Str(text) => format!("{text:?}"),
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        // With its point: it is what makes it none.
        Actual::Float(value) => format!("{value:?}"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a table".to_owned(),
        Actual::Unit => "empty".to_owned(),
        Actual::Other(what) => integer(what).unwrap_or(what).to_owned(),
        other => other.to_string(),
    }
}

/// The digits of a number that serde finds too large to be any of Rust's: "integer `1` as u128".
fn integer(what: &str) -> Option<&str> {
    Some(what.strip_prefix("integer `")?.split_once('`')?.0)
}

fn plain<'w>(wanted: &'w str, found: &Actual) -> &'w str {
    match wanted {
        "u16" => "a whole number up to 65535",
        "u32" => "a whole number up to 4294967295",
        "u64" | "usize" if matches!(found, Actual::Other(what) if integer(what).is_some()) => {
            "a whole number up to 18446744073709551615"
        }
        "u64" | "usize" => "a whole number",
        _ if wanted.starts_with("struct ") => "a table, [like this], with settings in it",
        "f32" => "a number",
        "bool" | "a boolean" => "true or false",
        "a string" | "path string" => "a text in quotes",
        "a sequence" => "a list",
        other => other,
    }
}
