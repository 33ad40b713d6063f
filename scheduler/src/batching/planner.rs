//! The state of one plan while it is made.

mod overhang;
mod places;
mod prompts;

use std::collections::HashMap;

use words::ClientId;

use super::room::Room;
use super::{BatchLimits, Pace, Plan, PlannedRow, PrefixHit, SequenceKey, SequenceView, Standing};
use crate::backlog::Shares;

/// Looks a sequence up in the prefix cache.
type Probe<'p> = &'p mut dyn FnMut(SequenceKey) -> PrefixHit;

/// A plan in the making: what is left to give, and what each sequence got.
pub(super) struct Planner<'a> {
    limits: &'a BatchLimits,
    sequences: Vec<SequenceView>,
    /// Of each sequence; `None` for those that have no part in the step.
    rows: Vec<Option<PlannedRow>>,
    /// In the order in which rows were given; some were taken back.
    given: Vec<usize>,
    /// Those that were preempted or parked, and are to stay so.
    put_off: Vec<bool>,
    preempted: Vec<SequenceKey>,
    parked: Vec<SequenceKey>,
    room: Room<'a>,
    /// Each sequence's place among prompts.
    ranks: Vec<usize>,
    /// The oldest prompt, and what of the step is kept for it.
    eldest: Option<(usize, u32)>,
    /// Of each client the oldest prompt that waits for a place or for memory.
    stuck: HashMap<ClientId, usize>,
    /// How what is left is shared by clients' prompts.
    shares: Shares,
    places_left: u32,
    /// Below zero where pinning a prefix took what rows were counting on.
    free_blocks: i64,
    /// Blocks that prompts in progress will still take: not to be given to new ones.
    promised_blocks: u32,
    /// The one that may preempt anybody, so that something always moves.
    leader: Option<SequenceKey>,
}

// === impl Planner ===

impl<'a> Planner<'a> {
    pub(super) fn new(
        limits: &'a BatchLimits,
        pace: &'a Pace<'a>,
        sequences: &[SequenceView],
        available_blocks: u32,
    ) -> Self {
        let running_width: u32 =
            sequences.iter().filter(|s| s.standing == Standing::Running).map(|s| s.width).sum();
        let places_left = limits.sequences_max.saturating_sub(running_width);
        Self {
            limits,
            sequences: sequences.to_vec(),
            rows: vec![None; sequences.len()],
            given: Vec::with_capacity(sequences.len()),
            put_off: vec![false; sequences.len()],
            preempted: Vec::new(),
            parked: Vec::new(),
            room: Room::new(pace, limits.tokens_max),
            ranks: (0..sequences.len()).collect(),
            eldest: None,
            stuck: HashMap::new(),
            shares: Shares::none(),
            places_left,
            free_blocks: i64::from(available_blocks),
            promised_blocks: 0,
            leader: leader(sequences, places_left),
        }
    }

    pub(super) fn into_plan(self) -> Plan {
        let Self { preempted, parked, given, mut rows, .. } = self;
        let rows = given.into_iter().filter_map(|at| rows[at].take()).collect();
        Plan { preempted, parked, rows }
    }

    /// One row for each running sequence whose prompt is computed.
    ///
    /// One that finds no block and nobody younger to preempt stays as it is for this step: those
    /// before it go on, and take its blocks when they need them.
    pub(super) fn decode_rows(&mut self) {
        for at in 0..self.sequences.len() {
            if self.is_ready(at, Standing::Running) && self.sequences[at].remaining_tokens() == 1 {
                self.take_row(at, 1);
            }
        }
    }

    /// Lets sequences run that wait with all their KV.
    ///
    /// They pass waiting prompts, since they hold memory that only running gives back, but leave the
    /// places that the oldest of the prompts before them waits for.
    pub(super) fn admit_resumed(&mut self) {
        let mut kept_places = 0;
        for at in self.waiting_in_turn() {
            let sequence = self.sequences[at];
            if sequence.filled_tokens == 0 {
                kept_places = if kept_places == 0 { sequence.width } else { kept_places };
                continue;
            }
            if self.places_left < sequence.width + kept_places {
                break;
            }
            if self.take_row(at, sequence.remaining_tokens()) {
                self.start(at);
            }
        }
    }

