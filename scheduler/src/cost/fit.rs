//! Running estimates of a number and of a line, newer evidence weighing more.

/// Observations that an estimate remembers: at a few reports a second, the last seconds.
const MEMORY: f64 = 10.0;

/// What is left of the evidence after a report that brings none: half after 35 of them.
const AGED: f64 = 0.98;

/// How far a least value moves towards each one that is seen after it: halfway in some minutes of reports.
const CREEP: f64 = 2e-4;

/// A running mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct MeanFit {
    weight: f64,
    mean: f64,
}

/// The least that was seen, which is forgotten slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LeastFit(Option<f64>);

/// A line as it is assumed before there is evidence, and how firmly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AssumedLine {
    /// The value at 0.
    pub(super) at_zero: f64,
    /// Growth per unit.
    pub(super) per_unit: f64,
    /// The variance of the observed positions, in squared units, from which on the evidence about
    /// the slope weighs more than this line's own.
    pub(super) doubt: f64,
    /// Whether it is steeper where higher values were seen: with a slow worker, and not with one that was held up.
    pub(super) scales: bool,
}

/// A running line through observed points: least squares, drawn towards an assumed slope.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct LineFit {
    at: MeanFit,
    value: MeanFit,
    variance: f64,
    covariance: f64,
}

// === impl MeanFit ===

impl MeanFit {
    /// Adds one observation.
    pub(super) fn observe(&mut self, value: f64) {
        self.weight = (self.weight + 1.0).min(MEMORY);
        self.mean += (value - self.mean) / self.weight;
    }

    /// Lets the evidence fade.
    pub(super) fn age(&mut self) {
        self.weight *= AGED;
    }

    /// Adds another estimate's evidence to this one's.
    pub(super) fn merge(&mut self, other: &Self) {
        let weight = self.weight + other.weight;
        if weight > 0.0 {
            self.mean += (other.mean - self.mean) * other.weight / weight;
            self.weight = weight;
        }
    }

    /// The mean, or `prior` without any evidence.
    #[must_use]
    pub(super) fn mean_or(&self, prior: f64) -> f64 {
        if self.weight > 0.0 { self.mean } else { prior }
    }

    /// The mean drawn towards `pool`, which counts for one observation.
    #[must_use]
    pub(super) fn blend(&self, pool: f64) -> f64 {
        (self.mean * self.weight + pool) / (self.weight + 1.0)
    }
}

// === impl LeastFit ===

impl LeastFit {
    /// Adds one observation.
    pub(super) fn observe(&mut self, value: f64) {
        self.0 =
            self.0.map_or(Some(value), |least| Some(value.min(least + CREEP * (value - least))));
    }

    /// Adds another estimate's evidence to this one's.
    pub(super) fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|value| self.0 = Some(self.least_or(value).min(value)));
    }

    /// The least, or `prior` without any evidence.
    pub(super) fn least_or(self, prior: f64) -> f64 {
        self.0.unwrap_or(prior)
    }
}

// === impl LineFit ===

impl LineFit {
    /// Adds one observation of `value` at `at`.
    pub(super) fn observe(&mut self, at: f64, value: f64) {
        let (off_at, off_value) = (at - self.at.mean, value - self.value.mean);
        self.at.observe(at);
        self.value.observe(value);
        let share = 1.0 / self.value.weight;
        self.variance = (1.0 - share) * (self.variance + share * off_at * off_at);
        self.covariance = (1.0 - share) * (self.covariance + share * off_at * off_value);
    }

    /// Whether nothing was observed yet.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.value.weight == 0.0
    }

    /// Lets the evidence fade.
    pub(super) fn age(&mut self) {
        self.at.age();
        self.value.age();
    }

    /// Adds another line's evidence to this one's.
    ///
    /// Only what each saw around its own centre tells about the slope: two workers at different
    /// batch sizes also differ in speed.
    pub(super) fn merge(&mut self, other: &Self) {
        let weight = self.value.weight + other.value.weight;
        if weight > 0.0 {
            let share = other.value.weight / weight;
            self.variance += (other.variance - self.variance) * share;
            self.covariance += (other.covariance - self.covariance) * share;
        }
        self.at.merge(&other.at);
        self.value.merge(&other.value);
    }

    /// The value at `at`, or the `prior`'s without any evidence.
    #[must_use]
    pub(super) fn at_or(&self, at: f64, prior: &AssumedLine) -> f64 {
        if self.value.weight > 0.0 { self.at(at, prior) } else { prior.at(at) }
    }

    /// The value at `at`, drawn towards `pool`, which counts for one observation.
    #[must_use]
    pub(super) fn blend(&self, at: f64, prior: &AssumedLine, pool: f64) -> f64 {
        let weight = self.value.weight;
        if weight > 0.0 { (self.at(at, prior) * weight + pool) / (weight + 1.0) } else { pool }
    }

    fn at(&self, at: f64, prior: &AssumedLine) -> f64 {
        // The first guess is the assumed slope, scaled to the speed that was seen where that tells.
        let scale = if prior.scales { self.value.mean / prior.at(self.at.mean) } else { 1.0 };
        let guess = prior.per_unit * scale;
        let slope = (self.covariance + prior.doubt * guess) / (self.variance + prior.doubt);
        (self.value.mean + slope.max(0.0) * (at - self.at.mean)).max(0.0)
    }
}

// === impl AssumedLine ===

impl AssumedLine {
    pub(super) fn at(&self, at: f64) -> f64 {
        self.at_zero + self.per_unit * at
    }
}
