//! How much waits, counted where it is submitted so that a full queue refuses at once.

use std::sync::Arc;

use parking_lot::Mutex;

/// Counts of what was submitted and hasn't started.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Waiting>);

/// What waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Submissions with a prompt to compute.
    pub(crate) prompts: u32,
    /// Submissions whose KV is there.
    pub(crate) resumed: u32,
    /// Tokens of the prompts.
    pub(crate) prefill_tokens: u64,
}

/// One submission's place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct QueuePlace {
    queue: Arc<Queue>,
    part: Waiting,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn waiting(&self) -> Waiting {
        *self.0.lock()
    }

    /// Takes a place if there is one. The two kinds don't take each other's places: a hand-off was
    /// admitted before its prompt was computed, and refusing it now would waste that.
    pub(crate) fn enter(self: &Arc<Self>, part: Waiting, each_max: u32) -> Option<QueuePlace> {
        let mut waiting = self.0.lock();
        let (prompts, resumed) = (waiting.prompts + part.prompts, waiting.resumed + part.resumed);
        if prompts.max(resumed) > each_max {
            return None;
        }
        (waiting.prompts, waiting.resumed) = (prompts, resumed);
        waiting.prefill_tokens += part.prefill_tokens;
        Some(QueuePlace { queue: Arc::clone(self), part })
    }
}

// === impl Waiting ===

impl Waiting {
    pub(crate) fn prompt(tokens: usize) -> Self {
        Self { prompts: 1, resumed: 0, prefill_tokens: tokens as u64 }
    }

    pub(crate) fn resumed() -> Self {
        Self { prompts: 0, resumed: 1, prefill_tokens: 0 }
    }
}

// === impl QueuePlace ===

impl Drop for QueuePlace {
    fn drop(&mut self) {
        let mut waiting = self.queue.0.lock();
        waiting.prompts -= self.part.prompts;
        waiting.resumed -= self.part.resumed;
        waiting.prefill_tokens -= self.part.prefill_tokens;
    }
}
