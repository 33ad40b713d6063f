//! The kinds of memory that a worker keeps KV blocks in.

/// A kind of memory, fastest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// The device's own: what a step reads.
    Device,
    /// The host's, pinned where the device copies from it.
    Host,
    /// A local disk's.
    Disk,
}

// === impl Tier ===

impl Tier {
    /// All of them, fastest first.
    pub const ALL: [Self; 3] = [Self::Device, Self::Host, Self::Disk];

    /// The name used in metrics and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Host => "host",
            Self::Disk => "disk",
        }
    }
}
