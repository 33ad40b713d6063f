//! What a router has placed and reports can't show yet.
//!
//! Between two reports a router may place hundreds of requests. Counting them itself keeps it from
//! sending all of them to the worker that looked idle last.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use words::WorkerId;

use super::{Assigned, ClusterSnapshot, Placement};

/// How long a request may be under way to a worker that hasn't answered: a report that comes sooner after the placement
/// may not count it yet. Several round trips within a data centre; counting one twice for that long
/// errs on the safe side.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// The same once the worker has answered that it has the request: until its task has begun.
const BEGINS: Duration = Duration::from_millis(5);

/// The placements of one router, each from its decision until a report shows it or it has ended.
///
/// Keep it beside the snapshot it is applied to. Each placement costs O(1), applying O(workers and placements since their
/// last reports).
#[derive(Debug, Default)]
pub struct Ledger {
    accounts: HashMap<WorkerId, Account>,
    next: u64,
}

/// One placement in a [`Ledger`], to be settled when its request ends.
#[derive(Debug)]
#[must_use = "settle it when the request ends"]
pub struct LedgerEntry {
    number: u64,
    workers: SmallVec<[WorkerId; 2]>,
}

/// What is under way to one worker.
#[derive(Debug, Default)]
struct Account {
    sum: Assigned,
    /// By number, which is also by time.
    lines: VecDeque<Line>,
}

#[derive(Debug)]
struct Line {
    number: u64,
    /// Reports that come from then on show it.
    shown_from: Instant,
    /// Zero once settled, or shown.
    work: Assigned,
}

// === impl Ledger ===

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a placement down.
    pub fn record(&mut self, placement: &Placement, now: Instant) -> LedgerEntry {
        let number = self.next;
        self.next += 1;
        for (worker, work) in &placement.work {
            let account = self.accounts.entry(worker.clone()).or_default();
            account.sum += *work;
            account.lines.push_back(Line { number, shown_from: now + UNDER_WAY, work: *work });
        }
        LedgerEntry {
            number,
            workers: placement.work.iter().map(|(worker, _)| worker.clone()).collect(),
        }
    }

    /// A worker has answered that it has the request: its next report shows it.
    pub fn taken(&mut self, entry: &LedgerEntry, worker: &WorkerId, now: Instant) {
        if let Some(account) = self.accounts.get_mut(worker) {
            account.taken(entry.number, now);
        }
    }

    /// Strikes a placement out: its request has ended, well or not.
    #[expect(clippy::needless_pass_by_value, reason = "an entry is settled once")]
    pub fn settle(&mut self, entry: LedgerEntry) {
        for worker in &entry.workers {
            let Some(account) = self.accounts.get_mut(worker) else { continue };
            account.settle(entry.number);
            if account.lines.is_empty() {
                self.accounts.remove(worker);
            }
        }
    }

    /// Sets every worker's [`super::WorkerView::assigned`], and forgets what its report shows.
    pub fn apply(&mut self, snapshot: &mut ClusterSnapshot) {
        for view in &mut snapshot.workers {
            let account = self.accounts.get_mut(&view.info.address.worker);
            view.assigned = account.map_or(Assigned::default(), |account| {
                if let Some(reported_at) = view.reported_at {
                    account.forget(reported_at);
                }
                account.sum
            });
        }
    }

    /// Whether reports show every request that hasn't ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.values().all(|account| account.lines.is_empty())
    }
}

// === impl Account ===

impl Account {
    fn taken(&mut self, number: u64, now: Instant) {
        if let Some(index) = self.index_of(number) {
            let line = &mut self.lines[index];
            line.shown_from = line.shown_from.min(now + BEGINS);
        }
    }

    fn settle(&mut self, number: u64) {
        if let Some(index) = self.index_of(number) {
            self.sum -= std::mem::take(&mut self.lines[index].work);
        }
        self.drop_empty();
    }

    /// Drops what a report of that time shows.
    fn forget(&mut self, reported_at: Instant) {
        for line in self.lines.iter_mut().filter(|line| line.shown_from <= reported_at) {
            self.sum -= std::mem::take(&mut line.work);
        }
        self.drop_empty();
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        self.lines.binary_search_by_key(&number, |line| line.number).ok()
    }

    fn drop_empty(&mut self) {
        while self.lines.front().is_some_and(|line| line.work == Assigned::default()) {
            self.lines.pop_front();
        }
    }
}
