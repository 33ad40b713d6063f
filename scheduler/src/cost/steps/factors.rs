//! Least squares, a step at a time: factors on the parts of a step's time.
//!
//! A factor begins at 1, which is what the seed says. Errors count by the share of the time that they make, so that short
//! and long steps weigh the same, and one that was held up weighs little. Old steps are forgotten; what does not occur any more
//! slowly comes back to the seed's factor, and what never occurs keeps it.

/// Parts of a step's time.
pub(super) const TERMS: usize = 20;

/// The parts, seconds.
pub(super) type Terms = [f64; TERMS];

/// What each step leaves of the evidence before it: some hundreds count.
const KEPT: f64 = 1.0 - 1.0 / 300.0;

/// How firmly a factor is held where it was: as by one step of which its part is so much of the time. A part that never
/// was more says nothing of shapes in which it is all.
const HOLD: f64 = 0.03;
/// The same after a surprise: the seed was of quite another machine.
const LOOSE_HOLD: f64 = 1e-3;

/// By how much what holds a factor comes nearer to the seed's with each step: half of the way in some hundreds. One that was
/// held up would else be believed for ever, since nothing that seems to take so long is planned again.
const RETURN: f64 = 1.0 / 500.0;

/// A step that took this many times its forecast, or its forecast as many times the step, is a surprise.
pub(super) const SURPRISE: f64 = 2.0;

/// Steps that took less than this of their forecast count as if they had taken so much: a clock that stood still is no step.
const LEAST: f64 = 0.5;

/// The factors, and the evidence for them: normal equations.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    factors: Terms,
    matrix: [Terms; TERMS],
    vector: Terms,
}

// === impl Factors ===

impl Factors {
    pub(super) fn new() -> Self {
        let (matrix, vector) = ([[0.0; TERMS]; TERMS], [0.0; TERMS]);
        Self { factors: [1.0; TERMS], matrix, vector }
    }

    /// What such a step takes, seconds.
    pub(super) fn predict(&self, terms: &Terms) -> f64 {
        self.factors.iter().zip(terms).map(|(factor, term)| factor * term).sum()
    }

    /// Learns from one that took `took_s`.
    pub(super) fn observe(&mut self, terms: &Terms, took_s: f64) {
        let forecast = self.predict(terms);
        let took_s = took_s.max(LEAST * forecast);
        let is_surprise = took_s > SURPRISE * forecast || forecast > SURPRISE * took_s;
        let shares = terms.map(|term| term / took_s);
        for at in 0..TERMS {
            for (value, share) in self.matrix[at].iter_mut().zip(&shares) {
                *value = *value * KEPT + shares[at] * share;
            }
            self.vector[at] = self.vector[at] * KEPT + shares[at];
        }
        self.solve(if is_surprise { LOOSE_HOLD } else { HOLD });
    }

    /// The factors that fit best, none below zero: those that would be are zero, and the others fit best beside them.
    fn solve(&mut self, hold: f64) {
        let mut free = [true; TERMS];
        for _ in 0..TERMS {
            let factors = self.fit(hold * hold, &free);
            let below = (0..TERMS).filter(|&at| free[at] && factors[at] < 0.0);
            let below: Vec<usize> = below.collect();
            if below.is_empty() {
                self.factors = factors;
                return;
            }
            below.into_iter().for_each(|at| free[at] = false);
        }
    }

    /// Solves the normal equations for the `free` factors, the others being zero: Cholesky, since what holds factors makes
    /// the matrix positive definite.
    fn fit(&self, hold: f64, free: &[bool; TERMS]) -> Terms {
        let mut lower = [[0.0; TERMS]; TERMS];
        let mut solution = [0.0; TERMS];
        let used = || (0..TERMS).filter(|&at| free[at]);
        for row in used() {
            for column in used().take_while(|&column| column <= row) {
                let known: f64 = (0..column).map(|k| lower[row][k] * lower[column][k]).sum();
                let held = if row == column { hold } else { 0.0 };
                let rest = self.matrix[row][column] + held - known;
                lower[row][column] = if row == column {
                    rest.max(hold).sqrt()
                } else {
                    rest / lower[column][column]
                };
            }
            let known: f64 = (0..row).map(|k| lower[row][k] * solution[k]).sum();
            let kept = self.factors[row] + RETURN * (1.0 - self.factors[row]);
            let wanted = self.vector[row] + hold * kept;
            solution[row] = (wanted - known) / lower[row][row];
        }
        for row in (0..TERMS).rev().filter(|&at| free[at]) {
            let known: f64 = (row + 1..TERMS).map(|k| lower[k][row] * solution[k]).sum();
            solution[row] = (solution[row] - known) / lower[row][row];
        }
        solution
    }
}
