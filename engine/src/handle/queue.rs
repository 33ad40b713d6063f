//! How much waits, counted where it is submitted so that a full queue refuses at once.

use std::sync::Arc;

use parking_lot::Mutex;
use scheduler::Backlog;
use words::ClientId;

/// Counts of what was submitted and hasn't started.
#[derive(Debug, Default)]
pub(crate) struct Queue(Mutex<Waiting>);

/// What waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Submissions with a prompt to compute.
    pub(crate) prompts: u32,
    /// Submissions whose KV is there.
    pub(crate) resumed: u32,
    /// Tokens of the prompts.
    pub(crate) backlog: Backlog,
}

/// What is submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// A prompt to compute.
    Prompt {
        /// Whose.
        client: ClientId,
        /// How long.
        tokens: u64,
    },
    /// What has its KV.
    Resumed,
}

/// One submission's place in the queue; dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct QueuePlace {
    queue: Arc<Queue>,
    part: Part,
}

// === impl Queue ===

impl Queue {
    pub(crate) fn waiting(&self) -> Waiting {
        self.0.lock().clone()
    }

    /// Takes a place if there is one. The two kinds don't take each other's places: a hand-off was
    /// admitted before its prompt was computed, and refusing it now would waste that.
    pub(crate) fn enter(self: &Arc<Self>, part: Part, each_max: u32) -> Option<QueuePlace> {
        let mut waiting = self.0.lock();
        if waiting.of_kind(part) >= each_max {
            return None;
        }
        waiting.add(part);
        Some(QueuePlace { queue: Arc::clone(self), part })
    }
}

// === impl Waiting ===

impl Waiting {
    fn of_kind(&self, part: Part) -> u32 {
        match part {
            Part::Prompt { .. } => self.prompts,
            Part::Resumed => self.resumed,
        }
    }

    fn add(&mut self, part: Part) {
        match part {
            Part::Prompt { client, tokens } => {
                self.prompts += 1;
                self.backlog.add(client, tokens);
            }
            Part::Resumed => self.resumed += 1,
        }
    }

    fn remove(&mut self, part: Part) {
        match part {
            Part::Prompt { client, tokens } => {
                self.prompts -= 1;
                self.backlog.remove(client, tokens);
            }
            Part::Resumed => self.resumed -= 1,
        }
    }
}

// === impl QueuePlace ===

impl Drop for QueuePlace {
    fn drop(&mut self) {
        self.queue.0.lock().remove(self.part);
    }
}
