//! Bugs that are planted to see whether they are found.
//!
//! Each is a decorator around something real, in this crate: production code holds none of them.

mod answers;
mod placers;
mod transport;

use std::fmt;

pub use self::answers::Garbled;
pub use self::placers::{Eternal, Unbound};
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
    /// Answers that go on with other weights, or have parts of several.
    UnboundPlacement,
    /// A router that never again places work where it failed once.
    EternalExclusion,
    /// Nodes that ask nobody who he is.
    UnauthenticatedCall,
    /// Blocks in use that nobody owns.
    OrphanBlock,
    /// A step that writes to a block beside its own.
    StrayWrite,
    /// An answer that lacks a token.
    LostToken,
    /// An answer with a token twice.
    DoubledToken,
    /// An answer that just ends.
    SilentEnd,
    /// A choice that ends for a reason that isn't so.
    WrongReason,
    /// A log probability that is a little off.
    WrongLogprob,
    /// Scores of a prompt without the last one.
    LostScore,
    /// A router that forgets deadlines.
    DeafToDeadlines,
    /// A router that fails requests though all is well.
    NeedlessFailure,
    /// A router that lets some requests wait.
    Starvation,
    /// A process that never comes to rest.
    EndlessTurn,
}

// === impl Bug ===

impl Bug {
    /// Whether it is in what a router answers.
    #[must_use]
    pub fn is_in_answers(self) -> bool {
        self >= Self::LostToken && self <= Self::Starvation
    }

    /// Whether it takes a rollout to show.
    #[must_use]
    pub fn needs_rollout(self) -> bool {
        self == Self::UnboundPlacement
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = clap::ValueEnum::to_possible_value(self).map(|it| it.get_name().to_owned());
        f.write_str(&name.unwrap_or_default())
    }
}
