//! What two workers must have in common, and the names that follow from it.

use kv_cache::{ChainHasher, KvLayout};
use serde::{Deserialize, Serialize};

use crate::TenantSalt;

/// What two workers must have in common to exchange KV blocks.
///
/// Compared before anything is routed; workers whose fingerprints don't exchange KV are never paired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Model name as served, e.g. `baton-demo`.
    pub model: String,
    /// Hex digest over configuration and weights.
    pub weights: String,
    /// How KV is kept. As text where it is stored and sent.
    #[serde(with = "text")]
    pub kv_layout: KvLayout,
    /// Version of the block hash.
    pub hash_version: u32,
    /// Version of the hand-off protocol.
    pub wire_version: u32,
}

/// [`Fingerprint::chain_hasher`] for an engine, which knows these two and no more.
#[must_use]
pub fn chain_hasher(weights: &str, kv_layout: &KvLayout, salt: &TenantSalt) -> ChainHasher {
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

    /// Whether blocks of a worker of one can be a worker's of the other: the same model, names and
    /// protocol, and pages that fit.
    #[must_use]
    pub fn exchanges_kv_with(&self, other: &Self) -> bool {
        let Self { model, weights, kv_layout, hash_version, wire_version } = self;
        (model, weights) == (&other.model, &other.weights)
            && (hash_version, wire_version) == (&other.hash_version, &other.wire_version)
            && kv_layout.fits(&other.kv_layout).is_ok()
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

/// A layout in JSON.
mod text {
    use kv_cache::KvLayout;
    use serde::de::{Deserialize as _, Deserializer, Error as _};
    use serde::ser::Serializer;

    pub(super) fn serialize<S: Serializer>(layout: &KvLayout, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(layout)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KvLayout, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use kv_cache::{KvCodec, PageShape};

    use super::*;

    fn layout(codec: KvCodec) -> KvLayout {
        KvLayout::whole(2, 2, PageShape::keys_and_values(16, 16), codec)
    }

    fn fingerprint() -> Fingerprint {
        Fingerprint {
            model: "demo".into(),
            weights: "abc".into(),
            kv_layout: layout(KvCodec::F32),
            hash_version: 1,
            wire_version: 1,
        }
    }

    fn name(fingerprint: &Fingerprint, salt: &[u8]) -> String {
        let salt = TenantSalt(salt.into());
        fingerprint.chain_hasher(&salt).extend(None, &[1, 2, 3, 4]).to_string()
    }

    #[test]
    fn a_layout_in_json_is_its_text() {
        let json = serde_json::to_value(fingerprint()).unwrap();
        let text = "layers=2 kv_heads=2 head_dim=16 block_tokens=16 dtype=f32";
        assert_eq!(json["kv_layout"], text);
        assert_eq!(serde_json::from_value::<Fingerprint>(json.clone()).unwrap(), fingerprint());
        let mut other = json;
        other["kv_layout"] = "layers=2".into();
        assert!(serde_json::from_value::<Fingerprint>(other).is_err());
    }

    /// A change here makes a new release's workers deaf to the old one's cache.
    #[test]
    fn block_names_are_pinned_and_depend_on_contents_only() {
        let renamed = Fingerprint { model: "other".into(), wire_version: 2, ..fingerprint() };
        let text = "layers=2 kv_heads=2 head_dim=16 block_tokens=16 dtype=f32";
        let named = |layout: &str| {
            let hasher = ChainHasher::new(format!("abc\n{layout}"), b"");
            hasher.extend(None, &[1, 2, 3, 4]).to_string()
        };
        assert_eq!(named("2x2x16x16xf32"), "9dd7654708e790a283c1cf84bef2e957");
        assert_eq!(name(&fingerprint(), b""), named(text), "a layout's text is what is hashed");
        assert_eq!(name(&renamed, b""), name(&fingerprint(), b""));
    }

    #[test]
    fn kv_is_exchanged_where_nothing_of_it_differs() {
        let ours = fingerprint();
        assert!(ours.exchanges_kv_with(&fingerprint()));
        let others = [
            Fingerprint { model: "other".into(), ..fingerprint() },
            Fingerprint { weights: "abd".into(), ..fingerprint() },
            Fingerprint { kv_layout: layout(KvCodec::F16), ..fingerprint() },
            Fingerprint { hash_version: 2, ..fingerprint() },
            Fingerprint { wire_version: 2, ..fingerprint() },
        ];
        for other in others {
            assert!(
                !ours.exchanges_kv_with(&other) && !other.exchanges_kv_with(&ours),
                "{other:?}"
            );
        }
    }

    #[test]
    fn other_weights_layouts_and_tenants_have_other_names() {
        let weights = Fingerprint { weights: "abd".into(), ..fingerprint() };
        let layout = Fingerprint { kv_layout: layout(KvCodec::BF16), ..fingerprint() };
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
