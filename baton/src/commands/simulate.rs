//! `baton simulate`: what a trace would come to on workers that aren't there.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::simulate::{Fleet, Handoff, Policy, SimulateOptions, SimulatedRun, page, size};
use bench::{Body, Slo, Trace};
use clap::Args;
use scheduler::cost::StepSeed;

use crate::commands::bench::keep::{self, KeepArgs};
use crate::out;

const EXAMPLES: &str = "\
Examples:
  baton simulate --trace conversation.jsonl --engines 8
  baton simulate --trace conversation.jsonl --prefill 4 --decode 4 --speed 2 --policy all --json a.json
  baton simulate --trace conversation.jsonl --size --slo-ttft-ms 2000 --slo-tpot-ms 50
  baton simulate --trace azure.csv --engines 2 --slo-ttft-ms 500 --slo-tpot-ms 30 --routers 2 --events-delay-ms 200";

/// Token slots of a block where a trace says which blocks are alike, unless told otherwise: small ones take time and find
/// no more, as its own are of 512.
const BLOCK_TOKENS_NAMED: u32 = 128;

/// The same where it knows lengths only: what a worker has.
const BLOCK_TOKENS: u32 = 16;

/// `baton simulate`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SimulateArgs {
    /// What is asked: JSON lines as Mooncake's (`timestamp`, `input_length`, `output_length`, `hash_ids`; with `session`
    /// and `after_ms` in chains that wait for answers), packed or not; or a table as Azure's or BurstGPT's.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Its first requests only.
    #[arg(long, value_name = "REQUESTS")]
    limit: Option<NonZeroUsize>,
    /// How many times as fast as recorded.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    speed: f64,
    /// Lengths are multiplied by this.
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    scale: f64,
    /// Workers that do both phases.
    #[arg(long, value_name = "N", conflicts_with_all = ["prefill", "decode"])]
    engines: Option<NonZeroUsize>,
    /// Workers that compute prompts.
    #[arg(long, value_name = "N", default_value = "1")]
    prefill: usize,
    /// Workers that generate.
    #[arg(long, value_name = "N", default_value = "1")]
    decode: NonZeroUsize,
    /// Memory of a worker's KV cache, GiB.
    #[arg(long, value_name = "GIB", default_value_t = 100.0, value_parser = positive)]
    kv_gib: f64,
    /// The same in blocks.
    #[arg(long, value_name = "BLOCKS", conflicts_with = "kv_gib")]
    kv_blocks: Option<NonZeroU32>,
    /// KV of a token, bytes; by default that of Llama-3.1-8B in bf16.
    #[arg(long, value_name = "BYTES", default_value = "131072")]
    kv_token_bytes: NonZeroU32,
    /// Token slots of a block. Default: 128, or 16 for a trace of lengths only.
    #[arg(long, value_name = "TOKENS")]
    block_tokens: Option<NonZeroU32>,
    /// Sequences that run at once on a worker.
    #[arg(long, value_name = "N", default_value = "256")]
    sequences_max: NonZeroU32,
    /// Longest time to the first token, ms: who would miss it is refused.
    #[arg(long, default_value_t = 5000)]
    slo_ttft_ms: u64,
    /// Longest mean time between tokens, ms.
    #[arg(long, default_value_t = 200)]
    slo_tpot_ms: u64,
    /// Longest time between two tokens that steps are cut for, ms.
    #[arg(long, value_name = "MS")]
    slo_itl_p99_ms: Option<u64>,
    /// Routers, each of which sees its own requests and the workers' reports.
    #[arg(long, value_name = "N", default_value = "1")]
    routers: NonZeroUsize,
    /// How old workers' reports are when routers hear of them, ms.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    events_delay_ms: u64,
    /// By which rules workers are chosen, with commas between: ours, random, round-robin, least-loaded,
    /// sglang (or sglang:MORE:TIMES:SHARE), dynamo (dynamo:SCALE), mooncake, llm-d (llm-d:QUEUE:MEMORY:PREFIX:TOKENS); or all.
    #[arg(long, value_name = "NAMES", default_value = "ours")]
    policy: String,
    /// Same seed, same result.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Look for the fewest workers that serve the trace, by the first policy: 99 % of requests within the targets.
    #[arg(long, conflicts_with_all = ["engines", "prefill", "decode", "json", "html"])]
    size: bool,
    #[command(flatten)]
    keep: KeepArgs,
    /// Write a page with plots over the time, too.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If the trace can't be read, or a file can't be written.
pub(crate) fn run(args: &SimulateArgs) -> Result<()> {
    args.keep.check_beside("--html", args.html.as_deref())?;
    let options = args.options()?;
    if args.size {
        let sizing = size(&options, &mut |tried| out::note(tried))?;
        return out::line(sizing);
    }
    let has_several = options.policies.len() > 1;
    let mut on_run = |run: &SimulatedRun| {
        if has_several {
            out::note(format_args!("{run}"));
        }
    };
    let report = bench::simulate::run(&options, &mut on_run)?;
    let document = keep::document(Body::Simulate(report.clone()));
    args.keep.write(&document)?;
    if let Some(path) = &args.html {
        std::fs::write(path, page(&report, &document))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    out::line(&report)
}

// === impl SimulateArgs ===

impl SimulateArgs {
    fn options(&self) -> Result<SimulateOptions> {
        let limit = self.limit.map_or(usize::MAX, NonZeroUsize::get);
        let trace = Trace::read(&self.trace, limit)?;
        let trace = Trace { length_scale: self.scale, speed: self.speed, ..trace };
        Ok(SimulateOptions {
            fleet: self.fleet(&trace),
            trace,
            routers: self.routers.get(),
            events_delay: Duration::from_millis(self.events_delay_ms),
            slo: Slo {
                ttft_ms: self.slo_ttft_ms as f64,
                tpot_ms: self.slo_tpot_ms as f64,
                itl_p99_ms: self.slo_itl_p99_ms.map(|ms| ms as f64),
            },
            policies: policies(&self.policy)?,
            seed: self.seed,
            progress: true,
        })
    }

    fn fleet(&self, trace: &Trace) -> Fleet {
        let is_named = trace.requests.iter().any(|request| !request.hash_ids.is_empty());
        let usual = if is_named { BLOCK_TOKENS_NAMED } else { BLOCK_TOKENS };
        let block_tokens = self.block_tokens.map_or(usual, NonZeroU32::get);
        let block_bytes = f64::from(self.kv_token_bytes.get()) * f64::from(block_tokens);
        let blocks = (self.kv_gib * f64::from(1 << 30) / block_bytes) as u32;
        Fleet {
            prefill: if self.engines.is_some() { 0 } else { self.prefill },
            decode: self.engines.unwrap_or(self.decode).get(),
            blocks: self.kv_blocks.map_or(blocks, NonZeroU32::get),
            block_tokens,
            sequences_max: self.sequences_max.get(),
            steps: StepSeed::GPU,
            handoff: Handoff::default(),
        }
    }
}

fn policies(names: &str) -> Result<Vec<Policy>> {
    if names == "all" {
        return Ok(Policy::all());
    }
    let named = names.split(',').map(|name| name.trim().parse());
    named.collect::<Result<_, String>>().map_err(anyhow::Error::msg)
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number: &f64| *number > 0.0 && number.is_finite())
        .ok_or("want a number above 0".to_owned())
}
