//! What a KV block is: its identity, its life, its layout.
//!
//! Pure: no task, socket, clock or device. Everything that names, owns or measures KV memory is
//! decided here, so that the engine and the transfer crate agree on it without knowing each other.
//!
//! Blocks are promised, bound, filled, named and found again; dropping is what gives them back:
//!
//! ```
//! use kv_cache::{BlockPool, ChainHasher, CommittedBlock};
//!
//! let pool = BlockPool::new(64, 4);
//! let tokens = [1, 2, 3, 4, 5, 6, 7, 8];
//! let names = ChainHasher::new("model", b"tenant").hash_blocks(None, &tokens, 4);
//!
//! let mut credit = pool.reserve(2)?;
//! let mut parent = None;
//! for (depth, (name, tokens)) in (0..).zip(names.iter().zip(tokens.chunks(4))) {
//!     let block = credit.bind().expect("a credit for each block");
//!     // Here the engine fills the block's pages.
//!     block.seal(CommittedBlock { hash: *name, parent, depth }, tokens);
//!     parent = Some(*name);
//! }
//! assert_eq!(pool.counts().cached, 2);
//!
//! let found = pool.match_prefix(&names, &tokens);
//! assert_eq!((found.len(), pool.counts().active), (2, 2));
//! # Ok::<_, kv_cache::NoCapacity>(())
//! ```

#![forbid(unsafe_code)]

pub mod anchor;
pub mod handoff;
pub mod hash;
pub mod ids;
pub mod index;
pub mod layout;
pub mod pool;
pub mod region;
pub mod reservation;
pub mod table;
pub mod tier;

pub use anchor::{ANCHOR_BLOCKS, Anchor};
pub use handoff::{CommitRecord, HandoffId, PageSpan, RejectReason};
pub use hash::{BlockHash, ChainHasher, HASH_VERSION};
pub use ids::{BlockId, BlockRef, BlockVersion, TokenId};
pub use index::{Expected, Hit, Hits, Holder, IndexDigest, OutOfBytes, PrefixIndex};
pub use layout::{
    BadLayout, Conversion, Held, KvCodec, KvLayout, KvShard, Misfit, Numbers, PageShape, Scales,
};
pub use pool::{
    BlockCounts, BlockEvent, BlockEvents, BlockHandle, BlockPool, CommittedBlock, Corrupt,
    Evictions, SealOutcome, Snapshot, Unsaved,
};
pub use region::{
    Fence, HostRegion, Kin, KvRegion, Offload, PageRange, PeerPages, PeerRegion, RegionError,
};
pub use reservation::{NoCapacity, Reservation};
pub use table::BlockTable;
pub use tier::Tier;
