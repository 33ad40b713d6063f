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
//!
//! A prompt's blocks go from one memory to another, and are given out when all of them are there:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::{Duration, Instant};
//!
//! use kv_cache::{
//!     BlockHash, BlockPool, BlockTable, Fence, HostRegion, KvCodec, KvLayout, KvRegion, PageShape,
//! };
//! use kv_transfer::transport::{InProcessTransport, LocalReceivers, Target, Transports};
//! use kv_transfer::{
//!     Expected, FilledPages, Receiver, ReceiverConfig, SendJob, Sender, SenderConfig,
//! };
//!
//! let memory = || {
//!     let layout = KvLayout::whole(2, 1, PageShape::keys_and_values(8, 4), KvCodec::F32);
//!     let region: Arc<dyn KvRegion> = Arc::new(HostRegion::new(layout, 8));
//!     (BlockPool::new(8, 4), region)
//! };
//! let ((prefill_pool, prefill), (decode_pool, decode)) = (memory(), memory());
//! let (prompt, deadline) = (BlockHash(0xba70), Instant::now() + Duration::from_secs(30));
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! // The decode worker sets blocks aside and names the hand-off.
//! let config = ReceiverConfig { incarnation: 7, handoffs_max: 4, window_bytes: 1 << 20 };
//! let receiver = Receiver::new(decode_pool.clone(), decode, config);
//! let receivers = LocalReceivers::default();
//! let _there = receivers.register("inproc://decode", receiver.clone());
//! let pending = receiver.expect(Expected {
//!     reservation: decode_pool.reserve(2)?,
//!     held: BlockTable::new(4),
//!     tokens: 7,
//!     context: prompt,
//!     deadline,
//! })?;
//!
//! // The prefill worker pushes pages as its engine fills them, and says what they are of.
//! let transports = Transports::new(vec![Arc::new(InProcessTransport::new(receivers))]);
//! let sender = Sender::new(transports, SenderConfig::default());
//! let uri = "inproc://decode".to_owned();
//! let queue = sender.start(SendJob {
//!     id: pending.id(),
//!     target: Target { worker: "d1".into(), uri, incarnation: 7 },
//!     transports: vec![InProcessTransport::NAME.into()],
//!     blocks: 0..2,
//!     tokens: 7,
//!     region: prefill,
//!     deadline,
//! })?;
//! let blocks = prefill_pool.reserve(2)?.bind_many(2).expect("two credits");
//! queue.push(FilledPages { layers: 0..2, first_block: 0, blocks, fence: Fence::default() }).await?;
//!
//! let (report, table) = tokio::try_join!(queue.commit(prompt), pending.verified(deadline))?;
//! assert_eq!((report.blocks, table.tokens()), (2, 7));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

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
