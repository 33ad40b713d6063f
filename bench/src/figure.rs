//! What reports have in common: numbers that can be laid beside another run's.

use std::fmt;

/// One number of a report.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Figures of the same are shown together: a rate, a group of rows, a kernel.
    pub group: String,
    /// What it is, with its unit.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Which way it should go.
    pub better: Better,
}

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Down.
    Less,
    /// Up.
    More,
    /// It is one event of thousands, and says little in one run.
    Unjudged,
}

// === impl Figure ===

impl Figure {
    pub(crate) fn new(group: &str, name: impl Into<String>, value: f64, better: Better) -> Self {
        Self { group: group.to_owned(), name: name.into(), value, better }
    }

    /// Whether it says how much of the same.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        (&self.group, &self.name) == (&other.group, &other.name)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.group, self.name)
    }
}
