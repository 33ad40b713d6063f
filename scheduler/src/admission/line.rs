//! The order in which requests enter a worker, and when there is room for the next.
//!
//! A worker has places (sequences that run at once) and KV blocks. A request enters with what it may need of
//! both, to its last token: what entered can then run to its end without pushing others out. Who holds least goes first,
//! and of those who waits for least, so clients share a worker equally however many requests each sends, and a small one
//! isn't held up by large ones; the requests of one client keep their order, and nobody is passed by more than it needs
//! itself, or a large one would never start.

use std::collections::{HashMap, HashSet, VecDeque};

use words::ClientId;

/// The part of the places by which a client with less than its share may overfill them, rather than wait for those
/// who hold more: as much again is then taken from them.
const OVERFILL_SHARE: u32 = 8;

/// What a request needs of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Sequences that run.
    pub places: u32,
    /// KV blocks, to its last token.
    pub blocks: u32,
}

/// Requests that wait for a worker, and those that are inside.
#[derive(Debug)]
pub struct Line {
    room: Need,
    /// The room for a client with less than its share.
    overfilled: Need,
    waiting_max: usize,
    inside: Need,
    holders: HashMap<ClientId, Need>,
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
}

/// As much waits already as may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineFull;

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ticket: u64,
    client: ClientId,
    need: Need,
    /// What has entered before it that came after it, as a share of the room.
    passed: f64,
}

// === impl Need ===

impl Need {
    fn add(&mut self, more: Self) {
        self.places += more.places;
        self.blocks += more.blocks;
    }

    fn sub(&mut self, less: Self) {
        self.places -= less.places;
        self.blocks -= less.blocks;
    }

    fn plus(mut self, more: Self) -> Self {
        self.add(more);
        self
    }

    fn fits(self, room: Self) -> bool {
        self.places <= room.places && self.blocks <= room.blocks
    }

    /// The larger of both parts of `room`.
    fn share_of(self, room: Self) -> f64 {
        let part = |need: u32, all: u32| f64::from(need) / f64::from(all.max(1));
        part(self.places, room.places).max(part(self.blocks, room.blocks))
    }

    /// What is left of it when `share` of it, at most 1, doesn't count.
    fn without(self, share: f64) -> Self {
        let rest = |all: u32| (f64::from(all) * (1.0 - share)).ceil() as u32;
        Self { places: rest(self.places), blocks: rest(self.blocks) }
    }
}

// === impl Line ===

impl Line {
    /// Nobody there.
    #[must_use]
    pub fn new(room: Need, waiting_max: usize) -> Self {
        let spare_places = room.places.div_ceil(OVERFILL_SHARE);
        Self {
            room,
            overfilled: Need { places: room.places + spare_places, ..room },
            waiting_max,
            inside: Need::default(),
            holders: HashMap::new(),
            waiting: VecDeque::new(),
            next_ticket: 0,
        }
    }

    /// The same, where a client with less than its share may also take so many blocks more.
    #[must_use]
    pub fn with_spare_blocks(mut self, blocks: u32) -> Self {
        self.overfilled.blocks += blocks;
        self
    }

