//! What orders of eviction find of a trace's prompts: the pool's own beside others, and the best that can be.
//!
//! ```text
//! cargo run --release -p bench --example eviction -- TRACE..
//! ```
//!
//! One cache, requests one after the other; a block is what a hash of the trace stands for (512 tokens). What counts is the run of
//! blocks from a prompt's first that is there. Sizes are shares of all the trace's blocks.

#![expect(clippy::print_stdout, reason = "a table for whoever runs it")]

mod others;
mod pools;

use std::collections::HashSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use bench::Trace;

use self::others::{Belady, Lru, S3Fifo, Sieve};
use self::pools::Pools;

/// Of all blocks of a trace.
const SHARES: [f64; 5] = [0.02, 0.05, 0.1, 0.25, 0.5];

/// The memory below the device's, in which the device's fits so often.
const HOST_TIMES: usize = 4;

/// A cache that prompts are looked up in and put into.
trait Cache {
    /// How many of a prompt's first blocks are there; all of it is from here on.
    fn serve(&mut self, prompt: &[u64]) -> usize;
}

/// A cache that knows no prompts, only blocks.
trait Order {
    /// Whether a block is there.
    fn has(&self, block: u64) -> bool;

    /// Notes that a prompt has been computed and is released, from its last block to its first.
    fn put(&mut self, prompt: &[u64]);
}

// === impl Cache ===

impl<O: Order> Cache for O {
    fn serve(&mut self, prompt: &[u64]) -> usize {
        let found = prompt.iter().take_while(|block| self.has(**block)).count();
        self.put(prompt);
        found
    }
}

fn main() -> Result<()> {
    for path in std::env::args().skip(1) {
        let trace = Trace::read(Path::new(&path), usize::MAX)?;
        let mut requests = trace.requests;
        requests.sort_by(|a, b| a.timestamp.total_cmp(&b.timestamp));
        let prompts: Vec<_> = requests.into_iter().map(|request| request.hash_ids).collect();
        let name = Path::new(&path).file_name().context("a file")?.to_string_lossy().into_owned();
        show(&name, &prompts);
    }
    Ok(())
}

fn show(name: &str, prompts: &[Vec<u64>]) {
    let blocks = prompts.iter().flatten().collect::<HashSet<_>>().len();
    println!("{name}: {} prompts, {blocks} blocks, of which are found, %:", prompts.len());
    println!(
        "{:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>12} {:>8}",
        "share", "blocks", "pool", "LRU", "S3-FIFO", "SIEVE", "Belady", "pool + host", "lost"
    );
    for share in SHARES {
        let room = (blocks as f64 * share) as usize;
        let mut over_host = Pools::new(room, room * HOST_TIMES);
        let found = [
            found(prompts, &mut Pools::new(room, 0)),
            found(prompts, &mut Lru::new(room)),
            found(prompts, &mut S3Fifo::new(room)),
            found(prompts, &mut Sieve::new(room)),
            found(prompts, &mut Belady::new(room, prompts)),
            found(prompts, &mut over_host),
        ];
        print!("{share:>6} {room:>8}");
        found.iter().enumerate().for_each(|(at, found)| {
            print!(" {found:>width$.2}", width = if at == 5 { 12 } else { 8 });
        });
        println!(" {:>8}", over_host.lost());
    }
}

/// The share of all blocks that is found, in percent.
fn found(prompts: &[Vec<u64>], cache: &mut dyn Cache) -> f64 {
    let found: usize = prompts.iter().map(|prompt| cache.serve(prompt)).sum();
    let all: usize = prompts.iter().map(Vec::len).sum();
    100.0 * found as f64 / all as f64
}
