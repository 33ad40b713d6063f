//! Choosing tokens and scoring them on the device: the twin of `sampling.cu`.
//!
//! What [`crate::sampler`] computes, from the same numbers: a step's requests go up in one copy,
//! tokens stay on the device for the next step, and results are written to pinned memory.

mod choosing;
mod request;

use std::ops::Range;

use words::TokenLogprob;

use super::compile::{Compiler, Constants, Defines};
use super::driver::address::Address;
use super::driver::device::{Device, Stream};
use super::driver::kernel::{Kernel, Launch, args};
use super::driver::memory::DeviceMemory;
use super::driver::pinned::PinnedMemory;
use crate::error::{EngineError, LogitsFault};
pub(super) use request::{Answer, Requests};
use request::{Choice, Edit, Request};

/// Threads of `greedy`.
const GREEDY_THREADS: u32 = 256;

/// Blocks of `greedy` over all rows, where there are as many: every multiprocessor has its fill, and
/// more would only mean more arrivals.
const GREEDY_BLOCKS: usize = 1024;

/// Blocks that share a row of `greedy` at most: one for each multiprocessor.
const GREEDY_SPLITS_MAX: usize = 132;

/// Bytes of a row's state between the blocks of `greedy`.
const GREEDY_STATE_BYTES: usize = 16;

/// What the kernels have from here, the sizes of what they read and write among it.
pub(crate) const CONSTANTS: Constants = &[
    ("GREEDY_THREADS", GREEDY_THREADS as usize),
    ("GREEDY_STATE_BYTES", GREEDY_STATE_BYTES),
    ("TOP_MAX", request::TOP_MAX),
    ("MODE_GREEDY", request::GREEDY as usize),
    ("MODE_CHOOSE", request::CHOOSE as usize),
    ("MODE_SCORE", request::SCORE as usize),
    ("STATUS_NOT_FINITE", request::NOT_FINITE as usize),
    ("REQUEST_BYTES", size_of::<Request>()),
    ("EDIT_BYTES", size_of::<Edit>()),
    ("CHOICE_BYTES", size_of::<Choice>()),
];

/// Logits of four tokens: what a row is shared out in.
const QUAD_BYTES: usize = 16;

/// A share of a row that leaves room for a second block on the multiprocessor.
const SHARE_BYTES: usize = 66 << 10;

/// Static shared memory of `choose`, with some to spare.
const STATIC_BYTES: usize = 33 << 10;

/// Shared memory that a block has without being granted more. The driver counts static memory, too,
/// and [`Kernel::launch`] asks for the grant when the dynamic part alone is larger: so it is made so.
const USUAL_BYTES: usize = 48 << 10;

/// Memory for the requests of a call at least: a slot that is outgrown is given back to the driver,
/// which waits for the device.
const SLOT_BYTES: usize = 256 << 10;

/// Chooses and scores for one model, on one stream.
#[derive(Debug)]
pub(super) struct Sampler {
    device: Device,
    greedy: Kernel,
    choose: Kernel,
    plan: Plan,
    /// Floats from one row of logits to the next.
    stride: usize,
    rows_max: usize,
    state: DeviceMemory,
    /// A copy of the logits to edit, where shared memory doesn't hold it.
    scratch: Option<DeviceMemory>,
    /// Of calls that are finished.
    slots: Vec<Slot>,
    /// Theirs, empty.
    lists: Vec<Requests>,
}

/// How `choose` is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    vocab: usize,
    /// Blocks that share a row.
    cluster: usize,
    threads: usize,
    /// Whether shares stay in shared memory.
    resident: bool,
    /// Whether rows are read 16 bytes at a time.
    aligned: bool,
}

/// Answers in the making. Must be finished by the sampler that began them.
#[derive(Debug)]
pub struct Pending {
    slot: Slot,
    requests: Requests,
}

/// The memory of one call.
#[derive(Debug)]
struct Slot {
    /// The choices, then what goes up: the two have one event.
    pinned: PinnedMemory,
    choices_bytes: usize,
    device: DeviceMemory,
}

// === impl Sampler ===

