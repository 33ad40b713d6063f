//! Fields that nobody reads: noted, for the client to be told, or refused.

use http::HeaderValue;
use serde_json::{Map, Value as Json};

use crate::RequestError;

/// Names that are told, and the bytes of each: a header has to stay small.
const NAMES_MAX: usize = 16;
const NAME_BYTES_MAX: usize = 64;

/// The paths of fields that have no effect.
#[derive(Debug, Default)]
pub(crate) struct Ignored {
    /// Refuse instead.
    strict: bool,
    names: Vec<String>,
    more: usize,
}

// === impl Ignored ===

impl Ignored {
    pub(crate) fn new(strict: bool) -> Self {
        Self { strict, ..Self::default() }
    }

    /// Notes the field `name` of the object at `at`, the empty path for the request itself.
    ///
    /// # Errors
    /// [`RequestError::Invalid`], in OpenAI's words, where unknown fields are refused.
    pub(crate) fn note(&mut self, at: &str, name: &str) -> Result<(), RequestError> {
        if self.strict {
            let path = path(at, &shortened(name));
            let message = format!("Unrecognized request argument supplied: {path}");
            let code = Some("unrecognized_request_argument");
            return Err(RequestError::Invalid { param: Some(path), message, code });
        }
        if self.names.len() < NAMES_MAX {
            self.names.push(path(at, &shortened(name)));
        } else {
            self.more += 1;
        }
        Ok(())
    }

    /// Notes those fields of an object that aren't `known`.
    ///
    /// # Errors
    /// As [`Ignored::note`].
    pub(crate) fn note_all_but(
        &mut self,
        at: &str,
        object: &Map<String, Json>,
        known: impl Fn(&str) -> bool,
    ) -> Result<(), RequestError> {
        let mut unknown = object.keys().filter(|name| !known(name));
        unknown.try_for_each(|name| self.note(at, name))
    }

    /// The names, as a header's value; `None` if every field is read.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        if self.names.is_empty() {
            return None;
        }
        let mut value = self.names.join(", ");
        if self.more > 0 {
            value.push_str(&format!(", and {} more", self.more));
        }
        HeaderValue::try_from(value).ok()
    }
}

fn path(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// A name fit for a header: printable ASCII without the separator, and short.
fn shortened(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && c != ',' { c } else { '?' };
    let mut short: String = name.chars().take(NAME_BYTES_MAX).map(plain).collect();
    if name.chars().nth(NAME_BYTES_MAX).is_some() {
        short.push_str("...");
    }
    short
}
