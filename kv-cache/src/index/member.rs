//! One holder of a block, in 32 bits.

use crate::Tier;

/// The number under which a holder's blocks are kept until it leaves or begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat(pub(super) u16);

/// A seat, and the tiers in which it has a block: `seat << 3 | tiers`. Ordered by seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Member(pub(super) u32);

/// What is kept of a block: its only member, or the number of the set of its members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(Member);

/// The number of a set of members, 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SetId(pub(super) u32);

/// A [`Word`], read.
pub(super) enum Holders {
    One(Member),
    Many(SetId),
}

/// Bits of a member that say tiers.
const TIER_BITS: u32 = Tier::ALL.len() as u32;
/// The bit of a word that says that it is a set's number.
const MANY: u32 = 1 << 31;

// === impl Member ===

impl Member {
    /// No member, and behind all of them.
    pub(super) const NONE: Self = Self(MANY - 1);

    pub(super) fn new(seat: Seat, tier: Tier) -> Self {
        Self(u32::from(seat.0) << TIER_BITS | 1 << tier as u32)
    }

    /// Not behind any member of a seat, and behind all of those before.
    pub(super) fn least(seat: Seat) -> Self {
        Self(u32::from(seat.0) << TIER_BITS)
    }

    pub(super) fn seat(self) -> Seat {
        Seat((self.0 >> TIER_BITS) as u16)
    }

    /// The fastest of its tiers, as an index of [`Tier::ALL`].
    pub(super) fn level(self) -> usize {
        self.0.trailing_zeros() as usize
    }

    pub(super) fn has(self, tier: Tier) -> bool {
        self.0 & (1 << tier as u32) != 0
    }

    /// The tiers of two members of the same seat.
    pub(super) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Itself without a tier; `None` if that was its last.
    pub(super) fn without(self, tier: Tier) -> Option<Self> {
        let left = self.0 & !(1 << tier as u32);
        (left & ((1 << TIER_BITS) - 1) != 0).then_some(Self(left))
    }
}

// === impl Word ===

impl Word {
    /// A block that nobody has.
    pub(super) const NONE: Self = Self(Member::NONE);

    pub(super) fn one(member: Member) -> Self {
        Self(member)
    }

    pub(super) fn many(set: SetId) -> Self {
        Self(Member(MANY | set.0))
    }

    pub(super) fn holders(self) -> Holders {
        let Self(Member(bits)) = self;
        if bits & MANY == 0 { Holders::One(self.0) } else { Holders::Many(SetId(bits & !MANY)) }
    }

    /// The only member as a set of one; empty for [`Word::NONE`].
    pub(super) fn alone(&self) -> &[Member] {
        if *self == Self::NONE { &[] } else { std::slice::from_ref(&self.0) }
    }
}
