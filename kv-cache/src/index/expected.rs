//! What workers will have before they can tell: the prompts that were just sent to them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Holder;
use crate::BlockHash;

/// Prompts that are remembered: some seconds of a busy router. A look compares with each of them.
const PROMPTS_MAX: usize = 1_024;

/// Names that are kept for them, 16 MiB.
const NAMES_MAX: usize = 1 << 20;

/// Prompts on their way, each for a time.
#[derive(Debug, Default)]
pub struct Expected {
    /// Oldest first.
    prompts: VecDeque<Prompt>,
    names: usize,
}

#[derive(Debug)]
struct Prompt {
    holder: Holder,
    names: Arc<[BlockHash]>,
    until: Instant,
}

// === impl Expected ===

impl Expected {
    /// Remembers that `holder` will have these blocks, from `now` on for a time.
    pub fn add(&mut self, holder: Holder, names: Arc<[BlockHash]>, now: Instant, lasts: Duration) {
        self.names += names.len();
        self.prompts.push_back(Prompt { holder, names, until: now + lasts });
        let too_much = |it: &Self| it.prompts.len() > PROMPTS_MAX || it.names > NAMES_MAX;
        let is_over = |it: &Self| it.prompts.front().is_some_and(|oldest| oldest.until <= now);
        while too_much(self) || is_over(self) {
            let gone = self.prompts.pop_front();
            self.names -= gone.map_or(0, |gone| gone.names.len());
        }
    }

    /// Leading blocks that each holder will have.
    #[must_use]
    pub fn find(&self, names: &[BlockHash], now: Instant) -> HashMap<Holder, u32> {
        let mut found = HashMap::new();
        for prompt in self.prompts.iter().filter(|prompt| prompt.until > now) {
            let common = common_blocks(&prompt.names, names);
            if common > 0 {
                let best: &mut u32 = found.entry(prompt.holder).or_default();
                *best = common.max(*best);
            }
        }
        found
    }

    /// Forgets what was sent to a holder that is gone.
    pub fn forget(&mut self, holder: Holder) {
        self.prompts.retain(|prompt| prompt.holder != holder);
        self.names = self.prompts.iter().map(|prompt| prompt.names.len()).sum();
    }
}

/// Blocks that two prompts begin with. Equal names mean that all before them are equal, too.
fn common_blocks(a: &[BlockHash], b: &[BlockHash]) -> u32 {
    let (mut equal, mut differs) = (0, a.len().min(b.len()) + 1);
    while equal + 1 < differs {
        let middle = usize::midpoint(equal, differs);
        if a[middle - 1] == b[middle - 1] { equal = middle } else { differs = middle }
    }
    equal as u32
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::{ChainHasher, PrefixIndex};

    fn names(tokens: &[u32]) -> Arc<[BlockHash]> {
        ChainHasher::new("m", b"").hash_blocks(None, tokens, 1).into()
    }

    fn holders() -> [Holder; 2] {
        let mut index = PrefixIndex::new(1 << 20);
        [(); 2].map(|()| index.join().expect("room"))
    }

    #[rstest]
    #[case(&[], &[], 0)]
    #[case(&[1, 2, 3], &[], 0)]
    #[case(&[1, 2, 3], &[2, 2, 3], 0)]
    #[case(&[1, 2, 3], &[1, 3, 3], 1)]
    #[case(&[1, 2, 3], &[1, 2], 2)]
    #[case(&[1, 2, 3], &[1, 2, 3, 4], 3)]
    fn prompts_share_what_they_begin_with(#[case] a: &[u32], #[case] b: &[u32], #[case] want: u32) {
        assert_eq!(common_blocks(&names(a), &names(b)), want);
        assert_eq!(common_blocks(&names(b), &names(a)), want);
    }

    #[test]
    fn what_is_sent_is_expected_for_a_time() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let [a, b] = holders();
        let mut expected = Expected::default();
        expected.add(a, names(&[1, 2, 3]), now, second);
        expected.add(b, names(&[1, 2]), now, second * 3);
        let found = |expected: &Expected, at| {
            let found = expected.find(&names(&[1, 2, 3, 4]), at);
            [a, b].map(|holder| found.get(&holder).copied().unwrap_or(0))
        };
        assert_eq!(found(&expected, now), [3, 2]);
        assert_eq!(found(&expected, now + second), [0, 2]);
        expected.add(a, names(&[1]), now + second, second);
        assert_eq!((expected.prompts.len(), expected.names), (2, 3));
        expected.forget(b);
        assert_eq!(found(&expected, now + second), [1, 0]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (now, hour) = (Instant::now(), Duration::from_secs(3600));
        let ([holder, _], mut expected) = (holders(), Expected::default());
        for prompt in 0..5_000 {
            expected.add(holder, names(&[prompt, 2, 3]), now, hour);
        }
        assert_eq!((expected.prompts.len(), expected.names), (PROMPTS_MAX, 3 * PROMPTS_MAX));
    }
}
