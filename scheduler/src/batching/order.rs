//! Whose prompt is computed next.

use std::collections::BinaryHeap;

/// A prompt that wants to be computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    /// Which of the sequences; the order is that of arrival.
    pub(super) at: usize,
    /// Tokens it still needs.
    pub(super) tokens: u32,
    /// Seconds until its first token is wanted.
    pub(super) due_s: Option<f64>,
}

/// Who comes first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Order {
    pub(super) order: Vec<usize>,
    /// Those of it that can't have their first token in time any more without another's being late.
    pub(super) late: Vec<usize>,
}

// === impl Order ===

impl Order {
    /// As many as possible are in time: of those that are wanted before all of them can be there, the longest are late
    /// (Moore 1968, on one machine). Those in time come by their remaining tokens, the fewest first, which makes the sum
    /// of all waiting least; where one would then be late, by when they are wanted. Late ones and those that are wanted at no
    /// certain time come last, the fewest tokens first.
    ///
    /// - `s_per_token`: for a prompt's token, beside everything else that steps do.
    pub(super) fn of(candidates: &[Candidate], s_per_token: f64) -> Self {
        let (mut in_time, late) = in_time(candidates, s_per_token);
        let by_tokens = |candidates: &mut Vec<Candidate>| {
            candidates.sort_by_key(|candidate| (candidate.tokens, candidate.at));
        };
        let by_due = in_time.clone();
        by_tokens(&mut in_time);
        if first_late(&in_time, s_per_token).is_some() {
            in_time = by_due;
        }
        let mut rest: Vec<Candidate> =
            candidates.iter().filter(|it| it.due_s.is_none()).chain(&late).copied().collect();
        by_tokens(&mut rest);
        Self {
            order: in_time.iter().chain(&rest).map(|candidate| candidate.at).collect(),
            late: late.iter().map(|candidate| candidate.at).collect(),
        }
    }
}

/// Those that can be in time, by when they are wanted, and those that can't.
fn in_time(candidates: &[Candidate], s_per_token: f64) -> (Vec<Candidate>, Vec<Candidate>) {
    let mut wanted: Vec<Candidate> =
        candidates.iter().filter(|it| it.due_s.is_some()).copied().collect();
    wanted.sort_by(|one, other| {
        let by_due = one.due_s.unwrap_or_default().total_cmp(&other.due_s.unwrap_or_default());
        by_due.then(one.at.cmp(&other.at))
    });
    let (mut longest, mut late, mut tokens) = (BinaryHeap::new(), Vec::new(), 0_u64);
    for candidate in &wanted {
        tokens += u64::from(candidate.tokens);
        // Of equally long ones the youngest is let go.
        longest.push((candidate.tokens, candidate.at));
        if tokens as f64 * s_per_token > candidate.due_s.unwrap_or_default()
            && let Some((dropped, at)) = longest.pop()
        {
            tokens -= u64::from(dropped);
            late.push(at);
        }
    }
    wanted.into_iter().partition(|candidate| !late.contains(&candidate.at))
}

/// The first that is not there in time in this order.
fn first_late(order: &[Candidate], s_per_token: f64) -> Option<usize> {
    let mut tokens = 0_u64;
    order.iter().position(|candidate| {
        tokens += u64::from(candidate.tokens);
        candidate.due_s.is_some_and(|due_s| tokens as f64 * s_per_token > due_s)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// `tokens` or `tokens@due`, in the order of arrival, counted from 0.
    fn candidates(text: &str) -> Vec<Candidate> {
        let one = |(at, word): (usize, &str)| {
            let (tokens, due) = word.split_once('@').map_or((word, None), |(a, b)| (a, Some(b)));
            let due_s = due.map(|due| due.parse().unwrap());
            Candidate { at, tokens: tokens.parse().unwrap(), due_s }
        };
        text.split_whitespace().enumerate().map(one).collect()
    }

    /// A token takes a second.
    #[rstest]
    #[case::nobody("", "", "")]
    #[case::shortest_first("9 3 5", "1 2 0", "")]
    #[case::as_they_came_where_equally_long("5 5 5", "0 1 2", "")]
    #[case::shortest_first_where_all_are_in_time("9@20 3@20 5@20", "1 2 0", "")]
    #[case::by_their_time_where_they_are_not("9@10 3@20 5@30", "0 1 2", "")]
    #[case::the_longest_is_late_where_one_must("9@10 5@10 4@10", "2 1 0", "0")]
    #[case::who_is_late_gives_way("5@0 5@6 5@11", "1 2 0", "0")]
    #[case::and_is_before_longer_ones_without_a_time("5@0 7 3 2@9", "3 2 0 1", "0")]
    fn prompts_are_ordered(#[case] waiting: &str, #[case] order: &str, #[case] late: &str) {
        let list = |text: &str| text.split_whitespace().map(|it| it.parse().unwrap()).collect();
        let want = Order { order: list(order), late: list(late) };
        assert_eq!(Order::of(&candidates(waiting), 1.0), want);
    }

    /// How many of these are in time in this order.
    fn kept(candidates: &[Candidate], order: &[usize]) -> usize {
        let mut tokens = 0;
        let in_time = |at: &&usize| {
            let candidate = candidates[**at];
            tokens += candidate.tokens;
            candidate.due_s.is_some_and(|due_s| f64::from(tokens) <= due_s)
        };
        order.iter().filter(in_time).count()
    }

    fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
        if items.is_empty() {
            return vec![Vec::new()];
        }
        let with_first = |nth: usize| {
            let mut rest = items.to_vec();
            let first = rest.remove(nth);
            permutations(&rest).into_iter().map(move |mut rest| {
                rest.insert(0, first);
                rest
            })
        };
        (0..items.len()).flat_map(with_first).collect()
    }

    proptest! {
        #[test]
        fn no_order_has_more_of_them_in_time(
            waiting in prop::collection::vec((1_u32..20, prop::option::of(0_u32..60)), 0..7),
        ) {
            let candidates: Vec<Candidate> = waiting
                .iter()
                .enumerate()
                .map(|(at, &(tokens, due))| Candidate { at, tokens, due_s: due.map(f64::from) })
                .collect();
            let order = Order::of(&candidates, 1.0);
            let mut sorted = order.order.clone();
            sorted.sort_unstable();
            let all: Vec<usize> = (0..candidates.len()).collect();
            prop_assert_eq!(&sorted, &all);
            let best = permutations(&all).iter().map(|it| kept(&candidates, it)).max();
            prop_assert_eq!(kept(&candidates, &order.order), best.unwrap_or_default());
        }
    }
}
