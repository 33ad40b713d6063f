//! What is left of a step goes to prompts.

use std::cmp::Reverse;

use super::{Planner, Probe};
use crate::Backlog;
use crate::backlog::{Owed, Shares};
use crate::batching::order::{Candidate, Order};
use crate::batching::{PrefixHit, SequenceView, Standing};

/// The part of a step's prompt tokens that is the oldest prompt's.
const ELDEST_SHARE: u32 = 2;
/// The same where that prompt is late already and others can be in time: it moves, and takes little from them.
const LATE_SHARE: u32 = 8;

impl Planner<'_> {
    /// Gives prompts the rest of the step.
    pub(in crate::batching) fn prompts(&mut self, probe: Probe<'_>) {
        self.room.close(self.rows_due_s());
        let prompts: Vec<usize> =
            (0..self.sequences.len()).filter(|&at| self.is_prompt(at)).collect();
        let Some(&first) = prompts.first() else { return };
        let tokens = self.fitting(&self.sequences[first], self.room.tokens_left());
        self.promise_running(&prompts);
        self.find_stuck(&prompts);
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
        self.leave_overhang(&prompts);
    }

    /// How much time the rows in the step have.
    fn rows_due_s(&self) -> Option<f64> {
        let due = |at: &usize| self.sequences[*at].due.next().filter(|_| self.rows[*at].is_some());
        self.given.iter().filter_map(due).min().map(|due| due.as_secs_f64())
    }

    /// Finds the order of prompts; returns those that are late whatever happens. Streams that were preempted, or come from
    /// a worker that was lost, go first: their readers wait in the middle of an answer.
    ///
    /// - `tokens`: of prompts in a step.
    fn rank(&mut self, prompts: &[usize], tokens: u32) -> Vec<usize> {
        let candidate = |&at: &usize| {
            let sequence = &self.sequences[at];
            let due_s = sequence.due.first().map(|due| due.as_secs_f64());
            Candidate { at, tokens: sequence.remaining_tokens(), due_s }
        };
        let streams = |at: &&usize| self.sequences[**at].due.is_streaming();
        let (streaming, new): (Vec<usize>, Vec<usize>) = prompts.iter().partition(streams);
        let candidates: Vec<Candidate> = new.iter().map(candidate).collect();
        let s_per_token = self.room.s_per_token(&self.sequences[prompts[0]], tokens);
        let Order { order, late } = Order::of(&candidates, s_per_token);
        let all = streaming.into_iter().chain(order);
        all.enumerate().for_each(|(rank, at)| self.ranks[at] = rank);
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
    pub(super) fn could_begin(&self, at: usize) -> bool {
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
    pub(super) fn is_prompt(&self, at: usize) -> bool {
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

    /// Finds each client's oldest prompt that waits for places or memory.
    fn find_stuck(&mut self, prompts: &[usize]) {
        for &at in prompts {
            let SequenceView { client, standing, .. } = self.sequences[at];
            if standing == Standing::Waiting && !self.fits(at) {
                self.stuck.entry(client).or_insert(at);
            }
        }
    }

    /// Whether it would take what an older prompt of the same client waits for.
    fn passes_older(&self, at: usize) -> bool {
        self.stuck.get(&self.sequences[at].client).is_some_and(|&older| older < at)
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
        if rest == 0 || self.room.tokens_left() == 0 {
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

    /// Plans the largest chunk that the step's room, the client's share and memory allow, but none for less than a block's
    /// tokens unless they are the last; the leader may preempt to get one block at least.
    fn take_chunk(&mut self, at: usize, most: u32) -> bool {
        let sequence = self.sequences[at];
        let wanted = sequence.remaining_tokens().min(most).min(self.shares.left(sequence.client));
        let tokens = self.fitting(&sequence, wanted);
        if tokens == 0 || tokens < self.limits.block_tokens.min(sequence.remaining_tokens()) {
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

    /// As many of a prompt's tokens as the step has room for: a block's at least of the first prompt, or prompts would
    /// wait for ever where one takes longer than rows have time.
    ///
    /// - `wanted`: no more than these.
    fn fitting(&self, sequence: &SequenceView, wanted: u32) -> u32 {
        let fitting = self.room.fitting(sequence, wanted);
        if self.room.has_chunk() {
            return fitting;
        }
        let least = self.limits.block_tokens;
        fitting.max(least.min(wanted).min(self.room.tokens_left()))
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

    /// `tokens`, or as many as held and free blocks have slots for.
    fn fit_to_memory(&self, sequence: &SequenceView, tokens: u32) -> u32 {
        let blocks = i64::from(sequence.held_blocks) + self.free_blocks.max(0);
        let slots = blocks * i64::from(self.limits.block_tokens);
        let fitting = (slots - i64::from(sequence.filled_tokens)).max(0);
        u32::try_from(fitting).map_or(tokens, |fitting| tokens.min(fitting))
    }
}
