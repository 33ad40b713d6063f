//! Workers among which blocks can be handed over.

use words::{Fingerprint, Role};

use super::seat::Seat;
use super::{ClusterSnapshot, PlacementRequest, Rejection, WorkerView};
use crate::cost::Rates;
use crate::cost::prior::OUTPUT_TOKENS;

/// Workers that can exchange blocks with each other.
pub(super) struct Group<'a> {
    pub(super) fingerprint: &'a Fingerprint,
    pub(super) prefill: Vec<Seat<'a>>,
    pub(super) decode: Vec<Seat<'a>>,
    /// The speed of all of them.
    pub(super) rates: Rates,
    /// Tokens that a sequence has there, in the mean of those workers that know.
    pub(super) output_tokens: f64,
    /// It has decode workers that are not asked again: they were full, or failed the request.
    pub(super) has_excluded: bool,
}

// === impl Group ===

impl<'a> Group<'a> {
    /// Puts a worker with those it can exchange blocks with.
    pub(super) fn add(groups: &mut Vec<Self>, view: &'a WorkerView) {
        let known = groups.iter().position(|group| group.is_with(view));
        let index = known.unwrap_or_else(|| {
            groups.push(Self {
                fingerprint: &view.info.fingerprint,
                prefill: Vec::new(),
                decode: Vec::new(),
                rates: Rates::default(),
                output_tokens: OUTPUT_TOKENS,
                has_excluded: false,
            });
            groups.len() - 1
        });
        let seat = Seat { view, rotated: 0 };
        match seat.role() {
            Role::Prefill => groups[index].prefill.push(seat),
            Role::Decode => groups[index].decode.push(seat),
        }
    }

    /// Takes in what all of its workers together say, once they are known.
    pub(super) fn complete(&mut self, view: &ClusterSnapshot, request: &PlacementRequest<'_>) {
        take_turns(&mut self.prefill, request.turn);
        take_turns(&mut self.decode, request.turn);
        self.rates = Rates::pooled(self.seats().map(|seat| &seat.view.rates));
        self.output_tokens = self.mean_output_tokens();
        let lacks = |worker: &WorkerView| {
            let is_excluded = worker.standing(request) == Err(Rejection::Excluded);
            worker.info.role == Role::Decode && is_excluded && self.is_with(worker)
        };
        self.has_excluded = !request.excluded.is_empty() && view.workers.iter().any(lacks);
    }

    fn is_with(&self, worker: &WorkerView) -> bool {
        self.fingerprint.exchanges_kv_with(&worker.info.fingerprint)
    }

    fn seats(&self) -> impl Iterator<Item = &Seat<'a>> {
        self.prefill.iter().chain(&self.decode)
    }

    /// What a request is likely to have, wherever it goes: a prefill worker may not have generated anything yet.
    fn mean_output_tokens(&self) -> f64 {
        let measured = self.seats().filter_map(|seat| seat.view.measured_output_tokens());
        let (sum, count) = measured.fold((0.0, 0.0), |(sum, count), it| (sum + it, count + 1.0));
        if count > 0.0 { sum / count } else { OUTPUT_TOKENS }
    }
}

/// Puts a different seat first each turn, for the last tie-break.
fn take_turns(seats: &mut [Seat<'_>], turn: u64) {
    let count = seats.len();
    let first = turn.checked_rem(count as u64).unwrap_or(0) as usize;
    for (index, seat) in seats.iter_mut().enumerate() {
        seat.rotated = (index + count - first) % count;
    }
}
