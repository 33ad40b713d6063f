//! The wire: package `baton.v1`, and its conversion to the words of the house.
//!
//! Wire types stop at the service and dispatch files; this is the only crate that converts them.

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