    /// Plans `tokens` tokens of a sequence, preempting younger ones for the blocks where it already
    /// runs. Says whether it did.
    fn take_row(&mut self, at: usize, tokens: u32) -> bool {
        let sequence = self.sequences[at];
        let blocks = sequence.blocks_needed(tokens, self.limits.block_tokens);
        let may_preempt = sequence.standing == Standing::Running || self.leads(at);
        if tokens > self.room.tokens_left() {
            return false;
        }
        let fits = blocks == 0 || i64::from(blocks) <= self.free_blocks;
        let has_blocks = fits || (may_preempt && self.make_room(at, blocks));
        if !has_blocks {
            return false;
        }
        let row = PlannedRow { key: sequence.key, tokens, blocks };
        self.free_blocks -= i64::from(blocks);
        self.room.take(&self.sequences[at], row);
        self.given.push(at);
        self.rows[at] = Some(row);
        true
    }

    /// Preempts until `blocks` blocks are free, if that can be.
    fn make_room(&mut self, at: usize, blocks: u32) -> bool {
        while self.free_blocks < i64::from(blocks) {
            let Some(victim) = self.victim_for(at) else { return false };
            self.preempt(victim);
        }
        true
    }

    /// Who gives its blocks to `at`: the youngest paused one, else the youngest, but only to the
    /// leader or to one that is older.
    fn victim_for(&self, at: usize) -> Option<usize> {
        let holders = || (0..self.sequences.len()).rev().filter(|&i| i != at && self.holds(i));
        holders()
            .find(|&i| self.sequences[i].paused)
            .or_else(|| holders().next().filter(|&youngest| youngest > at || self.leads(at)))
    }

    fn holds(&self, at: usize) -> bool {
        let sequence = &self.sequences[at];
        sequence.held_blocks > 0 || self.rows[at].is_some_and(|row| row.blocks > 0)
    }

    fn preempt(&mut self, at: usize) {
        self.take_back(at);
        let sequence = self.sequences[at];
        if sequence.standing == Standing::Running {
            self.places_left += sequence.width;
        }
        // Shared blocks don't come free, so this may promise too much; the row is then left for the
        // next step, which preempts further.
        self.free_blocks += i64::from(sequence.held_blocks);
        self.preempted.push(sequence.key);
        self.put_off[at] = true;
        let view = &mut self.sequences[at];
        (view.held_blocks, view.filled_tokens, view.standing) = (0, 0, Standing::Waiting);
    }

    fn take_back(&mut self, at: usize) {
        if let Some(row) = self.rows[at].take() {
            self.free_blocks += i64::from(row.blocks);
            self.room.take_back(&self.sequences[at], row);
        }
    }

    fn start(&mut self, at: usize) {
        self.places_left -= self.sequences[at].width;
        self.sequences[at].standing = Standing::Running;
    }

    fn is_ready(&self, at: usize, standing: Standing) -> bool {
        let sequence = &self.sequences[at];
        sequence.standing == standing && !sequence.paused && !self.put_off[at]
    }

    fn leads(&self, at: usize) -> bool {
        self.leader == Some(self.sequences[at].key)
    }
}

/// The oldest sequence, or where it waits for a place, the oldest that has one.
fn leader(sequences: &[SequenceView], places_left: u32) -> Option<SequenceKey> {
    let mut active = sequences.iter().filter(|s| !s.paused);
    let runs = |s: &SequenceView| s.standing == Standing::Running;
    let oldest = active.next()?;
    let can_move = runs(oldest) || oldest.width <= places_left;
    if can_move { Some(oldest.key) } else { active.find(|s| runs(s)).map(|s| s.key) }
}
