//! What an input costs, and what it may cost.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What one input may cost.
///
/// Time is the processors', not the wall's: on a busy machine only the first says something about an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Of an input; what is longer is cut.
    pub bytes_max: usize,
    /// Time, of all threads.
    pub cpu_max: Duration,
    /// Memory at a time, beyond what was in use before.
    pub memory_bytes_max: usize,
}

/// What an input has cost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    cpu: Duration,
    memory_bytes: usize,
}

// === impl Cost ===

impl Cost {
    /// Far above what an honest input of this size costs, also with a fuzzer's counters in the code, and far
    /// below what would be felt.
    pub const USUAL: Self = Self {
        bytes_max: 4 << 10,
        cpu_max: Duration::from_millis(500),
        memory_bytes_max: 16 << 20,
    };

    pub(crate) fn check(&self, spent: Spent, bytes: usize) {
        assert!(spent.cpu <= self.cpu_max, "{bytes} bytes took {:?}", spent.cpu);
        let memory = spent.memory_bytes;
        assert!(memory <= self.memory_bytes_max, "{bytes} bytes took {memory} bytes of memory");
    }
}

/// Does the work, and says what it cost.
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (T, Spent) {
    MEMORY.reset_peak_usage();
    let (memory, begun) = (MEMORY.current_usage(), cpu_time());
    let done = work();
    let memory_bytes = MEMORY.peak_usage().saturating_sub(memory);
    (done, Spent { cpu: cpu_time().saturating_sub(begun), memory_bytes })
}

/// Of the whole process: work may be on other threads.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
