//! The key of one prefix at one worker: `/baton/{namespace}/prefixes/{fingerprint}/{hash}/{worker}`.

use std::fmt;

use kv_cache::BlockHash;
use words::WorkerId;

use crate::membership::anchors::Told;

/// Who has which prefix of which model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnchorKey {
    /// The name of what the worker computes with ([`words::Fingerprint::name`]): names of blocks mean nothing to others.
    pub(super) fingerprint: String,
    /// The prefix, by the name of its last block: 32 hex digits.
    pub(super) hash: BlockHash,
    /// Who has it.
    pub(super) worker: WorkerId,
}

/// A key or value of no anchor.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("what is there is no prefix at a worker")]
pub(super) struct NoAnchor;

// === impl AnchorKey ===

impl AnchorKey {
    /// Reads what follows the prefix of all anchors' keys.
    fn parse(rest: &str) -> Option<Self> {
        let mut parts = rest.split('/');
        let (fingerprint, hash, worker) = (parts.next()?, parts.next()?, parts.next()?);
        let is_whole = parts.next().is_none() && hash.len() == 32 && !worker.is_empty();
        let hash = BlockHash(u128::from_str_radix(hash, 16).ok().filter(|_| is_whole)?);
        Some(Self { fingerprint: fingerprint.to_owned(), hash, worker: worker.into() })
    }

    /// The key, below the prefix of all anchors' keys.
    ///
    /// # Errors
    /// [`NoAnchor`] if it isn't one.
    pub(super) fn read(prefix: &str, key: &[u8]) -> Result<Self, NoAnchor> {
        let key = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(prefix));
        key.and_then(Self::parse).ok_or(NoAnchor)
    }

    /// What the worker says of it.
    ///
    /// # Errors
    /// [`NoAnchor`] if that can't be read.
    pub(super) fn told(value: &[u8]) -> Result<Told, NoAnchor> {
        serde_json::from_slice(value).map_err(|_| NoAnchor)
    }
}

impl fmt::Display for AnchorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fingerprint, hash, worker } = self;
        write!(f, "{fingerprint}/{hash}/{worker}")
    }
}

#[cfg(test)]
mod tests {
    use words::Incarnation;

    use super::*;

    const PREFIX: &str = "/baton/default/prefixes/";

    /// Routers of one version read what workers of another wrote.
    #[test]
    fn keys_and_values_are_pinned() {
        let key = AnchorKey {
            fingerprint: "fp_0123456789abcdef".to_owned(),
            hash: BlockHash(0xab),
            worker: "prefill-0".into(),
        };
        let text = "fp_0123456789abcdef/000000000000000000000000000000ab/prefill-0";
        assert_eq!(key.to_string(), text);
        assert_eq!(AnchorKey::read(PREFIX, format!("{PREFIX}{text}").as_bytes()).unwrap(), key);
        let told = Told { incarnation: Incarnation(7), blocks: 32 };
        let value = r#"{"incarnation":7,"blocks":32}"#;
        assert_eq!(serde_json::to_string(&told).unwrap(), value);
        assert_eq!(AnchorKey::told(value.as_bytes()).unwrap(), told);
    }

    #[test]
    fn what_is_no_key_is_told_apart() {
        for rest in ["", "fp", "fp/ab/w", "fp/000000000000000000000000000000ab", "a//w"] {
            assert!(AnchorKey::read(PREFIX, format!("{PREFIX}{rest}").as_bytes()).is_err());
        }
        let long = "fp/000000000000000000000000000000ab/w/more";
        assert!(AnchorKey::read(PREFIX, format!("{PREFIX}{long}").as_bytes()).is_err());
        assert!(AnchorKey::read(PREFIX, b"/baton/other/prefixes/fp").is_err());
        assert!(AnchorKey::told(b"{}").is_err());
    }
}
