//! In what workers of one model differ, in words.

use std::collections::BTreeSet;
use std::fmt;

/// The fields of a KV layout's text that operators choose, and how.
const CHOSEN: &[(&str, &str)] = &[("dtype", "--kv-dtype"), ("block_tokens", "--block-tokens")];

/// In what workers of one model differ, so that their answers may.
#[derive(Debug, PartialEq)]
pub(super) enum Difference {
    /// So many weights.
    Weights(usize),
    /// How they keep KV: of each layout, what others have not.
    Kv(Vec<String>),
}

// === impl Difference ===

impl Difference {
    /// - `editions`: the weights and the KV layout of each.
    pub(super) fn among(editions: impl Iterator<Item = (String, String)>) -> Self {
        let (weights, layouts): (BTreeSet<String>, BTreeSet<String>) = editions.unzip();
        if weights.len() > 1 { Self::Weights(weights.len()) } else { Self::Kv(kinds(&layouts)) }
    }

    /// What an operator can do about it, after what is the matter.
    pub(super) fn advice(&self) -> String {
        let Self::Kv(kinds) = self else { return String::new() };
        let differs = |field: &str| {
            let mut words = kinds.iter().flat_map(|kind| kind.split(' '));
            words.any(|word| word.split_once('=').is_some_and(|(name, _)| name == field))
        };
        let flags = CHOSEN.iter().filter(|(field, _)| differs(field)).map(|(_, flag)| *flag);
        match flags.collect::<Vec<_>>().join(" and ") {
            flags if flags.is_empty() => String::new(),
            flags => format!("; start them all with the same {flags}"),
        }
    }
}

/// What workers have.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights(count) => write!(f, "{count} different weights"),
            Self::Kv(kinds) => write!(f, "KV of {} kinds ({})", kinds.len(), kinds.join(", ")),
        }
    }
}

/// Each layout without the fields that all have alike.
fn kinds(layouts: &BTreeSet<String>) -> Vec<String> {
    let is_shared = |word: &&str| layouts.iter().all(|it| it.split(' ').any(|own| own == *word));
    let own = |layout: &String| {
        let words: Vec<&str> = layout.split(' ').filter(|word| !is_shared(word)).collect();
        words.join(" ")
    };
    layouts.iter().map(own).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::weights(&[("a", "bt=16 dtype=f32"), ("b", "bt=16 dtype=f32")], "2 different weights")]
    #[case::both(&[("a", "dtype=f32"), ("b", "dtype=bf16"), ("b", "dtype=f32")], "2 different weights")]
    #[case::dtype(
        &[("a", "layers=2 dtype=f32"), ("a", "layers=2 dtype=bf16")],
        "KV of 2 kinds (dtype=bf16, dtype=f32); start them all with the same --kv-dtype"
    )]
    #[case::blocks(
        &[("a", "block_tokens=16 dtype=f32"), ("a", "block_tokens=32 dtype=bf16")],
        "KV of 2 kinds (block_tokens=16 dtype=f32, block_tokens=32 dtype=bf16); start them all with \
         the same --kv-dtype and --block-tokens"
    )]
    #[case::sizes(&[("a", "layers=2"), ("a", "layers=4")], "KV of 2 kinds (layers=2, layers=4)")]
    fn workers_differ_in_weights_or_else_in_kv(
        #[case] editions: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        let owned =
            editions.iter().map(|(weights, layout)| (weights.to_string(), layout.to_string()));
        let difference = Difference::among(owned);
        assert_eq!(format!("{difference}{}", difference.advice()), expected);
    }
}
