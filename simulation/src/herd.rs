//! Many seeds, each in a process of its own, some at a time.

use std::collections::BTreeMap;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use simulation::checks::coverage;
use simulation::planted::Bug;

use crate::Cli;

/// Seeds after which it is said how far all is.
const TOLD_EVERY: u64 = 500;

/// Begins a line in which a seed's process says what it came through.
pub(crate) const CAME_THROUGH: &str = "came through ";

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

/// What all seeds came through: how often, and how many of them.
#[derive(Default)]
struct Sum(BTreeMap<String, (u64, u64)>);

/// Runs all seeds, and says which failed and how to run them again.
pub(crate) fn run(cli: &Cli) -> ExitCode {
    let first = cli.seed.unwrap_or_else(from_the_clock);
    let jobs =
        cli.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    println!("{} seeds from {first}, {jobs} at a time", cli.seeds);
    let (began, mut failed, mut sum) = (Instant::now(), 0, Sum::default());
    let mut seeds = (first..first.saturating_add(cli.seeds)).peekable();
    while seeds.peek().is_some() && (cli.bug.is_none() || failed == 0) {
        let wave: Vec<Run> = seeds.by_ref().take(jobs).map(|seed| Run::start(seed, cli)).collect();
        for ended in wave.into_iter().map(Run::end) {
            sum.add(&ended.said);
            let count = ended.seed - first + 1;
            if count.is_multiple_of(TOLD_EVERY) {
                println!("{count} seeds, {failed} failed, {:.1} s", began.elapsed().as_secs_f64());
            }
            if ended.failed {
                ended.report(cli.bug);
                failed += 1;
            }
        }
    }
    println!("{failed} failed, {:.1} s", began.elapsed().as_secs_f64());
    let is_whole = !cli.coverage || sum.print();
    if failed == 0 && is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn from_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() * 1_000_000
}

// === impl Run ===

impl Run {
    fn start(seed: u64, cli: &Cli) -> Self {
        let program = std::env::current_exe().expect("the path of this program");
        let mut command = Command::new(program);
        command.args(["--here", "--seed", &seed.to_string()]);
        command.args(["--limit-s", &cli.limit_s.to_string()]);
        command.args(cli.bug.iter().flat_map(|bug| ["--bug".to_owned(), bug.to_string()]));
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
        let told = self.said.lines().filter(|line| !line.starts_with(CAME_THROUGH));
        told.for_each(|line| println!("{line}"));
        let planted = bug.map_or_else(String::new, |bug| format!(" --bug {bug}"));
        println!("again: cargo xtask sim --seed {}{planted}\n", self.seed);
    }
}

// === impl Sum ===

impl Sum {
    /// Takes up what one seed said.
    fn add(&mut self, said: &str) {
        let lines = said.lines().filter_map(|line| line.strip_prefix(CAME_THROUGH));
        for (what, times) in lines.filter_map(|line| line.rsplit_once(": ")) {
            let (sum, seeds) = self.0.entry(what.to_owned()).or_default();
            *sum += times.parse().unwrap_or(0);
            *seeds += 1;
        }
    }

    /// Prints a table; whether all is in it that should be.
    fn print(&self) -> bool {
        println!("{:<52} {:>9} {:>7}", "came through", "times", "seeds");
        for (what, (times, seeds)) in &self.0 {
            println!("{what:<52} {times:>9} {seeds:>7}");
        }
        let wanted = coverage::wanted();
        let missing: Vec<_> = wanted.iter().filter(|what| !self.0.contains_key(*what)).collect();
        missing.iter().for_each(|what| println!("never: {what}"));
        missing.is_empty()
    }
}
