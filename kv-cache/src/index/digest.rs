//! What a set of blocks adds up to, so that two who each keep one can tell whether they agree.

use crate::{BlockHash, Tier};

/// The sum over blocks and the tiers they are in, in whatever order they came and went.
///
/// A worker's pool and a router's index each keep their own; equal ones mean equal sets, but for a
/// chance of 2^-64: names are uniform, and nobody chooses them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexDigest {
    /// The sum of the names' low halves, each times its tier's factor, modulo 2^64.
    pub sum: u64,
    /// Blocks, counted once in each tier.
    pub blocks: u64,
}

/// One odd factor a tier: a block that is believed to be in another tier changes the sum.
const FACTORS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

// === impl IndexDigest ===

impl IndexDigest {
    /// Counts a block that came to a tier.
    pub fn add(&mut self, hash: BlockHash, tier: Tier) {
        self.sum = self.sum.wrapping_add(term(hash, tier));
        self.blocks += 1;
    }

    /// Counts a block that left a tier where it was.
    pub fn remove(&mut self, hash: BlockHash, tier: Tier) {
        self.sum = self.sum.wrapping_sub(term(hash, tier));
        self.blocks -= 1;
    }
}

fn term(hash: BlockHash, tier: Tier) -> u64 {
    (hash.0 as u64).wrapping_mul(FACTORS[tier as usize])
}
