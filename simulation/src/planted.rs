//! Bugs that are planted to see whether they are found.
//!
//! Each is a decorator around something real, in this crate: production code holds none of them.

mod exclusion;
mod transport;

use std::fmt;

pub use self::exclusion::Eternal;
pub use self::transport::Bugged;

/// A kind of bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Bug {
    /// Memory that reports a write as done and does it later.
    LateWrite,
    /// A commit that gets lost, and a sender that is told that all is well.
    LostCommit,
    /// Blocks that are promised to nobody, for ever.
    LeakedReservation,
    /// A page that is damaged after its digest was checked.
    AcceptedCorruptPage,
    /// Two sets of weights under one fingerprint.
    UnpinnedFingerprint,
    /// A router that never again places work where it failed once.
    EternalExclusion,
    /// Nodes that ask nobody who he is.
    UnauthenticatedCall,
}

// === impl Bug ===

impl Bug {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::LateWrite,
        Self::LostCommit,
        Self::LeakedReservation,
        Self::AcceptedCorruptPage,
        Self::UnpinnedFingerprint,
        Self::EternalExclusion,
        Self::UnauthenticatedCall,
    ];
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = clap::ValueEnum::to_possible_value(self).map(|it| it.get_name().to_owned());
        f.write_str(&name.unwrap_or_default())
    }
}
