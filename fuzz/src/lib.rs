//! What strangers reach, fed with what nobody would send.
//!
//! A target takes bytes, gives them to the code that production gives them to, and panics if that breaks
//! a promise: that it doesn't panic, that what it takes it can write again, that a refusal says what is wrong
//! with what, and that no input costs more time or memory than the target's [`Cost`]. `cargo xtask fuzz` lets a
//! fuzzer, which sees what code an input reaches, look for such bytes; the tests replay what is known.

#![forbid(unsafe_code)]

mod cost;
mod fixtures;
mod targets;
pub mod words;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

pub use cost::Cost;
pub use targets::ALL;

/// One way in.
pub struct Target {
    /// As on the command line, and as its folder under `corpus/`.
    pub name: &'static str,
    /// Takes one input.
    run: fn(&[u8]),
    /// Inputs to begin with that are no text: real messages, beside the files of `corpus/`.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one input may cost.
    pub cost: Cost,
}

// === impl Target ===

impl Target {
    /// A target with the usual bounds, and no seeds but files.
    const fn new(name: &'static str, run: fn(&[u8])) -> Self {
        Self { name, run, seeds: Vec::new, cost: Cost::USUAL }
    }

    const fn with_seeds(self, seeds: fn() -> Vec<Vec<u8>>) -> Self {
        Self { seeds, ..self }
    }

    const fn with_cost(self, cost: Cost) -> Self {
        Self { cost, ..self }
    }

    /// The target of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|target| target.name == name)
    }

    /// Makes what all inputs share, so that none has to pay for it.
    pub fn prepare(&self) {
        (self.run)(b"");
    }

    /// Tries one input.
    ///
    /// # Panics
    /// If it breaks a promise, or costs too much.
    pub fn check(&self, input: &[u8]) {
        let input = &input[..input.len().min(self.cost.bytes_max)];
        let (outcome, spent) = cost::of(|| catch_unwind(AssertUnwindSafe(|| (self.run)(input))));
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
        self.cost.check(spent, input.len());
    }
}

/// Lets panics of the tokenizer's library pass without a word: production catches them, and if it doesn't, they end the
/// run all the same. Telling where they came from takes more time and memory than an input may.
pub fn hush_caught_panics() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/tokenizers-")) {
            told(panic);
        }
    }));
}