impl Sampler {
    /// Compiles, or finds, the kernels.
    ///
    /// - `vocab`: logits of a row; `stride`: floats from one row to the next.
    /// - `rows_max`: requests of a call.
    ///
    /// # Errors
    /// As [`Compiler::module`]; [`EngineError::Device`] if memory runs out.
    pub(super) fn new(
        compiler: &Compiler,
        stream: &Stream,
        (vocab, stride): (usize, usize),
        rows_max: usize,
    ) -> Result<Self, EngineError> {
        let device = compiler.device().clone();
        let properties = device.properties();
        let clusters = properties.capability >= (9, 0);
        let plan = Plan::new((vocab, stride), clusters, properties.shared_bytes_max as usize);
        let module = compiler.module("sampling.cu", &plan.defines())?;
        let state = DeviceMemory::new(&device, rows_max * GREEDY_STATE_BYTES)?;
        stream.fill(state.all(), 0)?;
        let scratch_bytes = rows_max * plan.quads() * QUAD_BYTES;
        let scratch =
            if plan.resident { None } else { Some(DeviceMemory::new(&device, scratch_bytes)?) };
        Ok(Self {
            greedy: module.kernel("greedy")?,
            choose: module.kernel("choose")?,
            device,
            plan,
            stride,
            rows_max,
            state,
            scratch,
            slots: Vec::new(),
            lists: Vec::new(),
        })
    }

    /// An empty list for requests of this sampler.
    #[must_use]
    pub(super) fn requests(&mut self) -> Requests {
        let Plan { vocab, aligned, .. } = self.plan;
        self.lists.pop().unwrap_or_else(|| Requests::new(vocab, aligned))
    }

    /// Starts to choose and score.
    ///
    /// - `logits`: f32 `[any, stride]`, written by the work submitted to `stream` before.
    /// - `tokens`: u32 `[requests]` on the device: what was chosen (or given) for each; 0 where
    ///   there is none to choose.
    ///
    /// # Errors
    /// [`EngineError::Device`] if there are too many requests, or the driver refuses.
    pub(super) fn submit(
        &mut self,
        stream: &Stream,
        logits: Address,
        requests: Requests,
        tokens: Address,
    ) -> Result<Pending, EngineError> {
        let count = requests.count();
        if count > self.rows_max {
            return Err(EngineError::Device(format!(
                "{count} requests for a sampler of {}",
                self.rows_max
            )));
        }
        let mut slot = self.slot(requests.bytes(), count)?;
        let upload = slot.upload(requests.bytes());
        let edits = requests.write(slot.pinned.host(upload.clone())?);
        let (list, stride) = (slot.device.address(), self.stride as i64);
        stream.copy(slot.device.part(0..upload.len()), slot.pinned.lend(upload))?;
        let choices = slot.pinned.lend(0..slot.choices_bytes).address();
        if requests.any_greedy() {
            let launch = greedy_launch(count);
            let (vocab, state) = (self.plan.vocab as i32, self.state.address());
            let arguments = args![logits, stride, vocab, list, choices, tokens, state];
            self.greedy.launch(stream, launch, arguments)?;
        }
        if requests.any_general() {
            let launch = self.plan.launch(count);
            let edits = slot.device.at(edits);
            let scratch = self.scratch.as_ref().map_or(Address::NONE, DeviceMemory::address);
            let arguments = args![logits, stride, list, edits, choices, tokens, scratch];
            self.choose.launch(stream, launch, arguments)?;
        }
        slot.pinned.mark(stream)?;
        Ok(Pending { slot, requests })
    }

    /// Waits for the answers to [`Requests::choose`]; one per request, in order.
    ///
    /// # Errors
    /// [`EngineError::Device`] if the kernels failed.
    pub(super) fn finish(&mut self, pending: Pending) -> Result<Vec<Answer>, EngineError> {
        self.answers(pending, Choice::answer)
    }

    /// Waits for the answers to [`Requests::score`]; one per request, in order.
    ///
    /// # Errors
    /// As [`Sampler::finish`].
    pub(super) fn finish_scores(
        &mut self,
        pending: Pending,
    ) -> Result<Vec<Result<TokenLogprob, LogitsFault>>, EngineError> {
        self.answers(pending, |choice, _| choice.score())
    }

    fn answers<A>(
        &mut self,
        pending: Pending,
        answer: impl Fn(&Choice, bool) -> A,
    ) -> Result<Vec<A>, EngineError> {
        let Pending { mut slot, mut requests } = pending;
        let choices = &*slot.pinned.host::<Choice>(0..slot.choices_bytes)?;
        let answers =
            choices.iter().zip(requests.logprobs()).map(|(choice, asked)| answer(choice, asked));
        let answers = answers.collect();
        requests.clear();
        self.slots.push(slot);
        self.lists.push(requests);
        Ok(answers)
    }

    /// Memory for a call; that of a finished one if it is large enough.
    fn slot(&mut self, bytes: usize, count: usize) -> Result<Slot, EngineError> {
        match self.slots.pop() {
            Some(slot) if slot.fits(bytes, count) => Ok(slot),
            _ => Slot::new(&self.device, bytes.max(SLOT_BYTES).next_power_of_two(), self.rows_max),
        }
    }
}

