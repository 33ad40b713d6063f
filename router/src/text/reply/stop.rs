//! Stop strings, wherever the token boundaries fall.
//!
//! All stop strings of a request are one automaton (Aho and Corasick's): a byte of text costs one
//! step, be there one stop string or hundreds, and its state says how much text has to be held back.

use std::sync::Arc;

/// The automaton's state before any text, and whenever no stop string can have begun.
const ROOT: u32 = 0;

/// The stop strings of a request, shared by its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopSet {
    stops: Vec<String>,
    states: Vec<State>,
    /// By a byte, the state that it leads to from [`ROOT`].
    begins: Box<[u32; 256]>,
}

/// A text that some stop string begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Its last byte.
    byte: u8,
    /// Its length in bytes.
    depth: u32,
    /// Its longest proper ending that is a state, too.
    fallback: u32,
    /// The longest stop string that it ends with.
    stop: Option<u32>,
    /// The states that are one byte longer: the first, and the next one of the same parent.
    child: Option<u32>,
    sibling: Option<u32>,
}

/// Watches one sequence's text for stop strings. Text that could be the beginning of one is held
/// back, and nothing else is.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    set: Arc<StopSet>,
    include: bool,
    state: u32,
    held: String,
}

/// A stop string was found; the text before it has been given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopMatch {
    /// Its index in the list given to [`StopSet::new`].
    pub stop: usize,
}

// === impl StopSet ===

impl StopSet {
    /// Watches for `stops`; empty strings are ignored.
    #[must_use]
    pub fn new(stops: Vec<String>) -> Self {
        let mut set = Self { stops, states: vec![State::new(0, 0)], begins: Box::new([ROOT; 256]) };
        for index in 0..set.stops.len() {
            set.add(index);
        }
        set.link();
        set
    }

    /// The stop string of that index.
    #[must_use]
    pub fn get(&self, stop: usize) -> Option<&str> {
        self.stops.get(stop).map(String::as_str)
    }

    fn add(&mut self, index: usize) {
        let stop = std::mem::take(&mut self.stops[index]);
        let mut state = ROOT;
        for &byte in stop.as_bytes() {
            state = self.child(state, byte).unwrap_or_else(|| self.grow(state, byte));
        }
        if state != ROOT {
            // Of equal ones, the first.
            self.state_mut(state).stop.get_or_insert(index as u32);
        }
        self.stops[index] = stop;
    }

    /// Adds a state, one byte longer than `parent`.
    fn grow(&mut self, parent: u32, byte: u8) -> u32 {
        let new = self.states.len() as u32;
        let mut state = State::new(byte, self.state(parent).depth + 1);
        state.sibling = self.state_mut(parent).child.replace(new);
        self.states.push(state);
        if parent == ROOT {
            self.begins[usize::from(byte)] = new;
        }
        new
    }

    /// Finds every state's fallback, shorter states first: theirs are needed for the longer ones.
    fn link(&mut self) {
        let mut level = vec![ROOT];
        while !level.is_empty() {
            let mut next = Vec::new();
            for &parent in &level {
                let mut child = self.state(parent).child;
                while let Some(state) = child {
                    self.link_one(parent, state);
                    next.push(state);
                    child = self.state(state).sibling;
                }
            }
            level = next;
        }
    }

    fn link_one(&mut self, parent: u32, state: u32) {
        let byte = self.state(state).byte;
        let fallback =
            if parent == ROOT { ROOT } else { self.step(self.state(parent).fallback, byte) };
        let shorter = self.state(fallback).stop;
        let linked = self.state_mut(state);
        linked.fallback = fallback;
        linked.stop = linked.stop.or(shorter);
    }

    /// The state after one more byte: the longest ending of the text that a stop string begins with.
    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if let Some(next) = self.child(state, byte) {
                return next;
            }
            if state == ROOT {
                return ROOT;
            }
            state = self.state(state).fallback;
        }
    }

    fn child(&self, state: u32, byte: u8) -> Option<u32> {
        if state == ROOT {
            return Some(self.begins[usize::from(byte)]).filter(|&next| next != ROOT);
        }
        let mut child = self.state(state).child;
        while let Some(next) = child {
            let found = self.state(next);
            if found.byte == byte {
                return child;
            }
            child = found.sibling;
        }
        None
    }

    fn state(&self, state: u32) -> &State {
        &self.states[state as usize]
    }

    fn state_mut(&mut self, state: u32) -> &mut State {
        &mut self.states[state as usize]
    }
}

// === impl State ===

impl State {
    fn new(byte: u8, depth: u32) -> Self {
        Self { byte, depth, fallback: ROOT, stop: None, child: None, sibling: None }
    }
}

// === impl StopMatcher ===

impl StopMatcher {
    /// Watches for the strings of `set`. With `include`, the stop string itself stays in the output.
    #[must_use]
    pub fn new(set: Arc<StopSet>, include: bool) -> Self {
        Self { set, include, state: ROOT, held: String::new() }
    }

    /// Takes more text and appends to `out` what is known not to belong to a stop string.
    ///
    /// The first stop string to be complete wins; of those that end together, the longest. Nothing
    /// may be pushed after a match.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<StopMatch> {
        for (at, byte) in text.bytes().enumerate() {
            self.state = self.set.step(self.state, byte);
            if let Some(stop) = self.set.state(self.state).stop {
                let end = self.held.len() + at + 1;
                self.held.push_str(text);
                return Some(self.cut(stop as usize, end, out));
            }
        }
        self.held.push_str(text);
        let keep = self.set.state(self.state).depth as usize;
        out.extend(self.held.drain(..self.held.len() - keep));
        None
    }

    /// Characters that are held back; after a match those that were cut off.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.chars().count()
    }

    /// Ends the text: what was held back was no stop string after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&std::mem::take(&mut self.held));
        self.state = ROOT;
    }

    /// Ends the text with the stop string that ends at byte `end` of the held text.
    fn cut(&mut self, stop: usize, end: usize, out: &mut String) -> StopMatch {
        let cut = if self.include { 0 } else { self.set.stops[stop].len() };
        out.extend(self.held.drain(..end - cut));
        self.state = ROOT;
        StopMatch { stop }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], include: bool, chunks: &[&str]) -> (Vec<String>, Option<usize>) {
        let set = StopSet::new(stops.iter().map(ToString::to_string).collect());
        let mut matcher = StopMatcher::new(Arc::new(set), include);
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
    fn what_is_held_or_cut_off_is_counted_in_characters() {
        let set = StopSet::new(vec!["\u{e9}x".to_owned()]);
        let mut matcher = StopMatcher::new(Arc::new(set), false);
        let mut out = String::new();
        assert_eq!((matcher.push("a\u{e9}", &mut out), matcher.held()), (None, 1));
        assert_eq!(
            (matcher.push("xbc", &mut out), matcher.held()),
            (Some(StopMatch { stop: 0 }), 4)
        );
        assert_eq!(out, "a");
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

    /// A minute where every byte costs what the stop strings are long; a blink where it costs a step.
    #[test]
    fn hundreds_of_long_stop_strings_that_nearly_match_cost_a_step_a_byte() {
        let stops = (0..256).map(|index| format!("{}{index}", "a".repeat(60))).collect();
        let mut matcher = StopMatcher::new(Arc::new(StopSet::new(stops)), false);
        let mut out = String::new();
        for _ in 0..2_000_000 {
            assert_eq!(matcher.push("a", &mut out), None);
        }
        matcher.finish(&mut out);
        assert_eq!(out.len(), 2_000_000);
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
