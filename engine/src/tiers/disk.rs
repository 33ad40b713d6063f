//! Blocks on a local disk, which a later life of the worker finds again.
//!
//! Two files in a folder that is named for the model and the form of its blocks: `blocks` has a place for each block of the tier's pool, and
//! `entries` says what each is, with a digest of its bytes. An entry is struck out before its block is written and entered after it, so whatever a
//! crash leaves is either what was written or found out by its digest. Nothing waits for the disk itself: what a loss
//! of power takes was a copy.

mod entry;
mod folder;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kv_cache::{BlockId, BlockPool, Unsaved};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_128;

use self::entry::Entry;
pub(super) use self::folder::Folder;
use super::memory::{TierFault, TierMemory};

/// A part of a disk for KV blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOptions {
    /// A folder that no other worker uses meanwhile.
    pub dir: PathBuf,
    /// Bytes of it.
    pub bytes: u64,
}

/// The files of one tier.
pub(super) struct DiskMemory {
    blocks: File,
    entries: File,
    block_bytes: usize,
    block_tokens: usize,
    /// Of what each block holds; 0 where that is nothing.
    digests: Mutex<Box<[u128]>>,
    /// Blocks written, in this life and those before.
    written: AtomicU64,
    /// Keeps others out of the folder.
    _folder: Folder,
}

/// What an earlier life has left, oldest first.
pub(super) struct Found(Vec<(BlockId, Entry)>);

// === impl DiskMemory ===

impl DiskMemory {
    /// Opens the files, with places for `blocks` blocks, and reads what they hold.
    ///
    /// # Errors
    /// What the system says.
    pub(super) fn open(
        folder: Folder,
        blocks: u32,
        (block_bytes, block_tokens): (usize, usize),
    ) -> std::io::Result<(Self, Found)> {
        let files = [folder.file("blocks")?, folder.file("entries")?];
        let [data, entries] = files;
        cut(&data, u64::from(blocks) * block_bytes as u64)?;
        cut(&entries, u64::from(blocks) * Entry::bytes(block_tokens) as u64)?;
        let whole_blocks = data.metadata()?.len() / block_bytes as u64;
        let mut found = entry::read_all(&entries, block_tokens, blocks.min(whole_blocks as u32))?;
        found.sort_unstable_by_key(|(_, entry)| entry.written);
        let mut digests = vec![0; blocks as usize].into_boxed_slice();
        found.iter().for_each(|(block, entry)| digests[block.index()] = entry.digest);
        let written = found.last().map_or(0, |(_, entry)| entry.written);
        let memory = Self {
            blocks: data,
            entries,
            block_bytes,
            block_tokens,
            digests: Mutex::new(digests),
            written: AtomicU64::new(written),
            _folder: folder,
        };
        Ok((memory, Found(found)))
    }

    fn place(&self, block: BlockId) -> u64 {
        block.index() as u64 * self.block_bytes as u64
    }

    fn note(&self, block: BlockId, digest: u128) {
        self.digests.lock()[block.index()] = digest;
    }

    fn entry_place(&self, block: BlockId) -> u64 {
        block.index() as u64 * Entry::bytes(self.block_tokens) as u64
    }

    fn strike_out(&self, block: BlockId) -> std::io::Result<()> {
        let nothing = vec![0; Entry::bytes(self.block_tokens)];
        self.entries.write_all_at(&nothing, self.entry_place(block))
    }

    fn put(&self, block: BlockId, of: &Unsaved, bytes: &[u8]) -> std::io::Result<u128> {
        self.strike_out(block)?;
        self.blocks.write_all_at(bytes, self.place(block))?;
        let digest = xxh3_128(bytes);
        let written = self.written.fetch_add(1, Ordering::Relaxed) + 1;
        let entry = Entry { block: of.block, tokens: of.tokens.clone(), digest, written };
        self.entries.write_all_at(&entry.to_bytes(), self.entry_place(block))?;
        Ok(digest)
    }
}

impl TierMemory for DiskMemory {
    fn read(&self, block: BlockId) -> Result<Arc<Vec<u8>>, TierFault> {
        let mut bytes = vec![0; self.block_bytes];
        self.blocks.read_exact_at(&mut bytes, self.place(block))?;
        let is_whole = xxh3_128(&bytes) == self.digests.lock()[block.index()];
        if is_whole { Ok(Arc::new(bytes)) } else { Err(TierFault::Corrupt) }
    }

    fn write(&self, block: BlockId, of: &Unsaved, bytes: &[u8]) -> Result<(), TierFault> {
        self.note(block, 0);
        let digest = self.put(block, of, bytes)?;
        self.note(block, digest);
        Ok(())
    }

    fn strike(&self, blocks: &[BlockId]) -> Result<(), TierFault> {
        let has_entry = |block: &&BlockId| self.digests.lock()[block.index()] != 0;
        for &block in blocks.iter().filter(has_entry) {
            self.strike_out(block)?;
            self.note(block, 0);
        }
        Ok(())
    }
}

// === impl Found ===

