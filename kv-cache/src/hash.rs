//! The name of a KV block: the only place where it is computed.
//!
//! A block's keys and values depend on every token before them, on the weights and on the KV
//! layout. So its name is a chain: the hash of the parent's name and the block's own tokens, keyed by
//! the model and the tenant. Equal names mean equal contents, on every node and after every restart.

use std::fmt;

use crate::TokenId;

/// The version of the block hash; nodes that differ in it never exchange blocks.
///
/// Grows with any change to the bytes that are hashed. Golden vectors in this file's tests pin it.
pub const HASH_VERSION: u32 = 1;

/// The key derivation's domain: no other use of blake3 shares it. Names [`HASH_VERSION`].
const KEY_CONTEXT: &str = "baton 2026 kv block chain hash v1";

/// Parent, parent flag and 16 tokens take 81 bytes: blocks up to 43 tokens are hashed from the stack.
const STACK_BYTES: usize = 192;

/// Bytes before the tokens: the parent's hash and whether there is one.
const HEADER_BYTES: usize = 17;

/// The name of a full KV block and of the whole prefix that ends with it.
///
/// 128 bits: among 2^40 blocks ever hashed, the chance of any collision is about 2^-49. The pool
/// compares tokens all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockHash(pub u128);

/// Names the blocks of one model for one tenant.
///
/// Cheap to clone; making one costs a key derivation (about a microsecond), so keep it per request
/// or longer.
#[derive(Clone)]
pub struct ChainHasher {
    key: [u8; blake3::KEY_LEN],
}

// === impl BlockHash ===

impl BlockHash {
    /// The hash as it is written on the wire: big-endian.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The inverse of [`BlockHash::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockHash({self})")
    }
}

// === impl ChainHasher ===

impl ChainHasher {
    /// A hasher for one model and one tenant.
    ///
    /// - `model`: whatever tells two models' KV apart (weights and layout), the same on every node.
    /// - `salt`: the tenant; empty for none. Different salts share no names, so the time of a
    ///   cache hit tells one tenant nothing about another's prompts.
    #[must_use]
    pub fn new(model: impl AsRef<[u8]>, salt: &[u8]) -> Self {
        let mut kdf = blake3::Hasher::new_derive_key(KEY_CONTEXT);
        for part in [model.as_ref(), salt] {
            // The length keeps ("ab", "c") and ("a", "bc") apart.
            kdf.update(&(part.len() as u64).to_le_bytes());
            kdf.update(part);
        }
        Self { key: *kdf.finalize().as_bytes() }
    }

    /// The name of the block that holds `tokens` and follows `parent` (`None`: the first block).
    #[must_use]
    pub fn extend(&self, parent: Option<BlockHash>, tokens: &[TokenId]) -> BlockHash {
        let message_bytes = HEADER_BYTES + size_of_val(tokens);
        if message_bytes <= STACK_BYTES {
            self.hash_message(parent, tokens, &mut [0; STACK_BYTES][..message_bytes])
        } else {
            self.hash_message(parent, tokens, &mut vec![0; message_bytes])
        }
    }

    /// The names of the full blocks of `tokens`, in order; a partial last block has none.
    ///
    /// - `parent`: the name of the block before the first token, `None` at a sequence's start.
    ///
    /// # Panics
    /// If `block_tokens` is 0.
    #[must_use]
    pub fn hash_blocks(
        &self,
        parent: Option<BlockHash>,
        tokens: &[TokenId],
        block_tokens: u32,
    ) -> Vec<BlockHash> {
        tokens
            .chunks_exact(block_tokens as usize)
            .scan(parent, |parent, block| {
                let hash = self.extend(*parent, block);
                *parent = Some(hash);
                Some(hash)
            })
            .collect()
    }

    /// The name of a sequence as a whole: of its last full block, continued by what follows that.
    ///
    /// Equal names mean equal tokens from the first to the last, so it says what a hand-off's KV is of.
    ///
    /// # Panics
    /// If there are no tokens, or `block_tokens` is 0.
    #[must_use]
    pub fn name(&self, tokens: &[TokenId], block_tokens: u32) -> BlockHash {
        let named = self.hash_blocks(None, tokens, block_tokens);
        self.name_after(&named, tokens, block_tokens).expect("a context has tokens")
    }

    /// As [`ChainHasher::name`], where the full blocks are named already.
    #[must_use]
    pub fn name_after(
        &self,
        full_blocks: &[BlockHash],
        tokens: &[TokenId],
        block_tokens: u32,
    ) -> Option<BlockHash> {
        let parent = full_blocks.last().copied();
        match &tokens[full_blocks.len() * block_tokens as usize..] {
            [] => parent,
            tail => Some(self.extend(parent, tail)),
        }
    }

    /// Lays the message out in `message` and hashes it: parent, parent flag, tokens (little-endian).
    fn hash_message(
        &self,
        parent: Option<BlockHash>,
        tokens: &[TokenId],
        message: &mut [u8],
    ) -> BlockHash {
        let (header, body) = message.split_at_mut(HEADER_BYTES);
        if let Some(parent) = parent {
            header[..16].copy_from_slice(&parent.to_bytes());
            header[16] = 1;
        }
        for (bytes, token) in body.chunks_exact_mut(size_of::<TokenId>()).zip(tokens) {
            bytes.copy_from_slice(&token.to_le_bytes());
        }
        let digest = blake3::keyed_hash(&self.key, message);
        let mut name = [0; 16];
        name.copy_from_slice(&digest.as_bytes()[..16]);
        BlockHash::from_bytes(name)
    }
}

impl fmt::Debug for ChainHasher {
    /// Without the key, which would let a tenant's names be computed by whoever reads the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
