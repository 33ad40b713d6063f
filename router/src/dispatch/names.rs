//! The names of a prompt's KV blocks, by which workers that have them are found.

use std::sync::Arc;

use kv_cache::BlockHash;
use words::{Fingerprint, Generation};

/// Names the full blocks of a request's context, as its workers do: some 100 ns a block.
///
/// `None` where nothing cached would be used: of a prompt whose tokens are to be scored each one's row is computed.
pub(super) fn names(
    generation: &Generation,
    fingerprint: &Fingerprint,
) -> Option<Arc<[BlockHash]>> {
    if generation.prompt_logprobs.is_some() {
        return None;
    }
    let hasher = fingerprint.chain_hasher(&generation.salt);
    let block_tokens = fingerprint.kv_layout.block_tokens();
    let names = match generation.generated.is_empty() {
        true => hasher.hash_blocks(None, &generation.prompt, block_tokens),
        false => hasher.hash_blocks(None, &generation.context(), block_tokens),
    };
    (!names.is_empty()).then(|| names.into())
}
