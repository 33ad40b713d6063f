//! Orders of eviction as they are published, and the one that knows the future.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::Order;

/// Least recently used.
pub(crate) struct Lru {
    room: usize,
    clock: u64,
    used: HashMap<u64, u64>,
    order: BTreeMap<u64, u64>,
}

/// Yang et al., *FIFO queues are all you need for cache eviction* (SOSP 2023): a small queue for what is new, a main one, and the names of
/// what went.
pub(crate) struct S3Fifo {
    room: usize,
    small: VecDeque<u64>,
    main: VecDeque<u64>,
    uses: HashMap<u64, u8>,
    ghosts: VecDeque<u64>,
    ghost_names: HashSet<u64>,
}

/// Zhang et al., *SIEVE is simpler than LRU* (NSDI 2024): a queue, and a hand that goes over it from the oldest.
pub(crate) struct Sieve {
    room: usize,
    /// By when it came.
    queue: BTreeMap<u64, u64>,
    /// When it came, and whether it was used since the hand went over it.
    entries: HashMap<u64, (u64, bool)>,
    hand: u64,
    clock: u64,
}

/// Evicts what is used again last of all.
pub(crate) struct Belady {
    room: usize,
    /// Of each block of each prompt, the next prompt that has it.
    next: Vec<Vec<usize>>,
    at: usize,
    entries: HashMap<u64, usize>,
    /// By next use and depth: of a prompt's blocks the last goes first.
    order: BTreeSet<(usize, usize, u64)>,
    depths: HashMap<u64, usize>,
}

// === impl Lru ===

impl Lru {
    pub(crate) fn new(room: usize) -> Self {
        Self { room, clock: 0, used: HashMap::new(), order: BTreeMap::new() }
    }
}

impl Order for Lru {
    fn has(&self, block: u64) -> bool {
        self.used.contains_key(&block)
    }

    fn put(&mut self, prompt: &[u64]) {
        for &block in prompt.iter().rev() {
            self.clock += 1;
            if let Some(before) = self.used.insert(block, self.clock) {
                self.order.remove(&before);
            }
            self.order.insert(self.clock, block);
        }
        while self.used.len() > self.room {
            let (_, block) = self.order.pop_first().expect("one for each");
            self.used.remove(&block);
        }
    }
}

// === impl S3Fifo ===

impl S3Fifo {
    pub(crate) fn new(room: usize) -> Self {
        let (small, main, uses, ghosts, ghost_names) = Default::default();
        Self { room, small, main, uses, ghosts, ghost_names }
    }

    fn evict(&mut self) {
        while self.uses.len() >= self.room {
            if self.small.len() * 10 >= self.room || self.main.is_empty() {
                self.evict_small();
            } else {
                self.evict_main();
            }
        }
    }

    fn evict_small(&mut self) {
        let Some(block) = self.small.pop_front() else { return };
        if self.uses[&block] > 0 {
            self.uses.insert(block, 0);
            self.main.push_back(block);
            return;
        }
        self.uses.remove(&block);
        self.ghosts.push_back(block);
        self.ghost_names.insert(block);
        if self.ghosts.len() > self.room
            && let Some(oldest) = self.ghosts.pop_front()
        {
            self.ghost_names.remove(&oldest);
        }
    }

    fn evict_main(&mut self) {
        let Some(block) = self.main.pop_front() else { return };
        match self.uses[&block] {
            0 => drop(self.uses.remove(&block)),
            uses => {
                self.uses.insert(block, uses - 1);
                self.main.push_back(block);
            }
        }
    }
}

impl Order for S3Fifo {
    fn has(&self, block: u64) -> bool {
        self.uses.contains_key(&block)
    }

    fn put(&mut self, prompt: &[u64]) {
        for &block in prompt.iter().rev() {
            if let Some(uses) = self.uses.get_mut(&block) {
                *uses = (*uses + 1).min(3);
                continue;
            }
            self.evict();
            self.uses.insert(block, 0);
            let is_back = self.ghost_names.remove(&block);
            if is_back {
                self.ghosts.retain(|ghost| *ghost != block);
            }
            if is_back { &mut self.main } else { &mut self.small }.push_back(block);
        }
    }
}

// === impl Sieve ===

impl Sieve {
    pub(crate) fn new(room: usize) -> Self {
        let (queue, entries) = Default::default();
        Self { room, queue, entries, hand: 0, clock: 0 }
    }

    fn evict(&mut self) {
        loop {
            let at = self.queue.range(self.hand..).next().or_else(|| self.queue.iter().next());
            let Some((&came, &block)) = at else { return };
            self.hand = came + 1;
            let entry = self.entries.get_mut(&block).expect("one for each");
            if !std::mem::take(&mut entry.1) {
                self.queue.remove(&came);
                self.entries.remove(&block);
                return;
            }
        }
    }
}

impl Order for Sieve {
    fn has(&self, block: u64) -> bool {
        self.entries.contains_key(&block)
    }

    fn put(&mut self, prompt: &[u64]) {
        for &block in prompt.iter().rev() {
            if let Some(entry) = self.entries.get_mut(&block) {
                entry.1 = true;
                continue;
            }
            if self.entries.len() >= self.room {
                self.evict();
            }
            self.clock += 1;
            self.queue.insert(self.clock, block);
            self.entries.insert(block, (self.clock, false));
        }
    }
}

// === impl Belady ===

impl Belady {
    pub(crate) fn new(room: usize, prompts: &[Vec<u64>]) -> Self {
        let mut seen = HashMap::new();
        let mut next: Vec<Vec<usize>> = prompts
            .iter()
            .enumerate()
            .rev()
            .map(|(at, prompt)| {
                let next =
                    prompt.iter().map(|block| *seen.get(block).unwrap_or(&usize::MAX)).collect();
                seen.extend(prompt.iter().map(|block| (*block, at)));
                next
            })
            .collect();
        next.reverse();
        let (entries, order, depths) = Default::default();
        Self { room, next, at: 0, entries, order, depths }
    }
}

impl Order for Belady {
    fn has(&self, block: u64) -> bool {
        self.entries.contains_key(&block)
    }

    fn put(&mut self, prompt: &[u64]) {
        for (depth, (&block, &next)) in prompt.iter().zip(&self.next[self.at]).enumerate() {
            if let Some(before) = self.entries.insert(block, next) {
                self.order.remove(&(before, self.depths[&block], block));
            }
            self.depths.insert(block, depth);
            self.order.insert((next, depth, block));
        }
        self.at += 1;
        while self.entries.len() > self.room {
            let (_, _, block) = self.order.pop_last().expect("one for each");
            self.entries.remove(&block);
        }
    }
}
