//! Who sits where: how a holder's blocks are forgotten at once and removed later.
//!
//! A holder that leaves or begins anew gets up. What its seat holds counts for nothing from then on, is
//! swept out in passing, and when a whole round has been made the seat is given to the next.

use super::Holder;
use super::member::Seat;

/// Seats and their holders.
pub(super) struct Seats {
    /// Each seat's; `None` if nobody sits there.
    owners: Vec<Option<Holder>>,
    /// Swept, and free to take.
    free: Vec<Seat>,
    /// Left since this round began.
    left: Vec<Seat>,
    /// Free when this round ends.
    leaving: Vec<Seat>,
}

/// Twice as many as holders, so that all can begin anew during a round.
pub(super) const SEATS_MAX: usize = 2 * Holder::MAX;

/// What a holder's two seats take, at most.
pub(super) const BYTES: usize = 2 * (size_of::<Option<Holder>>() + 3 * size_of::<Seat>());

// Every seat can have the same block.
const _: () = assert!(SEATS_MAX <= super::sets::MEMBERS_MAX);

// === impl Seats ===

impl Seats {
    pub(super) fn new() -> Self {
        Self { owners: Vec::new(), free: Vec::new(), left: Vec::new(), leaving: Vec::new() }
    }

    pub(super) fn owner(&self, seat: Seat) -> Option<Holder> {
        self.owners[usize::from(seat.0)]
    }

    /// A seat for a holder; `None` while all are taken or unswept.
    pub(super) fn take(&mut self, holder: Holder) -> Option<Seat> {
        let seat = self.free.pop().or_else(|| self.append())?;
        self.owners[usize::from(seat.0)] = Some(holder);
        Some(seat)
    }

    pub(super) fn leave(&mut self, seat: Seat) {
        self.owners[usize::from(seat.0)] = None;
        self.left.push(seat);
    }

    /// Whether there is anything to sweep.
    pub(super) fn is_unswept(&self) -> bool {
        !self.left.is_empty() || !self.leaving.is_empty()
    }

    pub(super) fn begin_round(&mut self) {
        self.leaving.append(&mut self.left);
    }

    pub(super) fn end_round(&mut self) {
        self.free.append(&mut self.leaving);
    }

    fn append(&mut self) -> Option<Seat> {
        let seat = u16::try_from(self.owners.len()).ok().map(Seat)?;
        (self.owners.len() < SEATS_MAX).then(|| self.owners.push(None))?;
        Some(seat)
    }
}
