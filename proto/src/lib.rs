//! The wire: package `baton.v1`, and its conversion to the words of the house.
//!
//! Wire types stop at the service and dispatch files; this is the only crate that converts them.
//!
//! What comes in is a word of the house, or says which field is at fault:
//!
//! ```
//! use proto::v1;
//! use words::{Address, Incarnation};
//!
//! let address =
//!     Address { worker: "d1".into(), incarnation: Incarnation(3), uri: "http://d1:7002".into() };
//! let sent = v1::Address::from(&address);
//! assert_eq!(Address::try_from(sent.clone())?, address);
//!
//! let nameless = v1::Address { worker_id: String::new(), ..sent };
//! assert_eq!(Address::try_from(nameless).unwrap_err().field, "worker_id");
//! # Ok::<_, proto::WireError>(())
//! ```

#![forbid(unsafe_code)]

pub mod answers;
pub mod convert;
pub mod seal;

/// The generated types of package `baton.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("baton.v1");

    /// Every service's description, for gRPC reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("baton_descriptor");
}

pub use answers::Readable;
pub use convert::WireError;
pub use seal::{SealChain, Sealed};

/// Version of everything in this package that two workers must agree on.
///
/// 2: messages are sealed.
pub const WIRE_VERSION: u32 = 2;
