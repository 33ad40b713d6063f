//! Stop strings, wherever the token boundaries fall.

/// Watches one sequence's text for stop strings. Text that could be the beginning of one is held
/// back, and nothing else is.
#[derive(Clone, Debug, Default)]
pub struct StopMatcher {
    stops: Vec<String>,
    include: bool,
    held: String,
}

/// A stop string was found; the text before it has been given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Its index in the list given to [`StopMatcher::new`].
    pub stop: usize,
}

// === impl StopMatcher ===

impl StopMatcher {
    /// Watches for `stops` (empty strings are ignored). With `include`, the stop string itself
    /// stays in the output.
    #[must_use]
    pub fn new(stops: Vec<String>, include: bool) -> Self {
        Self { stops, include, held: String::new() }
    }

    /// Takes more text and appends to `out` what is known not to belong to a stop string.
    ///
    /// The first stop string to be complete wins; of those that end together, the longest. Nothing
    /// may be pushed after a match.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<StopMatch> {
        if self.held.is_empty() && !self.stops.iter().any(|stop| may_begin_in(text, stop)) {
            out.push_str(text);
            return None;
        }
        self.held.push_str(text);
        if let Some((begin, end, stop)) = self.find() {
            out.push_str(&self.held[..if self.include { end } else { begin }]);
            self.held.clear();
            return Some(StopMatch { stop });
        }
        let keep = self.beginning_at_end();
        out.extend(self.held.drain(..self.held.len() - keep));
        None
    }

    /// Ends the text: what was held back was no stop string after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.held));
    }

    /// The match that ends first: its begin, its end and which stop string.
    fn find(&self) -> Option<(usize, usize, usize)> {
        let found = self.stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty());
        found
            .filter_map(|(index, stop)| {
                self.held.find(stop.as_str()).map(|begin| (begin, begin + stop.len(), index))
            })
            .min_by_key(|&(begin, end, _)| (end, begin))
    }

    /// Bytes at the end of the held text that could be the beginning of a stop string.
    fn beginning_at_end(&self) -> usize {
        let held = self.held.as_bytes();
        let longest = |stop: &String| {
            let stop = stop.as_bytes();
            let most = stop.len().saturating_sub(1).min(held.len());
            (1..=most).rev().find(|&n| held.ends_with(&stop[..n])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

/// Whether a match of `stop` could begin in `text`: a cheap test that most tokens fail.
fn may_begin_in(text: &str, stop: &str) -> bool {
    stop.as_bytes().first().is_some_and(|first| text.as_bytes().contains(first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], include: bool, chunks: &[&str]) -> (Vec<String>, Option<usize>) {
        let mut matcher =
            StopMatcher::new(stops.iter().map(ToString::to_string).collect(), include);
        let mut outs = Vec::new();
        for chunk in chunks {
            let mut out = String::new();
            let found = matcher.push(chunk, &mut out);
            outs.push(out);
            if let Some(found) = found {
                return (outs, Some(found.stop));
            }
        }
        let mut out = String::new();
        matcher.finish(&mut out);
        outs.push(out);
        (outs, None)
    }

    #[test]
    fn only_a_possible_beginning_is_held_back() {
        let (outs, found) = run(&["\n\nUser:"], false, &["Hello", ".\n", "x\n\nUs", "e", "!"]);
        assert_eq!(outs, ["Hello", ".", "\nx", "", "\n\nUse!", ""]);
        assert_eq!(found, None);
    }

    #[test]
    fn a_stop_string_across_chunks_is_cut_or_kept_whole() {
        assert_eq!(run(&["END"], false, &["aE", "N", "Db"]).0.concat(), "a");
        assert_eq!(run(&["END"], true, &["aE", "N", "Db"]).0.concat(), "aEND");
    }

    #[test]
    fn the_first_complete_stop_string_wins_however_the_text_is_cut() {
        for chunks in [&["abcd"][..], &["a", "b", "c", "d"], &["ab", "cd"]] {
            let (outs, found) = run(&["bcd", "c"], false, chunks);
            assert_eq!((outs.concat().as_str(), found), ("ab", Some(1)));
        }
    }

    /// The definition: walk the ends; the first end at which a stop string ends, longest first.
    fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
        for end in text.char_indices().map(|(at, c)| at + c.len_utf8()) {
            let ending = |(_, stop): &(usize, &String)| text[..end].ends_with(stop.as_str());
            // `max_by_key` keeps the last of equals, the matcher the first.
            let best = stops.iter().enumerate().rev().filter(ending).max_by_key(|(_, s)| s.len());
            if let Some((index, stop)) = best {
                return (text[..end - stop.len()].to_owned(), Some(index));
            }
        }
        (text.to_owned(), None)
    }

    proptest! {
        #[test]
        fn equals_the_naive_search(
            stops in proptest::collection::vec("[abé]{1,4}", 0..4),
            chunks in proptest::collection::vec("[abcé]{0,3}", 0..12),
        ) {
            let text = chunks.concat();
            let stop_refs: Vec<&str> = stops.iter().map(String::as_str).collect();
            let chunk_refs: Vec<&str> = chunks.iter().map(String::as_str).collect();
            let (outs, found) = run(&stop_refs, false, &chunk_refs);
            prop_assert_eq!((outs.concat(), found), naive(&stops, &text));
        }
    }
}
