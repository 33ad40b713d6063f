//! Two reports of one kind, side by side.

use std::fmt;

use anyhow::{Result, ensure};

use crate::document::Document;
use crate::figure::{Better, Figure};

/// What two reports say of the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Of the first report.
    pub before: Figure,
    /// The same of the second.
    pub after: f64,
}

/// A report beside another.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// How each was made.
    heads: [String; 2],
    /// What isn't alike, though it should be.
    differences: Vec<String>,
    /// What both have, in the first one's order.
    pairs: Vec<Pair>,
    /// What only one has.
    alone: Vec<String>,
}

/// Less is rounding.
const CHANGE_PERCENT_MIN: f64 = 0.05;

// === impl Comparison ===

impl Comparison {
    /// Lays the second beside the first.
    ///
    /// # Errors
    /// If they are of different kinds, or have nothing in common.
    pub fn new(before: &Document, after: &Document) -> Result<Self> {
        let (kind, other) = (before.body.kind(), after.body.kind());
        ensure!(kind == other, "A is of `baton bench {kind}`, and B of `baton bench {other}`");
        let (mine, theirs) = (before.body.figures(), after.body.figures());
        let of = |figure: &Figure| theirs.iter().find(|other| other.is_like(figure));
        let pairs: Vec<_> = mine
            .iter()
            .filter_map(|figure| Some(Pair { after: of(figure)?.value, before: figure.clone() }))
            .collect();
        let alone = [alone(&mine, &theirs, "A"), alone(&theirs, &mine, "B")].concat();
        ensure!(!pairs.is_empty(), "A and B have no figure in common: {}", alone.join(", "));
        let settings = before.body.setting().into_iter().zip(after.body.setting());
        let differences = settings
            .filter(|((_, mine), (_, theirs))| mine != theirs)
            .map(|((what, mine), (_, theirs))| format!("{what}: A {mine}; B {theirs}"));
        Ok(Self {
            heads: [before, after].map(head),
            differences: differences.collect(),
            pairs,
            alone,
        })
    }

    /// What got worse by more than so many percent.
    pub fn worse_by(&self, percent: f64) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().filter(move |pair| pair.loss_percent().is_some_and(|loss| loss > percent))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [before, after] = &self.heads;
        writeln!(f, "A: {before}\nB: {after}")?;
        self.differences
            .iter()
            .try_for_each(|difference| writeln!(f, "not alike: {difference}"))?;
        write!(f, "\n{:<44} {:>11} {:>11} {:>10}", "", "A", "B", "change")?;
        let mut group = "";
        for pair in &self.pairs {
            if pair.before.group != group {
                group = &pair.before.group;
                write!(f, "\n{group}")?;
            }
            write!(f, "\n  {pair}")?;
        }
        match self.alone.is_empty() {
            true => Ok(()),
            false => write!(f, "\nnot in both: {}", self.alone.join(", ")),
        }
    }
}

fn head(document: &Document) -> String {
    let Document { version, date, command, .. } = document;
    format!("{date}, version {version}: {command}")
}

/// What the others have nothing like: whole groups, or single figures of one that they have, too.
fn alone(figures: &[Figure], others: &[Figure], side: &str) -> Vec<String> {
    let is_known = |figure: &Figure| others.iter().any(|other| other.group == figure.group);
    let alone = figures.iter().filter(|figure| !others.iter().any(|other| other.is_like(figure)));
    let name = |figure: &Figure| match is_known(figure) {
        true => format!("{figure} ({side})"),
        false => format!("{} ({side})", figure.group),
    };
    let mut names: Vec<_> = alone.map(name).collect();
    names.dedup();
    names
}

// === impl Pair ===

impl Pair {
    /// How much there is more in the second report, in percent; `None` if the first has nothing to compare with.
    #[must_use]
    pub fn change_percent(&self) -> Option<f64> {
        let before = self.before.value;
        let change = 100.0 * (self.after - before) / before;
        (before != 0.0 && change.is_finite()).then_some(change)
    }

    /// By how many percent it got worse; below 0 it got better.
    fn loss_percent(&self) -> Option<f64> {
        match self.before.better {
            Better::Less => self.change_percent(),
            Better::More => self.change_percent().map(|change| -change),
            Better::Unjudged => None,
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, value, .. } = &self.before;
        let change = self.change_percent();
        let shown = change.map_or("-".to_owned(), |change| format!("{change:+.1} %"));
        let verdict = match self.loss_percent() {
            Some(loss) if loss >= CHANGE_PERCENT_MIN => "  worse",
            Some(loss) if loss <= -CHANGE_PERCENT_MIN => "  better",
            _ => "",
        };
        write!(f, "{name:<42} {value:>11.3} {:>11.3} {shown:>10}{verdict}", self.after)
    }
}

#[cfg(test)]
mod tests;
