//! Whether requests had what they asked for.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use words::Targets;

/// A target of requests, and whether it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ByTarget {
    target: &'static str,
    kept: bool,
}

/// What a request asked for, and the worst of it so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    targets: Targets,
    mean_max: Option<Duration>,
    gap_max: Option<Duration>,
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(targets: Targets) -> Self {
        Self { targets, ..Self::default() }
    }

    /// Two tokens of a choice were so far apart.
    pub(super) fn gap(&mut self, gap: Duration) {
        self.gap_max = self.gap_max.max(Some(gap));
    }

    /// A choice's tokens after its first came in this time each.
    pub(super) fn mean(&mut self, mean: Duration) {
        self.mean_max = self.mean_max.max(Some(mean));
    }

    /// How each target was kept; none of what was not asked for, or of which nothing is known.
    ///
    /// - `first`: the time to the first token, or so far.
    pub(super) fn all(&self, first: Duration) -> impl Iterator<Item = ByTarget> {
        let Targets { ttft, tpot, itl } = self.targets;
        let rows = [
            ("ttft", ttft, Some(first)),
            ("tpot", tpot, self.mean_max),
            ("itl", itl, self.gap_max),
        ];
        rows.into_iter()
            .filter_map(|(target, asked, worst)| Some(ByTarget { target, kept: worst? <= asked? }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_was_asked_is_kept_if_the_worst_of_it_is() {
        let targets = Targets { ttft: Some(100 * MS), tpot: Some(10 * MS), itl: None };
        let mut kept = Kept::new(targets);
        let told = |kept: &Kept, first: Duration| -> Vec<_> {
            kept.all(first).map(|it| (it.target, it.kept)).collect()
        };
        assert_eq!(told(&kept, 100 * MS), [("ttft", true)], "one token has no gaps");
        kept.gap(80 * MS);
        [8 * MS, 12 * MS, 9 * MS].into_iter().for_each(|mean| kept.mean(mean));
        assert_eq!(told(&kept, 101 * MS), [("ttft", false), ("tpot", false)]);
        let mut even = Kept::new(Targets { itl: Some(30 * MS), ..Targets::default() });
        even.gap(30 * MS);
        assert_eq!(told(&even, MS), [("itl", true)]);
        even.gap(31 * MS);
        assert_eq!(told(&even, MS), [("itl", false)]);
        assert!(told(&Kept::default(), MS).is_empty(), "it asked for nothing");
    }
}
