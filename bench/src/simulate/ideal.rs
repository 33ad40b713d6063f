//! What one cache without an end would have found.

use std::collections::HashSet;

use super::SimulateOptions;
use super::names::Namer;

/// What the best of all caches would come to on a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ideal {
    /// Tokens of all prompts.
    pub(super) input_tokens: u64,
    /// Those of them that were in a prompt before, which had been computed by then.
    pub(super) cached_tokens: u64,
    /// Blocks that are not alike.
    pub(super) blocks: u64,
}

// === impl Ideal ===

impl Ideal {
    pub(super) fn of(options: &SimulateOptions) -> Self {
        let SimulateOptions { trace, fleet, seed, .. } = options;
        let namer = Namer::new(trace, fleet.block_tokens, *seed);
        let (mut known, mut ideal) = (HashSet::new(), Self::default());
        for (number, request) in trace.requests.iter().enumerate() {
            let tokens = trace.scaled(request.input_length);
            let names = namer.prompt(request, number, tokens);
            // One token at least is computed.
            let most = (tokens - 1) / fleet.block_tokens;
            let found = names.iter().take(most as usize).take_while(|name| known.contains(*name));
            ideal.cached_tokens += found.count() as u64 * u64::from(fleet.block_tokens);
            ideal.input_tokens += u64::from(tokens);
            known.extend(names);
        }
        Self { blocks: known.len() as u64, ..ideal }
    }

    pub(super) fn cached_percent(&self) -> f64 {
        100.0 * self.cached_tokens as f64 / self.input_tokens.max(1) as f64
    }
}
