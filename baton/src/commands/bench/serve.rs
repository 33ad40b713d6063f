//! `baton bench serve`: load on an OpenAI endpoint.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use bench::load::page::page;
use bench::{
    Arrivals, Body, Conversation, Fixed, LoadOptions, Rates, Report, Slo, Spread, Trace, Workload,
};
use clap::{Args, ValueEnum};

use super::keep::{self, KeepArgs};
use crate::commands::reach::ReachArgs;
use crate::out;

/// Where neither a number of requests nor a time is given.
const REQUESTS: usize = 100;

/// At a rate, so many wait for answers at most; a server that is so far behind is measured.
const IN_FLIGHT_MAX: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  baton bench serve --rate 2 --input 128 --output 32 --seconds 20
  baton bench serve --rate 16..40 --seconds 30 --slo-ttft-ms 500 --slo-tpot-ms 30 --json a.json --html a.html
  baton bench compare a.json b.json --fail-above 5";

/// `baton bench serve`.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    reach: ReachArgs,
    /// The model; by default the first one served.
    #[arg(long)]
    model: Option<String>,
    /// What clients say. Default: fixed, or with --trace trace.
    #[arg(long, value_enum)]
    workload: Option<Kind>,
    /// Requests (fixed), chats (conversation), or requests of the trace at most; at each rate. Default: 100, or
    /// with --seconds as many as there is time for; all of a trace.
    #[arg(long)]
    requests: Option<NonZeroUsize>,
    /// Tokens of a prompt; words of a chat's first message.
    #[arg(long, default_value = "1024")]
    input: NonZeroU32,
    /// Tokens of an answer.
    #[arg(long, default_value = "128")]
    output: NonZeroU32,
    /// Leading prompt tokens that all requests share.
    #[arg(long, default_value_t = 0)]
    shared: u32,
    /// Lengths vary by this much, percent.
    #[arg(long, default_value_t = 0)]
    spread: u32,
    /// Requests of a chat.
    #[arg(long, default_value = "5")]
    turns: NonZeroUsize,
    /// A recorded workload, each request at its time or in a chain after an answer: what `baton simulate` takes.
    /// Equal hashes become equal tokens.
    #[arg(long, value_name = "FILE", required_if_eq("workload", "trace"))]
    trace: Option<PathBuf>,
    /// How many times as fast as recorded.
    #[arg(long, value_name = "TIMES", requires = "trace", value_parser = positive)]
    speed: Option<f64>,
    /// Lengths of the trace are multiplied by this, to fit a model's context.
    #[arg(long, value_name = "TIMES", requires = "trace", value_parser = positive)]
    scale: Option<f64>,
    /// Sessions per second, at random times; without it --clients at a time. Several are measured one after
    /// another, each with fresh prompts, and show how much of a rate is served: 16..40 (both ends, in about
    /// six steps), 16..40:4 (in steps of 4), or 16,24,32.
    #[arg(long, value_name = "PER_S", conflicts_with = "trace")]
    rate: Option<Rates>,
    /// Sessions at a time. A request that is refused for a time (Retry-After) is sent again after it; with --rate
    /// it is not.
    #[arg(long, default_value = "8", conflicts_with = "rate")]
    clients: NonZeroUsize,
    /// Sessions before the clock starts, at each rate.
    #[arg(long, default_value_t = 4)]
    warm_up: usize,
    /// Stop sending after this many seconds, at each rate.
    #[arg(long, value_name = "S")]
    seconds: Option<NonZeroU32>,
    /// For goodput: longest time to the first token, ms.
    #[arg(long, default_value_t = 1000)]
    slo_ttft_ms: u64,
    /// For goodput: longest mean time between tokens, ms.
    #[arg(long, default_value_t = 50)]
    slo_tpot_ms: u64,
    /// A rate is served if 99 % of its requests are good. And only if 99 % of all gaps between tokens are no
    /// longer than this, ms, if it is given; those between first and second token, where requests are handed
    /// over, are told apart.
    #[arg(long, value_name = "MS")]
    slo_itl_p99_ms: Option<u64>,
    /// 0 is greedy.
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    temperature: f64,
    /// Same seed, same requests, which a second run finds in the cache; the second rate has the next seed,
    /// and so on. Default: a fresh one, which the report tells.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Fail if more requests than this share are refused at every rate, or fail in another way at any; if all do, it
    /// always fails.
    #[arg(long, value_name = "PERCENT", default_value_t = 50.0, value_parser = percent)]
    failures_max: f64,
    /// A gate: fail unless at least so many sessions a second came at some rate, and it was served. Ask for some
    /// more than that, as random arrivals may be fewer.
    #[arg(long, value_name = "PER_S", requires = "rate", value_parser = positive)]
    fail_unless_served: Option<f64>,
    #[command(flatten)]
    keep: KeepArgs,
    /// Write a page with plots over the rate, too.
    #[arg(long, value_name = "FILE", requires = "rate")]
    html: Option<PathBuf>,
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
/// If the endpoint can't be reached, a file can't be read or written, too much failed, or less was served than wanted.
pub(super) async fn run(args: &ServeArgs) -> Result<()> {
    args.keep.check_beside("--html", args.html.as_deref())?;
    let options = args.options()?;
    let cancel = cluster::shutdown_signal()?;
    let is_sweep = options.paces.len() > 1;
    let mut on_run = |run: &Report| {
        if is_sweep {
            out::note(run.brief());
        }
    };
    let report = bench::load::run(&options, &cancel, &mut on_run).await?;
    // Whoever reads only its beginning has what he wants.
    let _ = out::line(&report);
    let unserved = || args.fail_unless_served.and_then(|rate| report.unserved(rate));
    let flaw = report.flaw(args.failures_max).or_else(unserved);
    let document = keep::document(Body::Serve(report.clone()));
    args.keep.write(&document)?;
    if let Some(path) = &args.html {
        std::fs::write(path, page(&report, &document))
            .with_context(|| format!("can't write {}", path.display()))?;
    }
    match flaw {
        Some(flaw) => bail!("{flaw}"),
        None => Ok(()),
    }
}

