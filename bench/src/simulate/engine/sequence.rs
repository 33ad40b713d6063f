//! One request in an engine: its blocks, and how far it has come.

use std::time::Duration;

use kv_cache::{BlockHash, BlockPool, BlockTable, CommittedBlock};
use scheduler::batching::{Due, Progress, SequenceKey, SequenceView, Standing};
use scheduler::cost::StepShape;
use words::{ClientId, Targets};

use super::{Job, Task, Token};
use crate::simulate::names::{Namer, token};

#[derive(Debug)]
pub(super) struct Sequence {
    job: Job,
    standing: Standing,
    table: BlockTable,
    block_tokens: u32,
    /// Tokens that need KV before the next can be chosen.
    context_tokens: u32,
    /// Tokens that the client has had.
    spoken: u32,
    /// When the first and the latest came.
    since: Option<(Duration, Duration)>,
    /// Blocks that are published, and the name of the last.
    sealed: (usize, Option<BlockHash>),
    /// Of the prompt, found when it began.
    cached_tokens: Option<u32>,
}

// === impl Sequence ===

impl Sequence {
    pub(super) fn new(job: Job, block_tokens: u32) -> Self {
        Self {
            standing: Standing::Waiting,
            table: BlockTable::new(block_tokens),
            block_tokens,
            context_tokens: job.prompt_tokens,
            spoken: 0,
            since: None,
            sealed: (0, None),
            cached_tokens: None,
            job,
        }
    }

    /// One whose prompt was computed elsewhere, with its blocks; `None` while there is no room for those.
    ///
    /// What this pool has of the prompt already isn't sent.
    pub(super) fn received(
        job: &Job,
        pool: &BlockPool,
        block_tokens: u32,
        namer: Namer,
    ) -> Option<Self> {
        let Task::Decode { first } = job.task else { return None };
        let mut sequence = Self::new(job.clone(), block_tokens);
        sequence.pin(&job.names, pool);
        let prompt = job.prompt_tokens as usize;
        sequence.fill(prompt - sequence.table.tokens(), pool).then_some(())?;
        sequence.table.set_tokens(prompt);
        sequence.seal(namer);
        sequence.context_tokens += 1;
        sequence.spoken = 1;
        sequence.since = Some((first, first));
        sequence.cached_tokens = Some(0);
        Some(sequence)
    }

    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether its answer is generated here.
    pub(super) fn generates(&self) -> bool {
        self.job.task != Task::Prefill
    }

    /// Prompt tokens that are still to be computed.
    pub(super) fn prompt_tokens_left(&self) -> u64 {
        if self.spoken > 0 { 0 } else { (self.context_tokens - self.filled()).into() }
    }

    /// Tokens that a decode step reads for it.
    pub(super) fn context_read(&self) -> u64 {
        if self.spoken > 0 { self.filled().into() } else { 0 }
    }

    /// Tokens of the answer, once it is complete; what was computed for somebody else tells nothing of answers.
    pub(super) fn output_tokens(&self) -> Option<u32> {
        self.generates().then_some(self.spoken)
    }

    /// What `tokens` more of it are to a step.
    pub(super) fn part(&self, tokens: u32) -> StepShape {
        StepShape::part(self.filled(), tokens)
    }

    /// What the planner sees.
    pub(super) fn view(&self, key: SequenceKey, now: Duration, targets: &Targets) -> SequenceView {
        SequenceView {
            key,
            standing: self.standing,
            client: ClientId::default(),
            paused: false,
            stalled: false,
            context_tokens: self.context_tokens,
            filled_tokens: self.filled(),
            held_blocks: self.table.blocks().len() as u32,
            copies_tail: false,
            width: 1,
            due: Due::of(self.progress(now), targets),
        }
    }

    /// Looks its prefix up in the cache and pins what it finds; how many tokens that is.
    pub(super) fn pin_prefix(&mut self, pool: &BlockPool) -> u32 {
        // One token at least is computed, to choose the next from.
        let most = (self.job.prompt_tokens.saturating_sub(1) / self.block_tokens) as usize;
        let names = std::sync::Arc::clone(&self.job.names);
        self.pin(&names[..most.min(names.len())], pool);
        self.filled()
    }

    /// Gives up its place, and where it is preempted its blocks, too.
    pub(super) fn give_way(&mut self, is_preempted: bool) {
        self.standing = Standing::Waiting;
        if is_preempted {
            self.table = BlockTable::new(self.block_tokens);
            self.sealed = (0, None);
        }
    }

    /// Takes blocks for `tokens` more; whether there are as many.
    pub(super) fn bind(&mut self, tokens: u32, pool: &BlockPool) -> bool {
        if !self.fill(tokens as usize, pool) {
            return false;
        }
        if self.standing == Standing::Waiting {
            self.standing = Standing::Running;
            self.cached_tokens.get_or_insert(self.table.tokens() as u32);
        }
        true
    }

    /// `tokens` more have KV, which completes a token of the answer or doesn't.
    pub(super) fn advance(&mut self, tokens: u32, now: Duration, namer: Namer) -> Option<Token> {
        self.table.advance(tokens as usize);
        self.seal(namer);
        if self.filled() < self.context_tokens {
            return None;
        }
        self.context_tokens += 1;
        self.spoken += 1;
        let (first, _) = self.since.unwrap_or((now, now));
        self.since = Some((first, now));
        Some(Token {
            number: self.job.number,
            is_first: self.spoken == 1,
            is_last: self.job.task == Task::Prefill || self.spoken >= self.job.output_tokens,
            cached_tokens: self.cached_tokens.unwrap_or_default(),
        })
    }

    fn filled(&self) -> u32 {
        self.table.tokens() as u32
    }

    fn progress(&self, now: Duration) -> Progress {
        match self.since {
            None => Progress::Waiting { since: now.saturating_sub(self.job.asked) },
            Some((first, latest)) => Progress::Streaming {
                since: now.saturating_sub(first),
                gaps: self.spoken - 1,
                silent: now.saturating_sub(latest),
            },
        }
    }

    fn pin(&mut self, names: &[BlockHash], pool: &BlockPool) {
        let tokens: Vec<_> = names.iter().map(|name| token(*name)).collect();
        let found = pool.match_prefix(names, &tokens);
        self.sealed = (found.len(), found.len().checked_sub(1).map(|last| names[last]));
        self.table = BlockTable::from_prefix(self.block_tokens, found);
    }

    /// Takes the blocks that `tokens` more need, all or none.
    fn fill(&mut self, tokens: usize, pool: &BlockPool) -> bool {
        let missing = self.table.blocks_missing(tokens) as u32;
        let Ok(mut credit) = pool.reserve(missing) else { return false };
        let bound = credit.bind_many(missing).expect("as many blocks were reserved");
        bound.into_iter().for_each(|block| self.table.push(block));
        true
    }

    /// Publishes the blocks that have become full.
    fn seal(&mut self, namer: Namer) {
        let full = self.table.full_blocks(self.table.tokens());
        while self.sealed.0 < full {
            let (at, parent) = self.sealed;
            let depth = at as u32;
            let hash = self.job.names.get(at).copied();
            let hash = hash.unwrap_or_else(|| namer.private(self.job.number, depth));
            self.table.blocks()[at].seal(CommittedBlock { hash, parent, depth }, &[token(hash)]);
            self.sealed = (at + 1, Some(hash));
        }
    }
}
