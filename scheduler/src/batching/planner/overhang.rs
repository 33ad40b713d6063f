//! Rows that begin a tile of the products for little are left for the next step.

use super::Planner;
use crate::batching::PlannedRow;

impl Planner<'_> {
    /// Shortens a prompt's chunk by the rows of the last tile where those are too dear.
    ///
    /// - `prompts`: all that there are.
    pub(super) fn leave_overhang(&mut self, prompts: &[usize]) {
        let overhang = self.room.overhang();
        if overhang == 0 {
            return;
        }
        let may = |at: &usize| self.may_leave(*at, overhang, prompts);
        let last = self.given.iter().rev().copied();
        // Best of one that doesn't end with this step: nobody's first token waits for it.
        let at = last.min_by_key(|&at| (!may(&at), self.ends(at)));
        let Some((at, row)) = at.filter(may).zip(at.and_then(|at| self.rows[at])) else { return };
        self.take_back(at);
        self.take_row(at, row.tokens - overhang);
    }

    /// Whether a chunk may be so many rows shorter: who ends with the step is in time with the next one, too, and if no other
    /// prompt fills that, they are cheap there.
    fn may_leave(&self, at: usize, overhang: u32, prompts: &[usize]) -> bool {
        let Some(row) = self.rows[at].filter(|row| row.tokens > overhang) else { return false };
        let sequence = &self.sequences[at];
        let due = sequence.due.next().or(sequence.due.first());
        let is_due = due.is_some_and(|due| due.as_secs_f64() < 2.0 * self.room.taken_s());
        let cheaper = || self.room.is_cheaper_later(sequence, row, overhang);
        !(self.ends(at) && is_due) && (self.is_more(prompts) || cheaper())
    }

    /// Whether its context is computed after this step.
    fn ends(&self, at: usize) -> bool {
        let tokens = self.rows[at].map_or(0, |PlannedRow { tokens, .. }| tokens);
        tokens == self.sequences[at].remaining_tokens()
    }

    /// Whether the next step will have tokens of prompts in any case.
    fn is_more(&self, prompts: &[usize]) -> bool {
        let goes_on = |at: usize| self.rows[at].is_some() && !self.ends(at);
        let begins = |at: usize| self.is_prompt(at) && self.could_begin(at);
        prompts.iter().any(|&at| goes_on(at) || self.rows[at].is_none() && begins(at))
    }
}
