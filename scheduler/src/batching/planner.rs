//! The state of one plan while it is made.

use std::cmp::Reverse;

use words::ClientId;

use super::order::{Candidate, Order};
use super::room::Room;
use super::{BatchLimits, Pace, Plan, PlannedRow, PrefixHit, SequenceKey, SequenceView, Standing};
use crate::Backlog;
use crate::backlog::{Owed, Shares};

/// The part of a step's prompt tokens that is the oldest prompt's.
const ELDEST_SHARE: u32 = 2;
/// The same where that prompt is late already and others can be in time: it moves, and takes little from them.
const LATE_SHARE: u32 = 8;

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

    /// Takes places and blocks from sequences whose readers have stalled, and places from clients that have more
    /// than a share, for the first that waits.
    pub(super) fn give_way(&mut self) {
        let next = self.waiting_in_turn().first().copied();
        let wanted = self.limits.wanted_blocks + next.map_or(0, |at| self.blocks_wanted(at));
        while self.free_blocks < i64::from(wanted) {
            let Some(stalled) = self.stalled_holder(next) else { break };
            self.preempt(stalled);
        }
        let Some(next) = next else { return };
        while self.places_left < self.sequences[next].width {
            let Some(owner) = self.gives_place(next) else { break };
            self.park(owner);
        }
    }

    /// Blocks that a waiting prompt wants to see free; none for one that has its own.
    fn blocks_wanted(&self, at: usize) -> u32 {
        let sequence = &self.sequences[at];
        if sequence.held_blocks > 0 {
            return 0;
        }
        let context = sequence.blocks_needed(sequence.remaining_tokens(), self.limits.block_tokens);
        context + sequence.width + self.limits.watermark_blocks
    }

    /// The youngest that has blocks and whose reader has stalled.
    fn stalled_holder(&self, except: Option<usize>) -> Option<usize> {
        let is_one = |&at: &usize| self.sequences[at].stalled && self.holds(at);
        (0..self.sequences.len()).rev().filter(|at| Some(*at) != except).find(is_one)
    }

    /// Who gives its place to `at`: the youngest whose reader has stalled, else the youngest of the client that has the
    /// most places, if that is more than the other will have then.
    fn gives_place(&self, at: usize) -> Option<usize> {
        let may = |&at: &usize| {
            let sequence = &self.sequences[at];
            let decodes = sequence.filled_tokens > 0 && sequence.remaining_tokens() <= 1;
            sequence.standing == Standing::Running && decodes && !self.leads(at)
        };
        let running = || (0..self.sequences.len()).rev().filter(may);
        running().find(|&at| self.sequences[at].stalled).or_else(|| {
            let places = self.places_by_client();
            let of = |client| places.iter().find(|(id, _)| *id == client).map_or(0, |it| it.1);
            let asks = &self.sequences[at];
            let (most, count) = places.iter().copied().max_by_key(|(_, count)| *count)?;
            let gives = |&at: &usize| self.sequences[at].client == most;
            running().find(gives).filter(|_| count > of(asks.client) + asks.width)
        })
    }

    /// Places that each client has, of those whose readers haven't stalled.
    fn places_by_client(&self) -> Vec<(ClientId, u32)> {
        let mut places: Vec<(ClientId, u32)> = Vec::new();
        for sequence in &self.sequences {
            if sequence.standing != Standing::Running || sequence.stalled {
                continue;
            }
            match places.iter_mut().find(|(client, _)| *client == sequence.client) {
                Some((_, count)) => *count += sequence.width,
                None => places.push((sequence.client, sequence.width)),
            }
        }
        places
    }

    /// Those that wait, in the order in which they may run: clients take turns, who runs least first; each by its
    /// rank, or the order of arrival while nobody has one.
    fn waiting_in_turn(&self) -> Vec<usize> {
        let waits = |&at: &usize| self.is_ready(at, Standing::Waiting);
        let mut waiting: Vec<usize> = (0..self.sequences.len()).filter(waits).collect();
        waiting.sort_unstable_by_key(|&at| self.ranks[at]);
        let client = |at: usize| self.sequences[at].client;
        let Some(&first) = waiting.first() else { return waiting };
        if waiting.iter().all(|&at| client(at) == client(first)) {
            return waiting;
        }
        let mut places = self.places_by_client();
        let mut turn = |at: usize| {
            let width = self.sequences[at].width;
            match places.iter_mut().find(|(id, _)| *id == client(at)) {
                Some((_, count)) => std::mem::replace(count, *count + width),
                None => {
                    places.push((client(at), width));
                    0
                }
            }
        };
        // The leader first: nobody else may preempt for it.
        let mut turns: Vec<(bool, u32, usize, usize)> =
            waiting.iter().map(|&at| (!self.leads(at), turn(at), self.ranks[at], at)).collect();
        turns.sort_unstable();
        turns.into_iter().map(|(.., at)| at).collect()
    }

    fn park(&mut self, at: usize) {
        let sequence = &mut self.sequences[at];
        sequence.standing = Standing::Waiting;
        self.places_left += sequence.width;
        self.parked.push(sequence.key);
        self.put_off[at] = true;
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

    /// Gives prompts the rest of the step.
    pub(super) fn prompts(&mut self, probe: Probe<'_>) {
        self.room.close(self.rows_due_s());
        let prompts: Vec<usize> =
            (0..self.sequences.len()).filter(|&at| self.is_prompt(at)).collect();
        let Some(&first) = prompts.first() else { return };
        let tokens = self.fitting(&self.sequences[first], self.room.tokens_left());
        self.promise_running(&prompts);
        if prompts.len() > 1 {
            let eldest = self.eldest_of(&prompts);
            let late = self.rank(&prompts, tokens);
            self.eldest = eldest.map(|at| (at, self.owed_to_eldest(at, &prompts, &late, tokens)));
            self.shares = self.shares_of(&prompts, tokens);
        }
        let all_fit = self.give_chunks(&prompts, Some(probe));
        // Not all took their shares: some of it was cached, or found no place.
        if self.shares.lift() {
            self.give_chunks(&prompts, Some(probe).filter(|_| all_fit));
        }
    }

    /// How much time the rows in the step have.
    fn rows_due_s(&self) -> Option<f64> {
        let due = |at: &usize| self.sequences[*at].due.next().filter(|_| self.rows[*at].is_some());
        self.given.iter().filter_map(due).min().map(|due| due.as_secs_f64())
    }

    /// Finds the order of prompts; returns those that are late whatever happens.
    ///
    /// - `tokens`: of prompts in a step.
    fn rank(&mut self, prompts: &[usize], tokens: u32) -> Vec<usize> {
        let candidate = |&at: &usize| {
            let sequence = &self.sequences[at];
            let due_s = sequence.due.first().map(|due| due.as_secs_f64());
            Candidate { at, tokens: sequence.remaining_tokens(), due_s }
        };
        let candidates: Vec<Candidate> = prompts.iter().map(candidate).collect();
        let s_per_token = self.room.s_per_token(&self.sequences[prompts[0]], tokens);
        let Order { order, late } = Order::of(&candidates, s_per_token);
        order.into_iter().enumerate().for_each(|(rank, at)| self.ranks[at] = rank);
        late
    }

    /// The oldest prompt that runs, or could: whatever the order, it goes on. Nobody is older than the leader.
    fn eldest_of(&self, prompts: &[usize]) -> Option<usize> {
        let runs = |&&at: &&usize| self.sequences[at].standing == Standing::Running;
        let could = |&at: &usize| self.is_prompt(at) && self.could_begin(at);
        let leader = prompts.iter().find(|&&at| self.leads(at)).copied();
        leader.or_else(|| {
            let running = prompts.iter().find(runs).copied();
            let waiting = self.waiting_in_turn().into_iter().find(could);
            running.into_iter().chain(waiting).min()
        })
    }

    /// Whether there are a place and memory for it, and no older one waits for those.
    fn could_begin(&self, at: usize) -> bool {
        self.fits(at) && !self.passes_older(at)
    }

    /// What of the step is kept for the oldest prompt.
    fn owed_to_eldest(&self, at: usize, prompts: &[usize], late: &[usize], tokens: u32) -> u32 {
        let gives_way = late.contains(&at) && late.len() < prompts.len();
        let share = tokens / if gives_way { LATE_SHARE } else { ELDEST_SHARE };
        let least = self.limits.block_tokens;
        self.sequences[at].remaining_tokens().min(share.max(least)).min(tokens)
    }

    fn shares_of(&self, prompts: &[usize], tokens: u32) -> Shares {
        let mut wanted = Backlog::default();
        for sequence in prompts.iter().map(|&at| &self.sequences[at]) {
            wanted.add(sequence.client, sequence.remaining_tokens().into());
        }
        let owed = |(at, tokens): (usize, u32)| Owed { client: self.sequences[at].client, tokens };
        Shares::of(&wanted, tokens, self.eldest.map(owed))
    }

    /// Whether what it needs next are tokens of a prompt.
    fn is_prompt(&self, at: usize) -> bool {
        let sequence = &self.sequences[at];
        let wants = match sequence.standing {
            Standing::Running => sequence.remaining_tokens() > 1,
            Standing::Waiting => sequence.filled_tokens == 0,
        };
        wants && self.is_ready(at, sequence.standing)
    }

    /// Counts what prompts in progress still take, before others begin.
    fn promise_running(&mut self, prompts: &[usize]) {
        for &at in prompts {
            if self.sequences[at].standing == Standing::Running {
                self.promised_blocks += self.promise(at);
            }
        }
    }

    /// The oldest prompt's part first, then by rank; prompts that wait take turns, until the first that doesn't fit.
    /// Says whether all fitted that have a share.
    ///
    /// - `probe`: `None` where nobody is to begin.
    fn give_chunks(&mut self, prompts: &[usize], probe: Option<Probe<'_>>) -> bool {
        let (mut admits, nobody) = (probe.is_some(), &mut |_| PrefixHit::default());
        let probe = probe.unwrap_or(nobody);
        if let Some((eldest, kept)) = self.eldest.take() {
            admits = admits && self.give_chunk(eldest, kept, probe);
        }
        let runs = |at: &usize| self.sequences[*at].standing == Standing::Running;
        let mut running: Vec<usize> = prompts.iter().copied().filter(runs).collect();
        running.sort_unstable_by_key(|&at| Reverse(self.ranks[at]));
        let waits = |at: &usize| self.is_prompt(*at);
        let waiting: Vec<usize> = self.waiting_in_turn().into_iter().filter(waits).collect();
        for at in waiting {
            while let Some(before) = running.pop_if(|it| self.ranks[*it] < self.ranks[at]) {
                self.lengthen_chunk(before, u32::MAX);
            }
            if admits && !self.passes_older(at) {
                admits = self.give_chunk(at, u32::MAX, probe);
            }
        }
        while let Some(at) = running.pop() {
            self.lengthen_chunk(at, u32::MAX);
        }
        admits
    }

    /// Gives a prompt a chunk, or a longer one; says whether it runs now, or could but for its client's share.
    ///
    /// - `most`: tokens at most.
    fn give_chunk(&mut self, at: usize, most: u32, probe: Probe<'_>) -> bool {
        let sequence = self.sequences[at];
        if sequence.standing == Standing::Running {
            self.lengthen_chunk(at, most);
            return true;
        }
        if !self.has_share(&sequence) {
            return true;
        }
        let has_room = self.places_left >= sequence.width && self.room.tokens_left() > 0;
        has_room && self.admit_prompt(at, most, probe(sequence.key))
    }

    /// Whether an older prompt of the same client waits for places or memory: whoever went first would take them.
    fn passes_older(&self, at: usize) -> bool {
        let client = self.sequences[at].client;
        let waits = |&older: &usize| {
            let sequence = &self.sequences[older];
            let is_its = sequence.client == client && sequence.standing == Standing::Waiting;
            is_its && self.is_prompt(older) && !self.fits(older)
        };
        (0..at).any(|older| waits(&older))
    }

    /// Whether the client's share is enough for a chunk.
    fn has_share(&self, sequence: &SequenceView) -> bool {
        self.shares.left(sequence.client)
            >= sequence.remaining_tokens().min(self.limits.block_tokens)
    }

    /// Gives a prompt that runs as much as there is for it, beside what it has of the step.
    fn lengthen_chunk(&mut self, at: usize, most: u32) {
        if !self.is_ready(at, Standing::Running) {
            return;
        }
        let sequence = self.sequences[at];
        let had = self.rows[at];
        let rest = sequence.remaining_tokens() - had.map_or(0, |row| row.tokens);
        if rest == 0
            || had.is_some() && self.room.tokens_left() < rest.min(self.limits.block_tokens)
        {
            return;
        }
        self.promised_blocks = self.promised_blocks.saturating_sub(self.promise(at));
        if let Some(row) = had {
            self.take_back(at);
            self.shares.give_back(sequence.client, row.tokens);
        }
        if !self.take_chunk(at, most)
            && let Some(row) = had
        {
            self.take_row(at, row.tokens);
            self.shares.take(sequence.client, row.tokens);
        }
        if self.is_ready(at, Standing::Running) {
            self.promised_blocks += self.promise(at);
        }
    }

    fn admit_prompt(&mut self, at: usize, most: u32, hit: PrefixHit) -> bool {
        self.adopt_prefix(at, hit);
        let fits = self.fits_whole(at) || self.must_advance(at);
        let admitted = fits && self.take_chunk(at, most);
        if admitted {
            self.start(at);
            self.promised_blocks += self.promise(at);
        }
        admitted
    }

    fn fits(&self, at: usize) -> bool {
        self.places_left >= self.sequences[at].width && self.fits_whole(at)
    }

    /// Whether the sequence could be computed to its end and take its first steps of growth, with
    /// what others were promised left to them.
    fn fits_whole(&self, at: usize) -> bool {
        let sequence = &self.sequences[at];
        let context = sequence.blocks_needed(sequence.remaining_tokens(), self.limits.block_tokens);
        let wanted = context + sequence.width + self.limits.watermark_blocks;
        self.free_blocks >= i64::from(self.promised_blocks + wanted)
    }

    /// Whether nothing else would move if this one didn't, or this one comes before all.
    fn must_advance(&self, at: usize) -> bool {
        let nobody_runs = self.rows.iter().all(Option::is_none)
            && !self.sequences.iter().any(|s| s.standing == Standing::Running && !s.paused);
        nobody_runs || self.leads(at)
    }

    /// Plans the largest chunk that the step's room, the client's share and memory allow; the leader may preempt to get
    /// one block at least.
    fn take_chunk(&mut self, at: usize, most: u32) -> bool {
        let sequence = self.sequences[at];
        let wanted = sequence.remaining_tokens().min(most).min(self.shares.left(sequence.client));
        let tokens = self.whole_blocks(&sequence, self.fitting(&sequence, wanted));
        if tokens == 0 {
            return false;
        }
        if self.leads(at) && self.fit_to_memory(&sequence, tokens) == 0 {
            self.make_room(at, sequence.blocks_needed(1, self.limits.block_tokens));
        }
        let tokens = self.fit_to_memory(&self.sequences[at], tokens);
        let taken = tokens > 0 && self.take_row(at, tokens);
        if taken {
            self.shares.take(sequence.client, tokens);
        }
        taken
    }

    /// As many of a prompt's tokens as the step has room for: a block at least of the first prompt's, or prompts would
    /// wait for ever where one takes longer than rows have time.
    ///
    /// - `wanted`: no more than these.
    fn fitting(&self, sequence: &SequenceView, wanted: u32) -> u32 {
        let fitting = self.room.fitting(sequence, wanted);
        if self.room.has_chunk() {
            return fitting;
        }
        let block = self.limits.block_tokens;
        let least = block - sequence.filled_tokens % block;
        fitting.max(least.min(wanted).min(self.room.tokens_left()))
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

    fn adopt_prefix(&mut self, at: usize, hit: PrefixHit) {
        let sequence = &mut self.sequences[at];
        sequence.filled_tokens = hit.tokens;
        sequence.held_blocks = hit.tokens / self.limits.block_tokens;
        self.free_blocks -= i64::from(hit.blocks_taken);
    }

    /// Blocks that a prompt will take after this step's chunk.
    fn promise(&self, at: usize) -> u32 {
        let sequence = &self.sequences[at];
        let whole = sequence.blocks_needed(sequence.remaining_tokens(), self.limits.block_tokens);
        let taken = self.rows[at].map_or(0, |row| row.blocks);
        whole - taken + sequence.width
    }

    /// `tokens`, or fewer so that the chunk ends where a block ends, unless it ends the context.
    fn whole_blocks(&self, sequence: &SequenceView, tokens: u32) -> u32 {
        if tokens == sequence.remaining_tokens() {
            return tokens;
        }
        let end = sequence.filled_tokens + tokens;
        (end - end % self.limits.block_tokens).saturating_sub(sequence.filled_tokens)
    }

    /// `tokens`, or as many as held and free blocks have slots for.
    fn fit_to_memory(&self, sequence: &SequenceView, tokens: u32) -> u32 {
        let blocks = i64::from(sequence.held_blocks) + self.free_blocks.max(0);
        let slots = blocks * i64::from(self.limits.block_tokens);
        let fitting = (slots - i64::from(sequence.filled_tokens)).max(0);
        u32::try_from(fitting).map_or(tokens, |fitting| tokens.min(fitting))
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
