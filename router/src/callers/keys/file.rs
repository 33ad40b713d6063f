//! The file of API keys: TOML, one table a key.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;

use super::allowance::{Allowance, Limits};
use super::{Digest, Key, sha256};
use crate::RouterError;

/// More would rather be in a database; each request is compared with all of them.
const KEYS_MAX: usize = 10_000;
/// Several times as much as so many keys take.
const BYTES_MAX: u64 = 16 << 20;
/// Names go into logs and metrics.
const NAME_BYTES_MAX: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    key: Vec<WrittenKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    name: String,
    sha256: String,
    tenant: Option<String>,
    #[serde(default)]
    operator: bool,
    concurrent_max: Option<u32>,
    requests_per_minute: Option<u32>,
    tokens_per_minute: Option<u32>,
    context_tokens_max: Option<usize>,
}

/// When the file was last written; `None` if that can't be told.
pub(super) fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// Reads the keys.
///
/// # Errors
/// [`RouterError::Keys`], naming the file and what is wrong.
pub(super) fn read(path: &Path) -> Result<Vec<Key>, RouterError> {
    let wrong = |problem: String| RouterError::Keys { path: path.to_owned(), problem };
    let unread = |error: std::io::Error| wrong(error.to_string());
    let metadata = std::fs::metadata(path).map_err(unread)?;
    if !metadata.is_file() {
        // What comes through a pipe comes once; later it would be no keys at all, or hang.
        return Err(wrong("is no regular file, which can be read again".into()));
    }
    if metadata.len() > BYTES_MAX {
        return Err(wrong(format!("has {} bytes, at most {BYTES_MAX}", metadata.len())));
    }
    let text = std::fs::read_to_string(path).map_err(unread)?;
    if text.is_empty() {
        let problem =
            "is empty: not written yet? A comment in it says that there are to be no keys";
        return Err(wrong(problem.into()));
    }
    parse(&text).map_err(wrong)
}

/// Reads what a file says.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn parse(text: &str) -> Result<Vec<Key>, String> {
    let written: Written = toml::from_str(text).map_err(|error| located(&error, text))?;
    if written.key.len() > KEYS_MAX {
        return Err(format!("has {} keys, at most {KEYS_MAX}", written.key.len()));
    }
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    let key = |written: WrittenKey| {
        if !names.insert(written.name.clone()) {
            return Err(format!("has the name `{}` twice", written.name));
        }
        if is_configured(&written.name) {
            return Err(format!("has the name `{}`, which keys from flags have", written.name));
        }
        let key = written.check()?;
        if !digests.insert(key.digest) {
            return Err(format!("has the key of `{}` twice", key.name));
        }
        Ok(key)
    };
    written.key.into_iter().map(key).collect()
}

/// Whether a key that is given in a flag or variable may have that name.
fn is_configured(name: &str) -> bool {
    let rest = name.strip_prefix(super::CONFIGURED_NAME);
    let numbered =
        |rest: &str| rest.strip_prefix('-').is_some_and(|it| it.parse::<usize>().is_ok());
    rest.is_some_and(|rest| rest.is_empty() || numbered(rest))
}

/// What is wrong, and in which line, in one.
fn located(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', ", ");
    let before = error.span().and_then(|span| text.get(..span.start));
    match before {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message,
    }
}

// === impl WrittenKey ===

impl WrittenKey {
    fn check(self) -> Result<Key, String> {
        let name = &self.name;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) {
            return Err(format!(
                "the name `{name:.80}` is not 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_`, `.` or `@`"
            ));
        }
        let digest = digest(&self.sha256)
            .ok_or_else(|| format!("`{name}`: sha256 is not 64 hexadecimal digits"))?;
        if digest == sha256(b"") {
            return Err(format!(
                "`{name}`: sha256 is that of an empty key; `baton keys new` makes one"
            ));
        }
        if self.tenant.as_ref().is_some_and(String::is_empty) {
            return Err(format!("`{name}`: the tenant is empty; leave it out, or name it"));
        }
        let limits = Limits {
            concurrent: self.concurrent_max,
            requests_per_minute: self.requests_per_minute,
            tokens_per_minute: self.tokens_per_minute,
        };
        if [limits.concurrent, limits.requests_per_minute, limits.tokens_per_minute]
            .contains(&Some(0))
        {
            return Err(format!("`{name}`: a limit of 0 lets nothing in; remove the key instead"));
        }
        Ok(Key {
            name: name.as_str().into(),
            tenant: self.tenant.map(Into::into),
            is_operator: self.operator,
            context_tokens_max: self.context_tokens_max,
            allowance: Allowance::new(limits),
            digest,
        })
    }
}

fn digest(hex: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..hex.len()).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    /// Of no bytes.
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn keys_are_read_and_mistakes_are_named() {
        let key = |more: &str| format!("[[key]]\nname = \"alice\"\nsha256 = \"{HASH}\"\n{more}");
        let keys = parse(&key("tenant = \"red\"\nconcurrent_max = 2\n")).unwrap();
        assert_eq!((&*keys[0].name, keys[0].tenant.as_deref()), ("alice", Some("red")));
        assert_eq!(keys[0].digest, super::super::sha256(b"secret"));
        assert!(parse("").unwrap().is_empty());
        for (text, word) in [
            (key("limit = 1"), "unknown field `limit`"),
            (key("concurrent_max = 0"), "lets nothing in"),
            (key(&key("")), "the name `alice` twice"),
            (key(&key("").replace("alice", "bob")), "the key of `bob` twice"),
            (key("").replace("alice", "default-1"), "keys from flags"),
            (key("").replace("alice", "a b"), "letters"),
            (key("").replace(HASH, EMPTY), "of an empty key"),
            (key("tenant = \"\""), "the tenant is empty"),
            (key("").replace("2bb8", "xxxx"), "64 hexadecimal"),
            (key("").replace("2bb8", ""), "64 hexadecimal"),
            ("[[key]]\nname = 1".into(), "line 2: invalid type: integer `1`, expected a string"),
            ("nonsense".into(), "line 1: "),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(word), "{word}: {error}");
        }
    }
}
