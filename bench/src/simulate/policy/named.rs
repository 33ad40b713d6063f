//! What policies are called: a name, and behind it what a rule can be tuned by.

use std::fmt;
use std::str::FromStr;

use super::Policy;
use super::affinity::Affinity;
use super::scores::{BlockCost, Weighted};

/// What there is to choose from.
const NAMES: &str = "ours, random, round-robin, least-loaded, sglang[:MORE:TIMES:SHARE], dynamo[:SCALE], mooncake, \
                     llm-d[:QUEUE:MEMORY:PREFIX:TOKENS]";

// === impl Policy ===

impl Policy {
    /// All of them, as they are by default.
    #[must_use]
    pub fn all() -> Vec<Self> {
        vec![
            Self::Ours,
            Self::Random,
            Self::RoundRobin,
            Self::LeastLoaded,
            Self::Sglang(Affinity::default()),
            Self::Dynamo(BlockCost::default()),
            Self::Mooncake,
            Self::LlmD(Weighted::default()),
        ]
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Random => "random",
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::Sglang(_) => "sglang",
            Self::Dynamo(_) => "dynamo",
            Self::Mooncake => "mooncake",
            Self::LlmD(_) => "llm-d",
        }
    }

    /// What it can be tuned by, in order.
    fn knobs(self) -> Vec<f64> {
        match self {
            Self::Sglang(Affinity { more_than, times_more_than, share_min }) => {
                vec![more_than, times_more_than, share_min]
            }
            Self::Dynamo(BlockCost { scale }) => vec![scale],
            Self::LlmD(Weighted { queue, memory, prefix, handed_over_min }) => {
                vec![queue, memory, prefix, handed_over_min]
            }
            _ => Vec::new(),
        }
    }

    /// The same rule tuned so; `None` if it has other knobs.
    fn tuned(self, knobs: &[f64]) -> Option<Self> {
        match (self, knobs) {
            (_, []) => Some(self),
            (Self::Sglang(_), &[more_than, times_more_than, share_min]) => {
                Some(Self::Sglang(Affinity { more_than, times_more_than, share_min }))
            }
            (Self::Dynamo(_), &[scale]) => Some(Self::Dynamo(BlockCost { scale })),
            (Self::LlmD(_), &[queue, memory, prefix, handed_over_min]) => {
                Some(Self::LlmD(Weighted { queue, memory, prefix, handed_over_min }))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let usual = Self::all().into_iter().find(|it| it.name() == self.name());
        let knobs = if usual == Some(*self) { Vec::new() } else { self.knobs() };
        knobs.iter().try_for_each(|knob| write!(f, ":{knob}"))
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let known = Self::all().into_iter().find(|policy| policy.name() == name);
        let knobs: Option<Vec<f64>> = parts.map(|knob| knob.parse().ok()).collect();
        let knobs = knobs.filter(|knobs| knobs.iter().all(|knob| *knob >= 0.0));
        let policy = known.zip(knobs).and_then(|(policy, knobs)| policy.tuned(&knobs));
        policy.ok_or_else(|| format!("{text:?} is no policy: want some of {NAMES}; or all"))
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ours", Some("ours"))]
    #[case("sglang:64:1.5:0.3", Some("sglang"))]
    #[case("sglang:4:1.1:0.5", Some("sglang:4:1.1:0.5"))]
    #[case("dynamo:2", Some("dynamo:2"))]
    #[case("llm-d:1:1:4:0", Some("llm-d:1:1:4:0"))]
    #[case("ours:1", None)]
    #[case("dynamo:-1", None)]
    #[case("sglang:1", None)]
    #[case("best", None)]
    fn policies_have_names(#[case] text: &str, #[case] shown: Option<&str>) {
        let policy = text.parse::<Policy>();
        assert_eq!(policy.as_ref().ok().map(ToString::to_string).as_deref(), shown);
        assert!(policy.is_ok() || policy.is_err_and(|why| why.contains("want some of ours, ")));
    }
}
