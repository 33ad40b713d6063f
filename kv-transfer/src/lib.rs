//! Moves KV blocks between regions of memory, verified.
//!
//! Knows bytes and layouts, not models and not the engine. A [`Receiver`] promises room for a
//! sequence and makes a [`HandoffId`]; a [`Sender`] gathers pages as they are filled and pushes
//! them over a [`Transport`] under that id; the receiver binds, checks and writes them, and gives
//! the finished block table out once the whole set is there and its digest is right. Where the two
//! regions reach each other, the sender pushes where its pages are, and the receiver copies them.
//!
//! What is never lost: a page that doesn't match its digest is not written; a table is not given
//! out before everything in it is verified; a block doesn't return to the pool while somebody may
//! still write to it.

#![forbid(unsafe_code)]

mod blocking;
pub mod buffers;
pub mod error;
pub mod handoff;
pub mod message;
pub mod receiver;
pub mod sender;
pub mod stats;
pub mod transport;

pub use error::TransferError;
pub use handoff::{Coverage, Digest, page_digest, place_digest};
pub use kv_cache::{CommitRecord, HandoffId, PageSpan, RejectReason};
pub use message::Rejection;
pub use receiver::{Expected, PendingHandoff, Receiver, ReceiverConfig};
pub use sender::{FilledPages, PageQueue, SendJob, SendReport, Sender, SenderConfig};
pub use stats::{TransferCounts, TransferStats};
pub use transport::{Target, Transport, Transports};

/// The largest payload of one message.
///
/// Large enough that per-message costs (a thread hop, a frame header, an acknowledgement, some
/// 50 us together) are small beside the copy, small enough that gathering, sending and writing
/// overlap on a prompt of a few MiB.
pub const MESSAGE_BYTES: usize = 1 << 20;

/// The most pages of one message that says where they are, in bytes.
///
/// There is no buffer to overlap anything with, so a message is a group of layers of a chunk of a
/// prompt (16 MiB for 4 layers and 1,024 tokens of an 8B model), and only longer ones are cut.
pub const IN_PLACE_BYTES: usize = 64 << 20;