fn greedy_launch(count: usize) -> Launch {
    let splits = (GREEDY_BLOCKS / count.max(1)).clamp(1, GREEDY_SPLITS_MAX);
    Launch {
        grid: [splits as u32, count as u32, 1],
        block: GREEDY_THREADS,
        shared_bytes: 0,
        cluster: 1,
        overlaps: true,
    }
}

// === impl Plan ===

impl Plan {
    fn new((vocab, stride): (usize, usize), clusters: bool, shared_bytes_max: usize) -> Self {
        let room = shared_bytes_max.saturating_sub(STATIC_BYTES);
        let share = |cluster: usize| vocab.div_ceil(4).div_ceil(cluster) * QUAD_BYTES;
        let sizes = if clusters { &[1, 2, 4, 8][..] } else { &[1] };
        let small = sizes.iter().find(|&&cluster| share(cluster) <= SHARE_BYTES);
        let most = *small.unwrap_or_else(|| sizes.last().unwrap_or(&1));
        let resident = share(most) <= room;
        let cluster = if resident { most } else { 1 };
        Self { vocab, cluster, threads: 512, resident, aligned: stride.is_multiple_of(4) }
    }

    fn defines(&self) -> Defines {
        Defines::of(CONSTANTS)
            .with("VOCAB", self.vocab)
            .with("CLUSTER", self.cluster)
            .with("CHOOSE_THREADS", self.threads)
            .with("RESIDENT", u32::from(self.resident))
            .with("ALIGNED", u32::from(self.aligned))
    }

    fn quads(&self) -> usize {
        self.vocab.div_ceil(4)
    }

    fn launch(&self, count: usize) -> Launch {
        let share = self.quads().div_ceil(self.cluster) * QUAD_BYTES;
        let share = if !self.resident {
            0
        } else if share + STATIC_BYTES <= USUAL_BYTES {
            share
        } else {
            share.max(USUAL_BYTES + QUAD_BYTES)
        };
        Launch {
            grid: [self.cluster as u32, count as u32, 1],
            block: self.threads as u32,
            shared_bytes: share as u32,
            cluster: self.cluster as u32,
            overlaps: true,
        }
    }
}

// === impl Slot ===

impl Slot {
    /// - `bytes`: of the requests.
    fn new(device: &Device, bytes: usize, rows: usize) -> Result<Self, EngineError> {
        let choices_bytes = rows * size_of::<Choice>();
        Ok(Self {
            pinned: PinnedMemory::new(device, choices_bytes + bytes)?,
            choices_bytes,
            device: DeviceMemory::new(device, bytes)?,
        })
    }

    fn fits(&self, bytes: usize, count: usize) -> bool {
        self.device.bytes() >= bytes && self.choices_bytes >= count * size_of::<Choice>()
    }

    /// Where requests of so many bytes go up from.
    fn upload(&self, bytes: usize) -> Range<usize> {
        self.choices_bytes..self.choices_bytes + bytes
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Hopper's and Ampere's shared memory of a block.
    const HOPPER: usize = 227 << 10;
    const AMPERE: usize = 163 << 10;

    #[rstest]
    #[case::llama(128_256, HOPPER, true, 8, true)]
    #[case::qwen(151_936, HOPPER, true, 8, true)]
    #[case::mistral(32_000, HOPPER, true, 2, true)]
    #[case::tiny(1_000, HOPPER, true, 1, true)]
    #[case::huge(262_144, HOPPER, true, 8, true)]
    #[case::without_clusters(128_256, AMPERE, false, 1, false)]
    #[case::small_without_clusters(32_000, AMPERE, false, 1, true)]
    fn a_row_is_shared_out(
        #[case] vocab: usize,
        #[case] shared: usize,
        #[case] clusters: bool,
        #[case] cluster: usize,
        #[case] resident: bool,
    ) {
        let plan = Plan::new((vocab, vocab), clusters, shared);
        assert_eq!((plan.cluster, plan.resident), (cluster, resident));
        assert!(plan.launch(1).shared_bytes as usize + STATIC_BYTES <= shared);
    }

    #[rstest]
    #[case::all_is_usual(2_000, 8_000)]
    #[case::both_parts_are_more(8_000, (48 << 10) + 16)]
    #[case::one_part_is_more(32_000, 64_000)]
    fn shared_memory_past_the_usual_is_asked_for(#[case] vocab: usize, #[case] want: u32) {
        assert_eq!(Plan::new((vocab, vocab), true, HOPPER).launch(1).shared_bytes, want);
    }

    #[rstest]
    #[case(1, 132)]
    #[case(64, 16)]
    #[case(2000, 1)]
    fn greedy_rows_fill_the_device(#[case] count: usize, #[case] splits: u32) {
        assert_eq!(greedy_launch(count).grid, [splits, count as u32, 1]);
    }
}
