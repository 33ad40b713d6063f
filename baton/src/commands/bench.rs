//! `baton bench`: measures a running cluster, one engine, or its kernels.

mod device;
mod engine;
mod kernels;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use bench::{Arrivals, Conversation, Fixed, LoadOptions, Slo, Spread, Trace, Workload};
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand, ValueEnum};

use super::reach::ReachArgs;
use crate::out;

/// Measures a running cluster, one engine, or its kernels.
#[derive(Args, Clone, Debug)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    /// Sends load to an OpenAI endpoint and reports TTFT, TPOT, ITL and goodput.
    Serve(Box<ServeArgs>),
    /// Runs one engine, without a cluster, and compares it with what the hardware allows.
    Engine(Box<engine::EngineArgs>),
    /// Checks every kernel against the CPU, and times it.
    Kernels(Box<kernels::KernelArgs>),
}

/// `baton bench serve`.
#[derive(Args, Clone, Debug)]
struct ServeArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// The model; by default the first one served.
    #[arg(long)]
    model: Option<String>,
    /// What clients say.
    #[arg(long, value_enum, default_value_t = Kind::Fixed)]
    workload: Kind,
    /// Requests (fixed), chats (conversation), or lines of the trace at most.
    #[arg(long, default_value_t = 100, value_parser = at_least_one())]
    requests: usize,
    /// Tokens of a prompt; words of a chat's first message.
    #[arg(long, default_value_t = 1024)]
    input: u32,
    /// Tokens of an answer.
    #[arg(long, default_value_t = 128)]
    output: u32,
    /// Leading prompt tokens that all requests share.
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// Lengths vary by this much, percent.
    #[arg(long, default_value_t = 0)]
    spread: u32,
    /// Requests of a chat.
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// A recorded workload, one JSON object a line (timestamp, `input_length`, `output_length`, `hash_ids`).
    #[arg(long, value_name = "FILE", required_if_eq("workload", "trace"))]
    trace: Option<PathBuf>,
    /// Sessions per second, at random times; without it --clients at a time.
    #[arg(long, value_name = "PER_S", value_parser = per_second)]
    rate: Option<f64>,
    /// Sessions at a time. A request that is refused for a time (Retry-After) is sent again after it; with --rate
    /// it has failed.
    #[arg(long, default_value_t = 8, conflicts_with = "rate", value_parser = at_least_one())]
    clients: usize,
    /// Sessions before the clock starts.
    #[arg(long, default_value_t = 4)]
    warm_up: usize,
    /// Stop sending after this many seconds.
    #[arg(long, value_name = "S")]
    seconds: Option<u32>,
    /// For goodput: longest time to the first token, ms.
    #[arg(long, default_value_t = 1000)]
    slo_ttft_ms: u64,
    /// For goodput: longest mean time between tokens, ms.
    #[arg(long, default_value_t = 50)]
    slo_tpot_ms: u64,
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    temperature: f64,
    /// Same seed, same requests, which a second run finds in the cache. Default: a fresh one, which the
    /// report tells.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Fail if more requests than this share do; if all do, it always fails.
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0, value_parser = percent)]
    failures_max: f64,
    /// Write the report as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Kind {
    /// Single prompts of one length.
    Fixed,
    /// Chats of several turns.
    Conversation,
    /// A recorded workload.
    Trace,
}

/// Runs the command.
///
/// # Errors
/// If the endpoint can't be reached, the device can't be used, or a file can't be read or written.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    match args.what {
        What::Serve(args) => serve(&args).await,
        What::Engine(args) => engine::run(*args).await,
        What::Kernels(args) => kernels::run(*args).await,
    }
}

async fn serve(args: &ServeArgs) -> Result<()> {
    if let Some(folder) = args.json.as_deref().and_then(Path::parent) {
        let is_there = folder.as_os_str().is_empty() || folder.is_dir();
        ensure!(is_there, "--json: there is no folder {}", folder.display());
    }
    let cancel = cluster::shutdown_signal()?;
    let report = bench::load::run(args.options()?, cancel).await?;
    // Whoever reads only its beginning has what he wants.
    let _ = out::line(&report);
    if let Some(path) = &args.json {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    match report.flaw(args.failures_max) {
        Some(flaw) => bail!("{flaw}"),
        None => Ok(()),
    }
}

/// A seed that no earlier run had, short enough to be typed again.
fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64 % 1_000_000_000_000
}

/// Reads a count that can't be none.
fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

// === impl ServeArgs ===

impl ServeArgs {
    fn options(&self) -> Result<LoadOptions> {
        let arrivals = match self.rate {
            Some(sessions_per_s) => Arrivals::Poisson { sessions_per_s, in_flight_max: 4096 },
            None => Arrivals::Closed { clients: self.clients },
        };
        Ok(LoadOptions {
            server: self.reach.options(),
            model: self.model.clone(),
            workload: self.workload()?,
            arrivals,
            warm_up: self.warm_up,
            time_max: self.seconds.map(|seconds| Duration::from_secs(seconds.into())),
            request_timeout: Duration::from_secs(600),
            slo: Slo {
                ttft: Duration::from_millis(self.slo_ttft_ms),
                tpot: Duration::from_millis(self.slo_tpot_ms),
            },
            temperature: self.temperature,
            seed: self.seed.unwrap_or_else(fresh_seed),
            progress: true,
        })
    }

    fn workload(&self) -> Result<Workload> {
        Ok(match (self.workload, &self.trace) {
            (Kind::Fixed, _) => Workload::Fixed(Fixed {
                input_tokens: self.input,
                output_tokens: self.output,
                shared_tokens: self.shared,
                spread: Spread(self.spread),
                requests: self.requests,
            }),
            (Kind::Conversation, _) => Workload::Conversation(Conversation {
                sessions: self.requests,
                turns: self.turns,
                first_words: self.input as usize,
                turn_words: 32,
                output_tokens: self.output,
                think: Duration::ZERO,
            }),
            (Kind::Trace, trace) => {
                let path = trace.as_ref().context("--trace FILE is missing")?;
                Workload::Trace(Trace::read(path, self.requests)?)
            }
        })
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(temperature) if (0.0..=2.0).contains(&temperature) => Ok(temperature),
        _ => Err("want a number from 0 to 2".into()),
    }
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("want a number from 0 to 100".into()),
    }
}

fn per_second(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && f64::is_finite(rate) => Ok(rate),
        _ => Err("want a number above 0".into()),
    }
}
