//! The file of API keys.

use std::path::PathBuf;
use std::sync::LazyLock;

use http::HeaderMap;
use router::callers::keys::Keys;
use tempfile::TempDir;

use crate::Target;

pub(in crate::targets) const TARGET: Target = Target::new("keys_file", run);

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a temporary folder"));

fn run(input: &[u8]) {
    let path: PathBuf = FOLDER.path().join("keys.toml");
    std::fs::write(&path, input).expect("a temporary folder");
    match Keys::new(&[], Some(path)) {
        // Whatever is in it, nobody comes in without a key.
        Ok(keys) => assert!(keys.are_wanted() && keys.check(&HeaderMap::new()).is_err()),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("keys.toml"), "{text}");
            assert!(text.len() <= 1024 + 4 * input.len(), "{} bytes", text.len());
        }
    }
}
