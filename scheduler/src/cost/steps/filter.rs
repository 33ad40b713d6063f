//! Least squares, a step at a time: a Kalman filter whose state are factors on the parts of a step's time.
//!
//! A factor begins at 1, which is what the seed says. Errors count by the share of the time that they make, so that short
//! and long steps weigh the same; what never occurs keeps the seed's proportion to what does.

/// Parts of a step's time.
pub(super) const TERMS: usize = 13;

/// The parts, seconds.
pub(super) type Terms = [f64; TERMS];

/// Deviation of a step's time from what its shape says, as a share of it.
const NOISE: f64 = 0.03;

/// Doubt about each factor by itself, and about all of them together, before anything was seen.
const DOUBT: f64 = 0.7;
const DOUBT_TOGETHER: f64 = 0.5;

/// By how much of the doubt of the beginning each step brings doubt back: machines become warm, clocks change.
const DRIFT: f64 = 2e-5;

/// Deviations beyond which a step is a surprise to who is sure: taken for a mishap, it counts as much as one at this limit.
const SURPRISE: f64 = 3.0;

/// But it brings doubt: the next one is believed, whatever it is.
const SURPRISE_DOUBT: f64 = 16.0;
/// Doubt at most, of that of the beginning: what steps may be slower than a seed that was of another machine.
const DOUBT_MAX: f64 = 1e6;

/// The factors, and how sure they are.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    factors: [f64; TERMS],
    covariance: [[f64; TERMS]; TERMS],
}

// === impl Filter ===

impl Filter {
    pub(super) fn new() -> Self {
        let mut covariance = [[DOUBT_TOGETHER * DOUBT_TOGETHER; TERMS]; TERMS];
        (0..TERMS).for_each(|at| covariance[at][at] += DOUBT * DOUBT);
        Self { factors: [1.0; TERMS], covariance }
    }

    /// What such a step takes, seconds.
    pub(super) fn predict(&self, terms: &Terms) -> f64 {
        dot(&self.factors, terms)
    }

    /// Learns from one that took `took_s`.
    pub(super) fn observe(&mut self, terms: &Terms, took_s: f64) {
        let forecast = self.predict(terms);
        let noise = (NOISE * forecast.min(took_s)).powi(2);
        let towards = self.covariance.map(|row| dot(&row, terms));
        let doubt = dot(&towards, terms);
        let variance = doubt + noise;
        let limit = if doubt < noise { SURPRISE * variance.sqrt() } else { f64::INFINITY };
        let off = (took_s - forecast).clamp(-limit, limit);
        for at in 0..TERMS {
            let gain = towards[at] / variance;
            self.factors[at] = (self.factors[at] + gain * off).max(0.0);
            for (value, other) in self.covariance[at].iter_mut().zip(&towards) {
                *value -= gain * other;
            }
        }
        self.drift();
        if (took_s - forecast).abs() > limit {
            self.doubt();
        }
    }

    fn doubt(&mut self) {
        let most = (0..TERMS).map(|at| self.covariance[at][at]).fold(0.0, f64::max);
        if most < DOUBT_MAX {
            self.covariance.as_flattened_mut().iter_mut().for_each(|it| *it *= SURPRISE_DOUBT);
        }
    }

    fn drift(&mut self) {
        let most = DOUBT * DOUBT;
        for at in 0..TERMS {
            let variance = &mut self.covariance[at][at];
            // Rounding takes away more than there is, now and then.
            *variance = variance.max(0.0) + if *variance < most { DRIFT * most } else { 0.0 };
        }
    }
}

fn dot(one: &Terms, other: &Terms) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}
