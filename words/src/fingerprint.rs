//! What two workers must have in common, and the names that follow from it.

use kv_cache::ChainHasher;
use serde::{Deserialize, Serialize};

use crate::TenantSalt;

/// What two workers must have in common to exchange KV blocks.
///
/// Compared before anything is routed; workers with unequal fingerprints are never paired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Model name as served, e.g. `baton-demo`.
    pub model: String,
    /// Hex digest over configuration and weights.
    pub weights: String,
    /// KV layout, spelled out: layers, heads, head size, block size, dtype.
    pub kv_layout: String,
    /// Version of the block hash.
    pub hash_version: u32,
    /// Version of the hand-off protocol.
    pub wire_version: u32,
}

/// [`Fingerprint::chain_hasher`] for an engine, which knows these two and no more.
#[must_use]
pub fn chain_hasher(weights: &str, kv_layout: &str, salt: &TenantSalt) -> ChainHasher {
    ChainHasher::new(format!("{weights}\n{kv_layout}"), &salt.0)
}

// === impl Fingerprint ===

impl Fingerprint {
    /// The hasher that names this model's KV blocks for one tenant, the same on every node.
    ///
    /// Weights and layout count, and neither the name a model is served under nor the wire's
    /// version: they don't change what is in a block.
    #[must_use]
    pub fn chain_hasher(&self, salt: &TenantSalt) -> ChainHasher {
        chain_hasher(&self.weights, &self.kv_layout, salt)
    }

    /// Whether a sequence that a worker of one began may be gone on with by a worker of the other:
    /// the same weights, computed alike. Versions of wire and hash don't change a token.
    #[must_use]
    pub fn computes_as(&self, other: &Self) -> bool {
        self.weights == other.weights
            && self.kv_layout == other.kv_layout
            && self.model == other.model
    }

    /// A short name for clients, logs and metrics: `fp_` and 16 hex digits, the same on every node
    /// for those that compute alike.
    #[must_use]
    pub fn name(&self) -> String {
        let digest = self.chain_hasher(&TenantSalt::default()).extend(None, &[]).to_string();
        format!("fp_{}", &digest[..16])
    }

    /// Whether an operator who writes `wanted` means this one: the beginning of its name or of the
    /// weights' digest.
    #[must_use]
    pub fn is_named(&self, wanted: &str) -> bool {
        !wanted.is_empty() && (self.weights.starts_with(wanted) || self.name().starts_with(wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            model: "demo".into(),
            weights: "abc".into(),
            kv_layout: "2x2x16x16xf32".into(),
            hash_version: 1,
            wire_version: 1,
        }
    }

    fn name(fingerprint: &Fingerprint, salt: &[u8]) -> String {
        let salt = TenantSalt(salt.into());
        fingerprint.chain_hasher(&salt).extend(None, &[1, 2, 3, 4]).to_string()
    }

    /// A change here makes a new release's workers deaf to the old one's cache.
    #[test]
    fn block_names_are_pinned_and_depend_on_contents_only() {
        let renamed = Fingerprint { model: "other".into(), wire_version: 2, ..fingerprint() };
        assert_eq!(name(&fingerprint(), b""), "9dd7654708e790a283c1cf84bef2e957");
        assert_eq!(name(&renamed, b""), name(&fingerprint(), b""));
    }

    #[test]
    fn other_weights_layouts_and_tenants_have_other_names() {
        let weights = Fingerprint { weights: "abd".into(), ..fingerprint() };
        let layout = Fingerprint { kv_layout: "2x2x16x16xbf16".into(), ..fingerprint() };
        let mut names = [
            name(&fingerprint(), b""),
            name(&fingerprint(), b"tenant"),
            name(&weights, b""),
            name(&layout, b""),
        ];
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
