//! Whether pages of one layout can be pages of another.

use std::fmt;

use super::KvLayout;

/// What would have to be done to pages on their way from one layout to another of the same model's cache.
/// Nothing of it for two that fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// Other layers or heads of the model.
    pub shard: bool,
    /// Blocks of another size.
    pub block_tokens: bool,
    /// Numbers written otherwise.
    pub codec: bool,
}

/// Why pages of one layout can't be written into memory of another.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Misfit {
    /// They are of models with other layers, heads or vectors. Nothing converts that.
    #[error("it is the cache of another model")]
    Foreign,
    /// It is the same cache, kept otherwise.
    #[error("no transfer converts {0}")]
    Unconverted(Conversion),
}

// === impl KvLayout ===

impl KvLayout {
    /// What becomes of pages of this layout in memory of `to`.
    ///
    /// # Errors
    /// [`Misfit::Foreign`] if they can't be the same cache.
    pub fn converts_to(&self, to: &Self) -> Result<Conversion, Misfit> {
        let model = |layout: &Self| {
            let (layers, heads) = (layout.shard.layers.of, layout.shard.heads.of);
            (layers, heads, layout.page.vectors, layout.page.head_dim)
        };
        if model(self) != model(to) {
            return Err(Misfit::Foreign);
        }
        Ok(Conversion {
            shard: self.shard != to.shard,
            block_tokens: self.page.block_tokens != to.page.block_tokens,
            codec: self.codec != to.codec,
        })
    }

    /// Whether pages of this layout can be written into memory of `to`, as transfers are today: byte for
    /// byte.
    ///
    /// # Errors
    /// [`Misfit`] says what is in the way.
    pub fn fits(&self, to: &Self) -> Result<(), Misfit> {
        match self.converts_to(to)? {
            none if none == Conversion::default() => Ok(()),
            wanted => Err(Misfit::Unconverted(wanted)),
        }
    }
}

// === impl Conversion ===

impl fmt::Display for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            (self.shard, "layers and heads"),
            (self.block_tokens, "the size of blocks"),
            (self.codec, "the element type"),
        ];
        let said: Vec<&str> =
            all.iter().filter(|(wanted, _)| *wanted).map(|(_, what)| *what).collect();
        f.write_str(&said.join(", "))
    }
}
