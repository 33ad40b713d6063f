//! Metrics: a registry with the house's names and buckets.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every metric of a node. A clone is another handle to the same registry.
///
/// Names are given with the house's prefix `baton_`, with their unit last, and, for counters, without
/// the `_total` that the format adds.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Mutex<Registry>,
    before_scrape: Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

/// Upper bounds of a histogram's buckets, ascending.
#[derive(Clone, Copy, Debug)]
pub struct Buckets(pub &'static [f64]);

/// Histograms that differ by labels.
pub type Histograms<L> = Family<L, Histogram, Buckets>;

/// A set of labels: a struct that derives [`EncodeLabelSet`].
pub trait Labels: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static {}

impl<L: EncodeLabelSet + Clone + Debug + Eq + Hash + Send + Sync + 'static> Labels for L {}

// === impl Buckets ===

impl Buckets {
    /// Time to first token, seconds: from a cached prompt on a fast model to a queue of minutes; close
    /// together where targets lie.
    pub const TTFT_S: Self = Self(&[
        0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5,
        2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0,
    ]);
    /// Time per output token and gaps between tokens, seconds.
    pub const TPOT_S: Self = Self(&[
        0.0005, 0.001, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02, 0.025, 0.03,
        0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5,
    ]);
    /// Whole requests, seconds.
    pub const REQUEST_S: Self = Self(&[
        0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0,
        600.0, 1800.0,
    ]);
    /// Tokens of a prompt, an output or a batch.
    pub const TOKENS: Self = Self(&[
        1.0,
        2.0,
        4.0,
        8.0,
        16.0,
        32.0,
        64.0,
        128.0,
        256.0,
        512.0,
        1024.0,
        2048.0,
        4096.0,
        8192.0,
        16384.0,
        32768.0,
        65536.0,
        131_072.0,
        262_144.0,
        1_048_576.0,
    ]);
}

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

// === impl Metrics ===

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// A registry with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner { registry: Mutex::default(), before_scrape: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// A number that grows.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.register(name, help, Counter::default())
    }

    /// Numbers that grow, by label.
    #[must_use]
    pub fn counters<L: Labels>(&self, name: &str, help: &str) -> Family<L, Counter> {
        self.register(name, help, Family::default())
    }

    /// A count that goes up and down.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.register(name, help, Gauge::default())
    }

    /// Counts that go up and down, by label.
    #[must_use]
    pub fn gauges<L: Labels>(&self, name: &str, help: &str) -> Family<L, Gauge> {
        self.register(name, help, Family::default())
    }

    /// A distribution.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, buckets: Buckets) -> Histogram {
        self.register(name, help, buckets.new_metric())
    }

    /// Distributions, by label.
    #[must_use]
    pub fn histograms<L: Labels>(&self, name: &str, help: &str, buckets: Buckets) -> Histograms<L> {
        self.register(name, help, Family::new_with_constructor(buckets))
    }

    /// Calls `refresh` before each scrape, to set gauges that would cost too much to keep current.
    pub fn before_scrape(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.inner.before_scrape.lock().push(Box::new(refresh));
    }

    /// All metrics in the OpenMetrics text format.
    #[must_use]
    pub fn encode(&self) -> String {
        for refresh in self.inner.before_scrape.lock().iter() {
            refresh();
        }
        let mut text = String::new();
        // Writing to a string can't fail.
        let _ = text::encode(&mut text, &self.inner.registry.lock());
        text
    }

    /// Lets `register` add what the methods above don't offer: collectors, metrics made elsewhere.
    pub fn with_registry<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.inner.registry.lock())
    }

    fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.inner.registry.lock().register(name, help, metric.clone());
        metric
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
    struct ByRole {
        role: String,
    }

    #[test]
    fn metrics_are_exposed_under_the_house_prefix() {
        let metrics = Metrics::new();
        metrics.counter("baton_requests", "Requests received").inc_by(3);
        let decode = ByRole { role: "decode".into() };
        metrics.gauges::<ByRole>("baton_workers", "Workers").get_or_create(&decode).set(2);
        metrics
            .histogram("baton_ttft_seconds", "Time to first token", Buckets::TTFT_S)
            .observe(0.12);
        let late = metrics.gauge("baton_orphan_kv_blocks", "Leaked blocks");
        metrics.before_scrape(move || {
            late.set(7);
        });
        let text = metrics.encode();
        for line in [
            "baton_requests_total 3",
            "baton_workers{role=\"decode\"} 2",
            "baton_ttft_seconds_bucket{le=\"0.1\"} 0",
            "baton_ttft_seconds_bucket{le=\"0.15\"} 1",
            "baton_orphan_kv_blocks 7",
            "# EOF",
        ] {
            assert!(text.lines().any(|have| have == line), "{line} in\n{text}");
        }
    }

    #[rstest]
    #[case(Buckets::TTFT_S)]
    #[case(Buckets::TPOT_S)]
    #[case(Buckets::REQUEST_S)]
    #[case(Buckets::TOKENS)]
    fn buckets_ascend(#[case] buckets: Buckets) {
        assert!(buckets.0.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
