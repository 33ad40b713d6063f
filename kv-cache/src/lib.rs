//! What a KV block is: its identity, its life, its layout.
//!
//! Pure: no task, socket, clock or device. Everything that names, owns or measures KV memory is
//! decided here, so that the engine and the transfer crate agree on it without knowing each other.

#![forbid(unsafe_code)]

pub mod handoff;
pub mod hash;
pub mod ids;
pub mod layout;
pub mod pool;
pub mod region;
pub mod reservation;
pub mod table;

pub use handoff::{CommitRecord, HandoffId, PageSpan, RejectReason};
pub use hash::{BlockHash, ChainHasher, HASH_VERSION};
pub use ids::{BlockId, BlockRef, BlockVersion, TokenId};
pub use layout::{
    BadLayout, Conversion, Held, KvCodec, KvLayout, KvShard, Misfit, Numbers, PageShape, Scales,
};
pub use pool::{
    BlockCounts, BlockEvent, BlockEvents, BlockHandle, BlockPool, CommittedBlock, Corrupt, Sealed,
};
pub use region::{
    Fence, HostRegion, Kin, KvRegion, Offload, PageRange, PeerPages, PeerRegion, RegionError,
};
pub use reservation::{NoCapacity, Reservation};
pub use table::BlockTable;