/// A seed that no earlier run had, short enough to be typed again.
fn fresh_seed() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64 % 1_000_000_000_000
}

// === impl ServeArgs ===

impl ServeArgs {
    fn options(&self) -> Result<LoadOptions> {
        self.check()?;
        Ok(LoadOptions {
            server: self.reach.options(),
            model: self.model.clone(),
            workload: self.workload()?,
            paces: self.paces(),
            warm_up: self.warm_up,
            time_max: self.seconds.map(|seconds| Duration::from_secs(seconds.get().into())),
            request_timeout: Duration::from_secs(600),
            slo: Slo {
                ttft_ms: self.slo_ttft_ms as f64,
                tpot_ms: self.slo_tpot_ms as f64,
                itl_p99_ms: self.slo_itl_p99_ms.map(|ms| ms as f64),
            },
            temperature: self.temperature,
            seed: self.seed.unwrap_or_else(fresh_seed),
            progress: true,
        })
    }

    /// Sees that no option is without effect.
    fn check(&self) -> Result<()> {
        let (kind, shared, input) = (self.kind(), self.shared, self.input.get());
        let is_trace = matches!(kind, Kind::Trace);
        ensure!(is_trace || self.trace.is_none(), "--trace has no effect without --workload trace");
        let is_fixed = matches!(kind, Kind::Fixed);
        ensure!(is_fixed || shared == 0, "--shared has no effect without --workload fixed");
        ensure!(is_fixed || self.spread == 0, "--spread has no effect without --workload fixed");
        ensure!(self.spread <= 100, "--spread {} is more than 100 %", self.spread);
        ensure!(shared <= input, "--shared {shared} is more than all {input} tokens of --input");
        Ok(())
    }

