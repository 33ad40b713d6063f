//! A cluster in virtual time: what a trace would come to on workers that aren't there.
//!
//! What decides is the real thing: `scheduler` places, lets in and plans steps, `kv_cache` has the blocks. Only the models
//! are none: a step takes what a table of the machine says. So a trace of an hour takes seconds, and rules of placement
//! that were published elsewhere can be laid beside ours.

mod agenda;
mod caches;
mod engine;
mod fleet;
mod history;
mod house;
mod ideal;
mod names;
mod page;
mod policy;
mod report;
mod router;
mod size;

use std::time::Duration;

use anyhow::{Result, ensure};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use scheduler::SloTargets;

pub use self::fleet::{Fleet, Handoff};
pub use self::history::{Answered, Moment};
use self::house::House;
pub use self::page::page;
pub use self::policy::Policy;
pub use self::report::{SimulateReport, SimulatedRun, WorkerRun};
pub use self::size::{Sized, Sizing, size};
use crate::load::Slo;
use crate::workload::Trace;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct SimulateOptions {
    /// What is asked.
    pub trace: Trace,
    /// Of whom.
    pub fleet: Fleet,
    /// How many routers place requests, each by what it sees itself.
    pub routers: usize,
    /// From a worker's report to the routers that hear of it.
    pub events_delay: Duration,
    /// What requests are held to, and judged by.
    pub slo: Slo,
    /// The rules of placement, one after another on the same requests.
    pub policies: Vec<Policy>,
    /// Same seed, same result.
    pub seed: u64,
    /// Show a progress bar (only ever on a terminal).
    pub progress: bool,
}

/// Randomness, apart for each who needs some.
#[derive(Clone, Copy, Debug)]
struct Seeds(u64);

/// Replays the trace by each policy.
///
/// - `on_run`: hears of each.
///
/// # Errors
/// If there are no workers for it.
pub fn run(
    options: &SimulateOptions,
    on_run: &mut dyn FnMut(&SimulatedRun),
) -> Result<SimulateReport> {
    let Fleet { decode, blocks, block_tokens, .. } = options.fleet;
    ensure!(decode > 0, "nobody generates: at least one engine or decode worker is needed");
    ensure!(blocks > 0 && block_tokens > 0, "a worker has at least one block of one token");
    ensure!(options.routers > 0, "nobody places requests: at least one router is needed");
    let mut runs = Vec::with_capacity(options.policies.len());
    for policy in &options.policies {
        let run = House::new(options, *policy).run();
        on_run(&run);
        runs.push(run);
    }
    Ok(SimulateReport::new(options, runs))
}

// === impl SimulateOptions ===

impl SimulateOptions {
    fn targets(&self) -> SloTargets {
        let of_ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        SloTargets { ttft: of_ms(self.slo.ttft_ms), tpot: of_ms(self.slo.tpot_ms) }
    }
}

// === impl Seeds ===

impl Seeds {
    fn router(self, number: usize) -> ChaCha8Rng {
        self.stream(2 * number as u64)
    }

    fn engine(self, number: usize) -> ChaCha8Rng {
        self.stream(2 * number as u64 + 1)
    }

    fn stream(self, number: u64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.0);
        rng.set_stream(number);
        rng
    }
}

#[cfg(test)]
mod tests;
