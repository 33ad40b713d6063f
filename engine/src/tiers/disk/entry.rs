//! What is written of a block beside its bytes.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read as _};

use kv_cache::{BlockHash, BlockId, CommittedBlock, TokenId};
use xxhash_rust::xxh3::xxh3_64;

/// The version of what follows; part of the folder's name.
pub(super) const FORMAT: u32 = 1;

/// Bytes before the tokens: the block's name, its parent's and whether there is one, depth, digest, when it was written.
const HEAD_BYTES: usize = 16 + 16 + 4 + 4 + 16 + 8;

/// Bytes behind the tokens: the entry's own digest.
const SEAL_BYTES: usize = 8;

/// Whose digest it is that ends an entry; a place full of zeros has another.
const SEED: u8 = 0xB7;

/// One block's entry. Little-endian, all fields one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) block: CommittedBlock,
    pub(super) tokens: Box<[TokenId]>,
    /// Of its bytes: xxh3-128.
    pub(super) digest: u128,
    /// Which of all blocks ever written it was.
    pub(super) written: u64,
}

// === impl Entry ===

impl Entry {
    /// Bytes of an entry.
    pub(super) fn bytes(block_tokens: usize) -> usize {
        HEAD_BYTES + block_tokens * size_of::<TokenId>() + SEAL_BYTES
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let CommittedBlock { hash, parent, depth } = self.block;
        let mut bytes = Vec::with_capacity(Self::bytes(self.tokens.len()));
        bytes.extend_from_slice(&hash.0.to_le_bytes());
        bytes.extend_from_slice(&parent.map_or(0, |parent| parent.0).to_le_bytes());
        bytes.extend_from_slice(&u32::from(parent.is_some()).to_le_bytes());
        bytes.extend_from_slice(&depth.to_le_bytes());
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        bytes.extend_from_slice(&self.written.to_le_bytes());
        bytes.extend(self.tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes.extend_from_slice(&seal(&bytes).to_le_bytes());
        bytes
    }

    /// The inverse of [`Entry::to_bytes`]; `None` for what was never written by it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (body, sealed) = bytes.split_last_chunk::<SEAL_BYTES>()?;
        if u64::from_le_bytes(*sealed) != seal(body) {
            return None;
        }
        let mut body = body;
        let (hash, parent) = (wide(&mut body)?, wide(&mut body)?);
        let (has_parent, depth) = (word(&mut body)? == 1, word(&mut body)?);
        let digest = wide(&mut body)?;
        let written = u64::from_le_bytes(*body.split_off(..8)?.as_array()?);
        let parent = has_parent.then_some(BlockHash(parent));
        let tokens = body.as_chunks().0.iter().map(|token| TokenId::from_le_bytes(*token));
        let block = CommittedBlock { hash: BlockHash(hash), parent, depth };
        Some(Self { block, tokens: tokens.collect(), digest, written })
    }
}

fn seal(body: &[u8]) -> u64 {
    xxh3_64(body) ^ u64::from(SEED)
}

fn wide(bytes: &mut &[u8]) -> Option<u128> {
    Some(u128::from_le_bytes(*bytes.split_off(..16)?.as_array()?))
}

fn word(bytes: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.split_off(..4)?.as_array()?))
}

/// Reads a file of entries; what is none is left out.
///
/// - `blocks`: no more than so many.
///
/// # Errors
/// What the system says.
pub(super) fn read_all(
    file: &File,
    block_tokens: usize,
    blocks: u32,
) -> std::io::Result<Vec<(BlockId, Entry)>> {
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut bytes = vec![0; Entry::bytes(block_tokens)];
    let mut entries = Vec::new();
    for block in 0..blocks {
        match file.read_exact(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            read => read?,
        }
        entries.extend(Entry::from_bytes(&bytes).map(|entry| (BlockId(block), entry)));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(parent: Option<BlockHash>) -> Entry {
        let block = CommittedBlock { hash: BlockHash(7 << 90), parent, depth: 3 };
        Entry { block, tokens: [1, 2, u32::MAX].into(), digest: 1 << 127, written: 9 }
    }

    #[test]
    fn what_is_written_is_read() {
        for parent in [None, Some(BlockHash(5))] {
            let bytes = entry(parent).to_bytes();
            assert_eq!(bytes.len(), Entry::bytes(3));
            assert_eq!(Entry::from_bytes(&bytes), Some(entry(parent)));
        }
    }

    #[test]
    fn a_flipped_bit_makes_it_none() {
        let bytes = entry(None).to_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Entry::from_bytes(&flipped), None, "bit {bit}");
        }
        assert_eq!(Entry::from_bytes(&vec![0; bytes.len()]), None, "a place that is empty");
    }
}