    fn kind(&self) -> Kind {
        let usual = if self.trace.is_some() { Kind::Trace } else { Kind::Fixed };
        self.workload.unwrap_or(usual)
    }

    fn paces(&self) -> Vec<Arrivals> {
        let at =
            |sessions_per_s| Arrivals::Poisson { sessions_per_s, in_flight_max: IN_FLIGHT_MAX };
        match &self.rate {
            _ if self.trace.is_some() => {
                vec![Arrivals::Recorded { in_flight_max: IN_FLIGHT_MAX }]
            }
            Some(rates) => rates.iter().map(at).collect(),
            None => vec![Arrivals::Closed { clients: self.clients.get() }],
        }
    }

    /// How many of what the workload consists of.
    fn requests(&self) -> Option<usize> {
        self.requests.map(NonZeroUsize::get).or_else(|| self.seconds.is_none().then_some(REQUESTS))
    }

    fn workload(&self) -> Result<Workload> {
        Ok(match (self.kind(), &self.trace) {
            (Kind::Fixed, _) => Workload::Fixed(Fixed {
                input_tokens: self.input.get(),
                output_tokens: self.output.get(),
                shared_tokens: self.shared,
                spread: Spread(self.spread),
                requests: self.requests(),
            }),
            (Kind::Conversation, _) => Workload::Conversation(Conversation {
                sessions: self.requests(),
                turns: self.turns.get(),
                first_words: self.input.get() as usize,
                turn_words: 32,
                output_tokens: self.output.get(),
                think: Duration::ZERO,
            }),
            (Kind::Trace, trace) => {
                let path = trace.as_ref().context("--trace FILE is missing")?;
                let requests_max = self.requests.map_or(usize::MAX, NonZeroUsize::get);
                Workload::Trace(Trace {
                    length_scale: self.scale.unwrap_or(1.0),
                    speed: self.speed.unwrap_or(1.0),
                    ..Trace::read(path, requests_max)?
                })
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

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok();
    number
        .filter(|number: &f64| *number > 0.0 && number.is_finite())
        .ok_or("want a number above 0".to_owned())
}

fn percent(text: &str) -> Result<f64, String> {
    match text.trim_end_matches('%').trim_end().parse() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("want a number from 0 to 100".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _, Parser};

    use super::*;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        args: ServeArgs,
    }

    fn why(line: &str) -> String {
        let words = std::iter::once("serve").chain(line.split(' '));
        // As `main` does, which has words of its own for numbers.
        let matches = crate::settings::schema::teach(Line::command()).try_get_matches_from(words);
        match matches.and_then(|matches| Line::from_arg_matches(&matches)) {
            Ok(line) => line.args.options().expect_err("refused").to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn options_without_effect_are_named() {
        let none = ["--requests", "--seconds", "--turns", "--clients", "--input", "--output"];
        for name in none {
            let why = why(&format!("{name} 0"));
            assert!(why.contains(name) && why.contains("want a whole number from 1"), "{why}");
        }
        let table = [
            ("--rate 1e-9", "'1e-9' for '--rate <PER_S>': want a rate"),
            ("--rate 4 --fail-unless-served 0", "want a number above 0"),
            ("--fail-unless-served 4", "--rate <PER_S>"),
            ("--rate 4..2", "the end of 4..2 must be above its start"),
            ("--rate 4..16:1e-9", "more than 200 rates"),
            ("--shared 100 --input 20", "--shared 100 is more than all 20 tokens of --input"),
            ("--shared 1 --workload conversation", "--shared has no effect"),
            ("--trace a.jsonl --workload fixed", "--trace has no effect without --workload trace"),
            ("--speed 2", "--trace <FILE>"),
            ("--spread 101", "--spread 101 is more than 100 %"),
        ];
        for (line, want) in table {
            assert!(why(line).contains(want), "{line}: {}", why(line));
        }
    }
}
