//! What is known of caches, for operators.

use prometheus_client::encoding::EncodeLabelSet;

use super::{Confidence, Prefixes};
use crate::telemetry::Metrics;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ConfidenceLabels {
    confidence: &'static str,
}

// === impl Prefixes ===

impl Prefixes {
    /// Shows what is known, and how well.
    pub fn register(&self, metrics: &Metrics) {
        let bytes =
            metrics.gauge("baton_prefix_index_bytes", "Memory of the index of cached blocks");
        let blocks = metrics.gauge(
            "baton_prefix_index_blocks",
            "Blocks known to be cached, each once for every worker and tier that has it",
        );
        let unfit = metrics.gauge(
            "baton_prefix_index_unfit",
            "News of a worker's cache that didn't fit what it had told before, so that it told everything anew",
        );
        let workers = metrics.gauges(
            "baton_prefix_index_workers",
            "Workers by how well it is known what they have cached: exact, coarse (as of their last word, or a part) or off",
        );
        let anchors = metrics.gauge(
            "baton_prefix_anchors",
            "Prefixes that etcd tells of, each once for every worker that has it",
        );
        let prefixes = self.clone();
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.before_scrape(move || {
            let stats = prefixes.stats();
            bytes.set(count(stats.index_bytes as u64));
            blocks.set(count(stats.memberships));
            unfit.set(count(stats.unfit));
            anchors.set(count(stats.anchors as u64));
            for (confidence, count) in Confidence::ALL.iter().zip(stats.workers) {
                let labels = ConfidenceLabels { confidence: confidence.name() };
                workers.get_or_create(&labels).set(count.into());
            }
        });
    }
}

// === impl Confidence ===

impl Confidence {
    /// All of them, best first.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Coarse, Self::Off];

    /// The name used in metrics and headers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Coarse => "coarse",
            Self::Off => "off",
        }
    }
}
