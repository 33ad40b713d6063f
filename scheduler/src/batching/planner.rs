//! The state of one plan while it is made.

use words::ClientId;

use super::{BatchLimits, Plan, PlannedRow, PrefixHit, SequenceKey, SequenceView, Standing};
use crate::Backlog;
use crate::backlog::{Eldest, Shares};

/// A plan in the making: what is left to give, and what each sequence got.
pub(super) struct Planner<'a> {
    limits: &'a BatchLimits,
    sequences: Vec<SequenceView>,
    rows: Vec<PlannedRow>,
    preempted: Vec<SequenceKey>,
    parked: Vec<SequenceKey>,
    tokens_left: u32,
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
        sequences: &[SequenceView],
        available_blocks: u32,
    ) -> Self {
        let running_width: u32 =
            sequences.iter().filter(|s| s.standing == Standing::Running).map(|s| s.width).sum();
        let places_left = limits.sequences_max.saturating_sub(running_width);
        Self {
            limits,
            sequences: sequences.to_vec(),
            rows: Vec::new(),
            preempted: Vec::new(),
            parked: Vec::new(),
            tokens_left: limits.tokens_max,
            shares: Shares::none(),
            places_left,
            free_blocks: i64::from(available_blocks),
            promised_blocks: 0,
            leader: leader(sequences, places_left),
        }
    }

    pub(super) fn into_plan(self) -> Plan {
        Plan { preempted: self.preempted, parked: self.parked, rows: self.rows }
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

    /// Those that wait, in the order in which they may run: clients take turns, who runs least first; each in the order
    /// of arrival.
    fn waiting_in_turn(&self) -> Vec<usize> {
        let waits = |&at: &usize| self.is_ready(&self.sequences[at], Standing::Waiting);
        let waiting: Vec<usize> = (0..self.sequences.len()).filter(waits).collect();
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
        let mut turns: Vec<(bool, u32, usize)> =
            waiting.iter().map(|&at| (!self.leads(at), turn(at), at)).collect();
        turns.sort_unstable();
        turns.into_iter().map(|(_, _, at)| at).collect()
    }

    fn park(&mut self, at: usize) {
        let sequence = &mut self.sequences[at];
        sequence.standing = Standing::Waiting;
        self.places_left += sequence.width;
        self.parked.push(sequence.key);
    }

    /// One row for each running sequence whose prompt is computed.
    ///
    /// One that finds no block and nobody younger to preempt stays as it is for this step: those
    /// before it go on, and take its blocks when they need them.
    pub(super) fn decode_rows(&mut self) {
        for at in 0..self.sequences.len() {
            let sequence = self.sequences[at];
            if self.is_ready(&sequence, Standing::Running) && sequence.remaining_tokens() == 1 {
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

    /// Gives prompts the rest of the step: those that run first, then those that wait.
    pub(super) fn prompts(&mut self, probe: &mut dyn FnMut(SequenceKey) -> PrefixHit) {
        self.shares = self.shares_of_prompts();
        self.prefill_chunks();
        let all_fit = self.admit_prompts(probe);
        // Not all took their shares: some of it was cached, or found no place.
        if self.shares.lift() {
            self.lengthen_chunks();
            if all_fit {
                self.admit_prompts(probe);
            }
        }
    }

    fn shares_of_prompts(&self) -> Shares {
        let mut wanted = Backlog::default();
        let mut eldest = None;
        for (at, sequence) in self.sequences.iter().enumerate() {
            if !self.is_prompt(sequence) {
                continue;
            }
            let (client, tokens) = (sequence.client, sequence.remaining_tokens());
            wanted.add(client, tokens.into());
            if eldest.is_none() && (self.leads(at) || sequence.standing == Standing::Running) {
                eldest = Some(Eldest { client, tokens });
            }
        }
        Shares::of(&wanted, self.tokens_left, self.limits.block_tokens, eldest)
    }

    /// Whether what it needs next are tokens of a prompt.
    fn is_prompt(&self, sequence: &SequenceView) -> bool {
        match sequence.standing {
            Standing::Running => {
                self.is_ready(sequence, Standing::Running) && sequence.remaining_tokens() > 1
            }
            Standing::Waiting => {
                self.is_ready(sequence, Standing::Waiting) && sequence.filled_tokens == 0
            }
        }
    }

    /// The next chunk of each running prompt.
    fn prefill_chunks(&mut self) {
        for at in 0..self.sequences.len() {
            let sequence = self.sequences[at];
            if sequence.standing == Standing::Running && self.is_prompt(&sequence) {
                self.take_chunk(at);
                self.promise_rest(at);
            }
        }
    }

    /// Lets waiting prompts run, until the first that doesn't fit; whether all fitted that have a share.
    fn admit_prompts(&mut self, probe: &mut dyn FnMut(SequenceKey) -> PrefixHit) -> bool {
        for at in self.waiting_in_turn() {
            let sequence = self.sequences[at];
            if sequence.filled_tokens > 0 || !self.has_share(&sequence) {
                continue;
            }
            let has_room = self.places_left >= sequence.width && self.tokens_left > 0;
            if !has_room || !self.admit_prompt(at, probe(sequence.key)) {
                return false;
            }
        }
        true
    }

    /// Whether the client's share is enough for a chunk.
    fn has_share(&self, sequence: &SequenceView) -> bool {
        self.shares.left(sequence.client)
            >= sequence.remaining_tokens().min(self.limits.block_tokens)
    }

    /// Gives prompts that run in this step what is left of it, the oldest first.
    fn lengthen_chunks(&mut self) {
        for at in 0..self.sequences.len() {
            let sequence = self.sequences[at];
            let Some(row) = self.row_of(sequence.key).copied() else { continue };
            let rest = sequence.remaining_tokens() - row.tokens;
            if rest > 0 && self.tokens_left >= rest.min(self.limits.block_tokens) {
                self.take_back(row);
                self.take_chunk(at);
                let taken = self.row_of(sequence.key).map_or(0, |row| row.blocks);
                self.promised_blocks = (self.promised_blocks + row.blocks).saturating_sub(taken);
            }
        }
    }

    fn admit_prompt(&mut self, at: usize, hit: PrefixHit) -> bool {
        self.adopt_prefix(at, hit);
        let admitted = (self.fits_whole(at) || self.must_advance(at)) && self.take_chunk(at);
        if admitted {
            self.start(at);
            self.promise_rest(at);
        }
        admitted
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
        let nobody_runs = self.rows.is_empty()
            && !self.sequences.iter().any(|s| s.standing == Standing::Running && !s.paused);
        nobody_runs || self.leads(at)
    }

    /// Plans the largest chunk that budget and memory allow; the leader may preempt to get one block
    /// at least.
    fn take_chunk(&mut self, at: usize) -> bool {
        let sequence = self.sequences[at];
        let tokens_max = self.tokens_left.min(self.shares.left(sequence.client));
        let tokens = self.whole_blocks(&sequence, sequence.remaining_tokens().min(tokens_max));
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

    /// Plans `tokens` tokens of a sequence, preempting younger ones for the blocks where it already
    /// runs. Says whether it did.
    fn take_row(&mut self, at: usize, tokens: u32) -> bool {
        let sequence = self.sequences[at];
        let blocks = sequence.blocks_needed(tokens, self.limits.block_tokens);
        let may_preempt = sequence.standing == Standing::Running || self.leads(at);
        if tokens > self.tokens_left {
            return false;
        }
        let fits = blocks == 0 || i64::from(blocks) <= self.free_blocks;
        let has_blocks = fits || (may_preempt && self.make_room(at, blocks));
        if !has_blocks {
            return false;
        }
        self.free_blocks -= i64::from(blocks);
        self.tokens_left -= tokens;
        self.rows.push(PlannedRow { key: sequence.key, tokens, blocks });
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
        sequence.held_blocks > 0 || self.row_of(sequence.key).is_some_and(|row| row.blocks > 0)
    }

    fn preempt(&mut self, at: usize) {
        let sequence = self.sequences[at];
        if let Some(row) = self.row_of(sequence.key).copied() {
            self.take_back(row);
        }
        if sequence.standing == Standing::Running {
            self.places_left += sequence.width;
        }
        // Shared blocks don't come free, so this may promise too much; the row is then left for the
        // next step, which preempts further.
        self.free_blocks += i64::from(sequence.held_blocks);
        self.preempted.push(sequence.key);
        let view = &mut self.sequences[at];
        (view.held_blocks, view.filled_tokens, view.standing) = (0, 0, Standing::Waiting);
    }

    fn take_back(&mut self, row: PlannedRow) {
        self.rows.retain(|other| other.key != row.key);
        self.free_blocks += i64::from(row.blocks);
        self.tokens_left += row.tokens;
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

    /// Counts what the sequence will need after this step's chunk.
    fn promise_rest(&mut self, at: usize) {
        let sequence = &self.sequences[at];
        if self.preempted.contains(&sequence.key) {
            return;
        }
        let whole = sequence.blocks_needed(sequence.remaining_tokens(), self.limits.block_tokens);
        let taken = self.row_of(sequence.key).map_or(0, |row| row.blocks);
        self.promised_blocks += whole - taken + sequence.width;
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

    fn is_ready(&self, sequence: &SequenceView, standing: Standing) -> bool {
        let left = |keys: &[SequenceKey]| keys.contains(&sequence.key);
        let stays = !left(&self.preempted) && !left(&self.parked);
        sequence.standing == standing && !sequence.paused && stays
    }

    fn leads(&self, at: usize) -> bool {
        self.leader == Some(self.sequences[at].key)
    }

    fn row_of(&self, key: SequenceKey) -> Option<&PlannedRow> {
        self.rows.iter().find(|row| row.key == key)
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
