//! What reports have in common: numbers that can be laid beside another run's.

use std::fmt;

/// One number of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Figures of the same are shown together: a rate, a group of rows, a kernel.
    pub group: String,
    /// What it is, with its unit.
    pub name: String,
    /// How much; `None` where there was nothing to measure.
    pub value: Option<f64>,
    /// Which way it should go.
    pub better: Better,
    /// Why nothing is concluded from it, if it rests on too little.
    pub doubt: Option<&'static str>,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Down.
    Less,
    /// Down, by points and not by a share of what it was: it is a share, and mostly 0.
    LessPoints,
    /// Up.
    More,
    /// It is one event of thousands, and says little in one run.
    Unjudged,
}

/// Far beyond all that is measured, in any unit.
const VALUE_MAX: f64 = 1e12;

// === impl Figure ===

impl Figure {
    pub(crate) fn new(
        group: &str,
        name: impl Into<String>,
        value: impl Into<Option<f64>>,
        better: Better,
    ) -> Self {
        Self {
            group: group.to_owned(),
            name: name.into(),
            value: value.into(),
            better,
            doubt: None,
        }
    }

    /// The same, of which nothing is concluded if there is a reason.
    pub(crate) fn with_doubt(mut self, doubt: Option<&'static str>) -> Self {
        self.doubt = doubt.or(self.doubt);
        self
    }

    /// Whether it can be: a share is none of more than all, and nothing takes less than no time.
    pub(crate) fn is_sane(&self) -> bool {
        let most = if self.name.ends_with('%') { 100.0 } else { VALUE_MAX };
        self.value.is_none_or(|value| (0.0..=most).contains(&value))
    }

    /// Whether it says how much of the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.group, &self.name) == (&other.group, &other.name)
    }
}

/// A number as it is shown, or what stands for none.
pub(crate) fn shown(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.name)
    }
}
