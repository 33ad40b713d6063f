//! A layout as text: what workers publish, and what goes into the names of blocks.

use std::fmt;
use std::str::FromStr;

use super::{Held, KvCodec, KvLayout, KvShard, PageShape};

/// Vectors of a token and head where nothing is said.
const VECTORS: u32 = 2;

/// Text that is no layout that this version knows.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is no KV layout: {reason}")]
pub struct BadLayout {
    /// What was read.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

// === impl KvLayout ===

/// The form in fingerprints: two layouts are equal if and only if they read the same. Part of block names
/// and of what workers agree on, so it changes for no layout that there is.
impl fmt::Display for KvLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shard, page, codec } = self;
        let PageShape { vectors, head_dim, block_tokens } = page;
        write!(f, "layers={} kv_heads={} head_dim={head_dim} ", shard.layers, shard.heads)?;
        write!(f, "block_tokens={block_tokens} dtype={codec}")?;
        if *vectors == VECTORS { Ok(()) } else { write!(f, " vectors={vectors}") }
    }
}

impl FromStr for KvLayout {
    type Err = BadLayout;

    fn from_str(text: &str) -> Result<Self, BadLayout> {
        let bad = |reason: String| BadLayout { text: text.to_owned(), reason };
        let layout = read(text).map_err(bad)?;
        if !layout.is_sound() {
            return Err(bad("its sizes can't be".to_owned()));
        }
        // What is said twice, otherwise, or of something else would be lost in a name.
        if layout.to_string() != text {
            return Err(bad("it says more than is known".to_owned()));
        }
        Ok(layout)
    }
}

impl KvLayout {
    /// Whether there are pages of this layout: everything counts something, vectors end with a byte, and
    /// a block's bytes can be counted.
    fn is_sound(&self) -> bool {
        let PageShape { vectors, head_dim, block_tokens } = self.page;
        let counted = [vectors, head_dim, block_tokens].iter().all(|&count| count > 0);
        counted
            && self.shard.layers.is_sound()
            && self.shard.heads.is_sound()
            && self.codec.divides(head_dim)
            && self.bits_bound().is_some_and(|bits| isize::try_from(bits).is_ok())
    }

    /// At least the bits of a block, if they can be counted.
    fn bits_bound(&self) -> Option<u64> {
        let scales = self.codec.scales.map_or(0, |scales| scales.bits);
        let PageShape { vectors, head_dim, block_tokens } = self.page;
        let counts = [vectors, self.kv_heads(), block_tokens, head_dim, self.layers()];
        let bits = u64::from(self.codec.numbers.bits()) + u64::from(scales);
        counts.iter().try_fold(bits, |bits, &count| bits.checked_mul(count.into()))
    }
}

fn read(text: &str) -> Result<KvLayout, String> {
    let of = |name: &str| {
        let mut fields = text.split(' ').filter_map(|field| field.split_once('='));
        fields.find(|field| field.0 == name).map(|field| field.1)
    };
    let said = |name: &str| of(name).ok_or_else(|| format!("no {name}"));
    let dtype = said("dtype")?;
    let codec = KvCodec::named(dtype).ok_or_else(|| format!("unknown dtype {dtype:?}"))?;
    let shard = KvShard { layers: held(said("layers")?)?, heads: held(said("kv_heads")?)? };
    let vectors = of("vectors").map_or(Ok(VECTORS), count)?;
    let (head_dim, block_tokens) = (count(said("head_dim")?)?, count(said("block_tokens")?)?);
    Ok(KvLayout { shard, page: PageShape { vectors, head_dim, block_tokens }, codec })
}

fn count(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{text:?} is no count"))
}

fn held(text: &str) -> Result<Held, String> {
    let Some((range, of)) = text.split_once('/') else { return count(text).map(Held::all) };
    let (first, end) = range.split_once("..").ok_or_else(|| format!("{text:?} is no part"))?;
    Ok(Held::part(count(first)?..count(end)?, count(of)?))
}

// === impl Held ===

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, count, of } = *self;
        if self == &Self::all(of) {
            write!(f, "{of}")
        } else {
            write!(f, "{first}..{}/{of}", u64::from(first) + u64::from(count))
        }
    }
}