    /// Waits behind the others of its client. Half of the line at most is one client's.
    ///
    /// # Errors
    /// [`LineFull`] if no more may wait.
    pub fn join(&mut self, client: ClientId, need: Need) -> Result<u64, LineFull> {
        let own = self.waiting.iter().filter(|waiting| waiting.client == client).count();
        let is_full = self.waiting.len() >= self.waiting_max;
        if is_full || own >= self.waiting_max.div_ceil(2) {
            return Err(LineFull);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting.push_back(Waiting { ticket, client, need, passed: 0.0 });
        Ok(ticket)
    }

    /// Gives up waiting; whether it was still in line.
    pub fn leave(&mut self, ticket: u64) -> bool {
        let at = self.waiting.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok();
        at.and_then(|at| self.waiting.remove(at)).is_some()
    }

    /// Lets the next in, if there is room.
    ///
    /// - `dormant`: the share of what is inside whose readers have stalled. It gives way when others need it.
    pub fn enter(&mut self, dormant: f64) -> Option<u64> {
        let next = *self.first()?;
        if !self.has_room(&next, dormant) {
            return None;
        }
        let entering = next.need.share_of(self.room);
        let before = self.waiting.iter_mut().take_while(|waiting| waiting.ticket < next.ticket);
        before.for_each(|waiting| waiting.passed += entering);
        self.leave(next.ticket);
        self.inside.add(next.need);
        self.holders.entry(next.client).or_default().add(next.need);
        Some(next.ticket)
    }

    /// A request that had entered has ended.
    pub fn end(&mut self, client: ClientId, need: Need) {
        self.inside.sub(need);
        let Some(held) = self.holders.get_mut(&client) else { return };
        held.sub(need);
        if *held == Need::default() {
            self.holders.remove(&client);
        }
    }

    /// Requests in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// What those inside may need, to their ends.
    #[must_use]
    pub fn inside(&self) -> Need {
        self.inside
    }

    /// What those in line will need.
    #[must_use]
    pub fn wanted(&self) -> Need {
        self.waiting.iter().fold(Need::default(), |sum, waiting| sum.plus(waiting.need))
    }

    /// The share of what is inside that has to end before the next request of `client` gets in; above 1 where more has
    /// to end than is inside now.
    ///
    /// - `dormant`: as for [`Line::enter`].
    #[must_use]
    pub fn must_end(&self, client: ClientId, need: Need, dormant: f64) -> f64 {
        let active = self.inside.without(dormant);
        let asked = Waiting { ticket: self.next_ticket, client, need, passed: 0.0 };
        let ahead = self.ahead(client);
        if ahead == Need::default() && self.has_room(&asked, dormant) {
            return 0.0;
        }
        let all = active.plus(ahead).plus(need);
        let part = |all: u32, room: u32, active: u32| {
            f64::from(all.saturating_sub(room)) / f64::from(active.max(1))
        };
        let places = part(all.places, self.room.places, active.places);
        let blocks = part(all.blocks, self.room.blocks, active.blocks);
        places.max(blocks)
    }

    /// What enters before the next request of `client`, when all clients take turns.
    fn ahead(&self, client: ClientId) -> Need {
        let own = self.waiting.iter().filter(|waiting| waiting.client == client).count();
        let mut turns: HashMap<ClientId, usize> = HashMap::new();
        let mut sum = Need::default();
        for waiting in &self.waiting {
            let turn = turns.entry(waiting.client).or_default();
            *turn += 1;
            // Among those who hold as much, the others are in line already.
            let more = usize::from(self.held(waiting.client) <= self.held(client));
            if waiting.client == client || *turn <= own + more {
                sum.add(waiting.need);
            }
        }
        sum
    }

    /// Of each client's first in line, the one whose client holds least, and among equals the one whose client waits
    /// for least; the longest in line where that is equal, too. Among equals nobody is passed by more than it needs.
    fn first(&self) -> Option<&Waiting> {
        let mut seen = HashSet::new();
        let firsts: Vec<&Waiting> =
            self.waiting.iter().filter(|waiting| seen.insert(waiting.client)).collect();
        let held = firsts.iter().map(|of| self.held(of.client)).min_by(f64::total_cmp)?;
        let mut equals = firsts.into_iter().filter(|of| self.held(of.client) <= held);
        let first = equals.next()?;
        if first.passed > 0.0 && first.passed >= first.need.share_of(self.room) {
            return Some(first);
        }
        let wanted = self.wanted_by_client();
        // The first of equals is returned, and they come in order.
        std::iter::once(first)
            .chain(equals)
            .min_by(|one, other| wanted[&one.client].total_cmp(&wanted[&other.client]))
    }

    fn wanted_by_client(&self) -> HashMap<ClientId, f64> {
        let mut wanted: HashMap<ClientId, f64> = HashMap::new();
        for waiting in &self.waiting {
            *wanted.entry(waiting.client).or_default() += waiting.need.share_of(self.room);
        }
        wanted
    }

    fn held(&self, client: ClientId) -> f64 {
        self.holders.get(&client).map_or(0.0, |held| held.share_of(self.room))
    }

    fn has_room(&self, next: &Waiting, dormant: f64) -> bool {
        let active = self.inside.without(dormant);
        // Alone, even one that is larger than the room gets in: it would otherwise wait for ever.
        if active == Need::default() || active.plus(next.need).fits(self.room) {
            return true;
        }
        let most = self.holders.values().map(|held| held.share_of(self.room)).fold(0.0, f64::max);
        let after = self.held(next.client) + next.need.share_of(self.room);
        after < most && active.plus(next.need).fits(self.overfilled)
    }
}

#[cfg(test)]
mod tests;
