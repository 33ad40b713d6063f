//! Places: who waits for one, and who gives one up.

use words::ClientId;

use super::Planner;
use crate::batching::Standing;

impl Planner<'_> {
    /// Takes places and blocks from sequences whose readers have stalled, and places from clients that have more
    /// than a share, for the first that waits.
    pub(in crate::batching) fn give_way(&mut self) {
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
    pub(super) fn waiting_in_turn(&self) -> Vec<usize> {
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
}