impl Found {
    /// Makes what was found findable in the pool of its tier, which is new. Returns how many blocks that are.
    pub(super) fn publish(self, pool: &BlockPool) -> usize {
        let mut credit = pool.reserve(pool.total_blocks()).expect("a new pool is free");
        let bound = credit.bind_many(pool.total_blocks()).expect("as many as were reserved");
        let mut bound: Vec<_> = bound.into_iter().map(Some).collect();
        let blocks = self.0.len();
        // In the order in which they were written: the oldest are evicted first.
        for (block, Entry { block: name, tokens, .. }) in self.0 {
            if let Some(block) = bound[block.index()].take() {
                let _ = block.seal(name, &tokens);
            }
        }
        // The last comes free first, so that the files grow from their beginning.
        bound.into_iter().rev().for_each(drop);
        blocks
    }
}

/// Takes what is behind `bytes` off a file.
fn cut(file: &File, bytes: u64) -> std::io::Result<()> {
    if file.metadata()?.len() > bytes { file.set_len(bytes) } else { Ok(()) }
}

/// What a block takes in both files.
pub(super) fn bytes_of((block_bytes, block_tokens): (usize, usize)) -> usize {
    block_bytes + Entry::bytes(block_tokens)
}

/// The name of the folder for blocks of a model, in a form.
pub(super) fn name_of(fingerprint: &str, layout: &kv_cache::KvLayout) -> String {
    let version = kv_cache::HASH_VERSION;
    let what = format!("{fingerprint}\n{layout}\nhash {version}\nformat {}", entry::FORMAT);
    let digest = blake3::hash(what.as_bytes()).to_hex();
    format!("{}{}", folder::PREFIX, &digest[..32])
}

#[cfg(test)]
mod tests {
    use kv_cache::{BlockHash, BlockRef, BlockVersion, CommittedBlock, Tier};

    use super::*;

    const SIZES: (usize, usize) = (64, 2);

    fn opened(dir: &std::path::Path, blocks: u32) -> (DiskMemory, Vec<(BlockId, Entry)>) {
        let folder = Folder::open(dir, "kv-test").unwrap();
        let (memory, Found(found)) = DiskMemory::open(folder, blocks, SIZES).unwrap();
        (memory, found)
    }

    fn named(hash: u128) -> Unsaved {
        let at = BlockRef { block: BlockId(0), version: BlockVersion(0) };
        let block = CommittedBlock { hash: BlockHash(hash), parent: None, depth: 0 };
        Unsaved { at, block, tokens: [hash as u32, 1].into() }
    }

    fn hashes(found: &[(BlockId, Entry)]) -> Vec<(u32, u128)> {
        found.iter().map(|(block, entry)| (block.0, entry.block.hash.0)).collect()
    }

    #[test]
    fn a_later_life_finds_what_was_written_last_and_not_what_was_struck_out() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, found) = opened(dir.path(), 4);
        assert_eq!(found, []);
        for (block, hash) in [(2, 20), (0, 30), (1, 40), (2, 50)] {
            memory.write(BlockId(block), &named(hash), &[hash as u8; 64]).unwrap();
        }
        memory.strike(&[BlockId(0), BlockId(3)]).unwrap();
        drop(memory);
        let (memory, found) = opened(dir.path(), 4);
        assert_eq!(hashes(&found), [(1, 40), (2, 50)], "oldest first");
        assert_eq!(*memory.read(BlockId(2)).unwrap(), [50; 64]);
        assert_eq!(memory.read(BlockId(3)), Err(TierFault::Corrupt), "past the end of the file");
        drop(memory);
        let (memory, found) = opened(dir.path(), 2);
        assert_eq!(hashes(&found), [(1, 40)], "the tier is smaller now, and so are its files");
        assert_eq!(memory.blocks.metadata().unwrap().len(), 2 * 64);
    }

    #[test]
    fn a_block_that_was_being_written_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, _) = opened(dir.path(), 2);
        memory.write(BlockId(0), &named(1), &[1; 64]).unwrap();
        // The end came behind the first half of another.
        memory.strike_out(BlockId(0)).unwrap();
        memory.blocks.write_all_at(&[2; 32], 0).unwrap();
        drop(memory);
        assert_eq!(opened(dir.path(), 2).1, []);
    }

    #[test]
    fn what_was_found_is_in_the_pool_once_and_the_rest_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let (memory, _) = opened(dir.path(), 5);
        for (block, hash) in [(1, 7), (3, 7), (4, 8)] {
            memory.write(BlockId(block), &named(hash), &[0; 64]).unwrap();
        }
        drop(memory);
        let pool = BlockPool::new(8, 2).add_tier(Tier::Disk, 5);
        assert_eq!(Found(opened(dir.path(), 5).1).publish(&pool), 3);
        let counts = pool.counts();
        assert_eq!((counts.free, counts.cached, counts.active), (3, 2, 0));
        assert_eq!(pool.match_prefix(&[BlockHash(7)], &[7, 1])[0].id(), BlockId(1));
        assert_eq!(pool.audit(), Ok(()));
    }
}
