//! One scrape of a node's `/metrics`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

const SCRAPE_PATIENCE: Duration = Duration::from_secs(10);

/// The samples of one scrape, in the order of the page.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

// === impl Metrics ===

impl Metrics {
    /// Asks the node called `name` at `addr`.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn scrape(name: &str, addr: SocketAddr) -> Self {
        let url = format!("http://{addr}/metrics");
        let fetch = async { reqwest::get(&url).await?.error_for_status()?.text().await };
        match tokio::time::timeout(SCRAPE_PATIENCE, fetch).await {
            Ok(Ok(text)) => Self::parse(&text),
            Ok(Err(error)) => panic!("metrics of {name}: {error}"),
            Err(_) => panic!("metrics of {name}: no answer"),
        }
    }

    /// Reads the text format (Prometheus or OpenMetrics); comments are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self { samples: text.lines().filter_map(Sample::parse).collect() }
    }

    /// The sum of all samples of `name` (counters: with or without `_total`) that have these labels,
    /// `None` if there is none.
    #[must_use]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let total = format!("{name}_total");
        let mut values = self
            .samples
            .iter()
            .filter(|sample| sample.name == name || sample.name == total)
            .filter(|sample| sample.has(labels))
            .map(|sample| sample.value)
            .peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// Like [`Metrics::get`].
    ///
    /// # Panics
    /// If there is none; the message lists the names there are.
    #[must_use]
    pub fn require(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| {
            let names: std::collections::BTreeSet<_> =
                self.samples.iter().map(|sample| sample.name.as_str()).collect();
            panic!("no metric {name}{labels:?} among {names:?}")
        })
    }
}

// === impl Sample ===

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        // Label values may hold spaces, so the name and labels end at the brace if there is one.
        let (head, rest) = match line.split_once('}') {
            Some((head, rest)) => (head, rest),
            None => line.split_once(' ')?,
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        Some(Self { name: name.to_owned(), labels: parse_labels(labels), value })
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(key, value)| self.labels.get(*key).is_some_and(|is| is == value))
    }
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    text.split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP baton_kv_blocks KV blocks of the pool, by state.
# TYPE baton_kv_blocks gauge
baton_kv_blocks{state=\"free\"} 250
baton_kv_blocks{state=\"active\"} 6
baton_requests_total{route=\"/v1/chat completions\",code=\"200\"} 3
baton_requests_total{route=\"/v1/models\",code=\"200\"} 4 1700000000
baton_orphan_kv_blocks 0
# EOF
";

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let metrics = Metrics::parse(PAGE);
        assert_eq!(metrics.get("baton_kv_blocks", &[("state", "active")]), Some(6.0));
        assert_eq!(metrics.get("baton_kv_blocks", &[]), Some(256.0));
        assert_eq!(metrics.get("baton_requests", &[("code", "200")]), Some(7.0));
        let route = ("route", "/v1/chat completions");
        assert_eq!(metrics.get("baton_requests", &[route]), Some(3.0));
        assert_eq!(metrics.get("baton_orphan_kv_blocks", &[]), Some(0.0));
        assert_eq!(metrics.get("baton_kv_blocks", &[("state", "lost")]), None);
    }
}
