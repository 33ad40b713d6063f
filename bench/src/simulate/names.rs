//! What blocks are called in a simulation.
//!
//! No tokens are made: a block's name follows from the trace's hash, which stands for the whole prefix that ends with it,
//! as a chain hash does. The pool, which compares tokens as well, is given one for each block, from its name.

use kv_cache::{BlockHash, TokenId};

use crate::workload::trace::BLOCK_TOKENS;
use crate::workload::{Trace, TraceRequest};

/// Sets what nobody else has apart from what is in the trace.
const PRIVATE: u64 = 1 << 63;

/// Names of a trace's blocks, in pools whose blocks may be smaller than the trace's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namer {
    block_tokens: u32,
    /// Of a pool's, in one of the trace's.
    parts: u32,
    seed: u64,
}

// === impl Namer ===

impl Namer {
    /// - `block_tokens`: of the pool's blocks. Where the trace's are no multiple of it, they are taken to be a little shorter.
    pub(super) fn new(trace: &Trace, block_tokens: u32, seed: u64) -> Self {
        let parts = (trace.scaled(BLOCK_TOKENS) / block_tokens).max(1);
        Self { block_tokens, parts, seed }
    }

    /// The names of a prompt's full blocks.
    ///
    /// - `number`: the request's. What the trace has no hash for is nobody else's.
    pub(super) fn prompt(
        self,
        request: &TraceRequest,
        number: usize,
        tokens: u32,
    ) -> Vec<BlockHash> {
        let full = tokens / self.block_tokens;
        (0..full).map(|at| self.block(request, number, at)).collect()
    }

    fn block(self, request: &TraceRequest, number: usize, at: u32) -> BlockHash {
        let (id, part) = ((at / self.parts) as usize, at % self.parts);
        match request.hash_ids.get(id) {
            Some(id) => self.name(*id, part),
            None => self.private(number, at),
        }
    }

    /// The name of a block that only this request has.
    ///
    /// - `at`: blocks before it.
    pub(super) fn private(self, number: usize, at: u32) -> BlockHash {
        self.name(PRIVATE | number as u64, at)
    }

    fn name(self, id: u64, part: u32) -> BlockHash {
        let low = mixed(mixed(id ^ self.seed.rotate_left(32)).wrapping_add(part.into()));
        BlockHash(u128::from(mixed(low)) << 64 | u128::from(low))
    }
}

/// The one token that stands for a block's.
pub(super) fn token(name: BlockHash) -> TokenId {
    (name.0 >> 64) as TokenId
}

/// Spreads numbers evenly (SplitMix64's finish).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(hash_ids: &[u64]) -> TraceRequest {
        TraceRequest { hash_ids: hash_ids.to_vec(), ..TraceRequest::default() }
    }

    #[test]
    fn equal_hashes_are_equal_blocks_and_others_are_not() {
        for (length_scale, block_tokens) in [(1.0, 128), (1.0, 512), (0.125, 16)] {
            let trace = Trace { requests: Vec::new(), length_scale, speed: 1.0 };
            let namer = Namer::new(&trace, block_tokens, 7);
            let tokens = (1200.0 * length_scale) as u32;
            let names = |ids, number| namer.prompt(&request(ids), number, tokens);
            let (a, b) = (names(&[0, 1, 2], 0), names(&[0, 1, 3], 1));
            let shared = (1024.0 * length_scale) as usize / block_tokens as usize;
            assert_eq!(a[..shared], b[..shared]);
            assert!(a[shared..].iter().all(|name| !b.contains(name)));
            let alone = names(&[], 2);
            assert!(alone.iter().all(|name| !a.contains(name) && !names(&[], 3).contains(name)));
        }
    }
}
