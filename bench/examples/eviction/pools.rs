//! The pool itself, alone and over a tier.

use kv_cache::{BlockHash, BlockPool, BlockTable, CommittedBlock, Tier, TokenId};

use crate::Cache;

/// A pool of blocks of one token, which says what the block is.
pub(crate) struct Pools {
    device: BlockPool,
    host: Option<BlockPool>,
}

// === impl Pools ===

impl Pools {
    /// - `host`: blocks below the device's; 0: none.
    pub(crate) fn new(device: usize, host: usize) -> Self {
        let device = BlockPool::new(device as u32, 1);
        let host = (host > 0).then(|| device.add_tier(Tier::Host, host as u32));
        Self { device, host }
    }

    /// Blocks that the device evicted before they had been copied down.
    pub(crate) fn lost(&self) -> u64 {
        self.device.evictions().lost
    }

    /// Copies down what is to be copied, as if that took no time.
    fn sink(&self, host: &BlockPool) {
        for unsaved in self.device.unsaved(usize::MAX) {
            let Ok(mut credit) = host.reserve(1) else { return };
            let copy = credit.bind().expect("a credit");
            let _ = self.device.save(&unsaved, &copy);
        }
    }

    /// Computes what is behind the device's own run, or brings it up; prompts that are longer than the pool are left out.
    fn fill(&self, mut table: BlockTable, (names, tokens): (&[BlockHash], &[TokenId])) {
        let held = table.blocks().len();
        let missing = names.len() - held;
        let Ok(mut credit) = self.device.reserve(missing as u32) else { return };
        for depth in held..names.len() {
            let block = credit.bind().expect("a credit for each");
            let parent = depth.checked_sub(1).map(|before| names[before]);
            let name = CommittedBlock { hash: names[depth], parent, depth: depth as u32 };
            let _ = block.seal(name, &tokens[depth..=depth]);
            table.push(block);
        }
    }
}

impl Cache for Pools {
    fn serve(&mut self, prompt: &[u64]) -> usize {
        let names: Vec<_> = prompt.iter().map(|block| BlockHash(u128::from(*block))).collect();
        let tokens: Vec<_> = prompt.iter().map(|block| *block as TokenId).collect();
        let held = self.device.match_prefix(&names, &tokens);
        let below = self.host.as_ref().map(|host| host.match_run(held.len(), &names, &tokens));
        let found = held.len() + below.as_ref().map_or(0, Vec::len);
        self.fill(BlockTable::from_prefix(1, held), (&names, &tokens));
        // Released from the last to the first, as tables are.
        below.into_iter().flatten().rev().for_each(drop);
        self.host.iter().for_each(|host| self.sink(host));
        found
    }
}
