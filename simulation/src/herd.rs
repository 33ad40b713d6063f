//! Many seeds, each in a process of its own, some at a time.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use simulation::planted::Bug;

use crate::Cli;

/// A seed under way.
struct Run {
    seed: u64,
    child: Child,
}

/// How a seed ended.
struct Ended {
    seed: u64,
    failed: bool,
    said: String,
}

/// Runs all seeds, and says which failed and how to run them again.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    let first = cli.seed.unwrap_or_else(from_the_clock);
    let jobs =
        cli.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    println!("{} seeds from {first}, {jobs} at a time", cli.seeds);
    let began = Instant::now();
    let mut failed = 0;
    let mut seeds = (first..first.saturating_add(cli.seeds)).peekable();
    while seeds.peek().is_some() && (cli.bug.is_none() || failed == 0) {
        let wave = seeds.by_ref().take(jobs).map(|seed| Run::start(seed, cli.bug));
        let wave: Vec<Run> = wave.collect();
        for ended in wave.into_iter().map(Run::end).filter(|ended| ended.failed) {
            ended.report(cli.bug);
            failed += 1;
        }
    }
    println!("{failed} failed, {:.1} s", began.elapsed().as_secs_f64());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn from_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000_000
}

// === impl Run ===

impl Run {
    fn start(seed: u64, bug: Option<Bug>) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.args(["--here", "--seed", &seed.to_string()]);
        command.args(bug.iter().flat_map(|bug| ["--bug".to_owned(), bug.to_string()]));
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self { seed, child: child.expect("a process for a seed") }
    }

    fn end(self) -> Ended {
        let output = self.child.wait_with_output().expect("a process's end");
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        Ended { seed: self.seed, failed: !output.status.success(), said }
    }
}

// === impl Ended ===

impl Ended {
    fn report(&self, bug: Option<Bug>) {
        println!("{}", self.said.trim_end());
        let planted = bug.map_or_else(String::new, |bug| format!(" --bug {bug}"));
        println!("again: cargo xtask sim --seed {}{planted}\n", self.seed);
    }
}
