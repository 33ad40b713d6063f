//! Chaos: real processes under faults by a seed, and every answer checked.
//!
//! Two routers, two workers of each kind and an etcd are killed, stopped, asked to leave, wiped, cut off, and have
//! bits flipped on their wires, while clients ask for what one engine in this process has answered
//! before. A run is made of rounds; each ends at rest, where nothing may be held any more, and where what the
//! processes take of the machine is compared.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use caller::{Caller, Campaign, Door};
use house::House;
use vitals::Pulse;

mod caller;
mod case;
mod heard;
mod house;
mod ledger;
mod mischief;
mod plan;
mod tally;
mod vitals;
mod wire;

pub use mischief::Mischief;
pub use plan::{Event, Fault, Plan, Target};
pub use tally::{Counts, Tally};
pub use vitals::Vitals;
pub use wire::{Weather, Wire};

/// A long run rests so often.
const ROUND: Duration = Duration::from_secs(150);
/// From so many rounds on, others are spared in the second half: all nodes are ended at times.
const HALVES_FROM: u64 = 6;
/// A rest after a round, about.
const REST: Duration = Duration::from_secs(15);

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Chooses all faults and requests.
    pub seed: u64,
    /// Times from rest to rest; the first warms up.
    pub rounds: u64,
    /// Of one of them.
    pub round: Duration,
    /// Who ask at the same time.
    pub clients: u64,
    /// Different requests.
    pub cases: usize,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests and faults.
    pub counts: Counts,
    /// Processes that were there for more than a round.
    pub pulses: Vec<Pulse>,
}

// === impl Config ===

impl Config {
    /// Two short rounds.
    #[must_use]
    pub fn short(seed: u64) -> Self {
        Self { seed, rounds: 2, round: Duration::from_secs(8), clients: 16, cases: 64 }
    }

    /// So many minutes.
    #[must_use]
    pub fn minutes(seed: u64, minutes: u64) -> Self {
        let length = Duration::from_secs(60 * minutes);
        let rounds = (length.as_secs() / ROUND.as_secs()).max(2);
        let round = length / u32::try_from(rounds).unwrap_or(u32::MAX);
        Self { seed, rounds, round: round.saturating_sub(REST), clients: 24, cases: 400 }
    }

    /// Of each kind of node, the one that is never ended in this round.
    fn spared(&self, round: u64) -> usize {
        let half = if self.rounds >= HALVES_FROM { 2 * round / self.rounds } else { 0 };
        (self.seed + half) as usize % plan::SEATS
    }
}

/// Runs it; `tally` can be watched meanwhile.
///
/// # Panics
/// If the cluster doesn't start.
pub async fn run(config: &Config, tally: Arc<Tally>) -> Report {
    let house = House::start(config.seed, tally.clone()).await;
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    let cases = case::answered(config.cases, &mut rng, &house.model).await;
    let (ledger, is_over) = (house.ledger.clone(), AtomicBool::new(false));
    let campaign = Arc::new(Campaign { cases, ledger, tally: tally.clone(), is_over });
    let house = Arc::new(house);
    let mut pulses = Vec::new();
    for round in 0..config.rounds {
        let plan = Plan::new(config.seed, round, config.spared(round), config.round);
        eprintln!("{plan}");
        let before = house.vitals_now().await.into_iter().map(|(_, process, _)| process).collect();
        play(&house, &campaign, config, &plan, &mut rng).await;
        house.rests().await;
        rest(&house, before, &mut pulses).await;
    }
    pulses.retain(|pulse| pulse.rests.len() > 1);
    for pulse in &pulses {
        let growth = pulse.growth().map(|growth| format!("{} grows: {growth}", pulse.name));
        growth.into_iter().for_each(|growth| tally.found(growth));
    }
    let report = Report { counts: tally.counts(), pulses };
    if !report.is_flawless() {
        eprintln!("all logs: {}", house.folder().display());
        Arc::into_inner(house).expect("all tasks have ended").keep_logs();
    }
    report
}

/// One round: faults as planned, clients until they are over, all to their ends.
async fn play(
    house: &Arc<House>,
    campaign: &Arc<Campaign>,
    config: &Config,
    plan: &Plan,
    rng: &mut ChaCha8Rng,
) {
    campaign.is_over.store(false, Ordering::Relaxed);
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for number in 0..config.clients {
        let doors = house.doors().into_iter();
        let doors = doors.map(|(router, http, grpc)| Door::new(router, http, grpc)).collect();
        let (name, rng) = (format!("client {number}"), ChaCha8Rng::from_rng(rng));
        callers.spawn(Caller { name, rng, doors, campaign: campaign.clone() }.run());
    }
    let mut faults = JoinSet::new();
    for event in plan.events.iter().copied() {
        sleep_until((began + event.at).into()).await;
        let house = house.clone();
        faults.spawn(async move { house.suffer(event).await });
    }
    sleep_until((began + plan.length).into()).await;
    campaign.is_over.store(true, Ordering::Relaxed);
    faults.join_all().await;
    let healed = began.elapsed();
    callers.join_all().await;
    let (ended, counts) = (began.elapsed(), campaign.tally.counts());
    eprintln!("all is well after {healed:.1?}, answered after {ended:.1?}; {counts}");
}

/// Notes what those processes hold that were there `before` the round.
async fn rest(house: &House, before: Vec<u32>, pulses: &mut Vec<Pulse>) {
    let first = |id| {
        let pulse = pulses.iter().find(|pulse: &&Pulse| pulse.process == id)?;
        pulse.rests.first().copied()
    };
    for (target, process, vitals) in house.vitals(first).await {
        if !before.contains(&process) {
            continue;
        }
        match pulses.iter_mut().find(|pulse| pulse.process == process) {
            Some(pulse) => pulse.rests.push(vitals),
            None => pulses.push(Pulse { name: target.name(), process, rests: vec![vitals] }),
        }
    }
}

// === impl Report ===

impl Report {
    /// Whether there is nothing to find out.
    #[must_use]
    pub fn is_flawless(&self) -> bool {
        let Counts { right, wrong, lost, hung, findings, .. } = &self.counts;
        *right > 0 && wrong + lost + hung == 0 && findings.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "requests {:>9}", counts.asked)?;
        for (what, count) in [
            ("right", counts.right),
            ("hand-off", counts.handed_over),
            ("refused", counts.refused),
            ("left", counts.left),
            ("parted", counts.parted),
            ("wrong", counts.wrong),
            ("lost", counts.lost),
            ("hung", counts.hung),
        ] {
            writeln!(f, "  {what:<8}{count:>8}")?;
        }
        let (slowest, request) = &counts.slowest;
        writeln!(f, "  slowest {slowest:>8.1?}  {request}")?;
        for (kind, count) in &counts.failed {
            writeln!(f, "  failed  {count:>8}  {kind}")?;
        }
        writeln!(
            f,
            "faults   {:>9}  ({} left out, {} bits flipped)",
            counts.hits(),
            counts.spared,
            counts.flips
        )?;
        for ((target, fault), count) in &counts.faults {
            writeln!(f, "  {target:<5}{fault:<10}{count:>6}")?;
        }
        for pulse in &self.pulses {
            let (Some(first), Some(last)) = (pulse.rests.first(), pulse.rests.last()) else {
                continue;
            };
            writeln!(f, "{:<3} {first}  ->  {last}", pulse.name)?;
            let rests = pulse.rests.iter().map(|rest| (rest.rss_kib >> 10).to_string());
            writeln!(f, "    MiB at its rests: {}", rests.collect::<Vec<_>>().join(" "))?;
        }
        counts.findings.iter().try_for_each(|finding| writeln!(f, "found: {finding}"))
    }
}

/// A seed from the time of day.
#[must_use]
pub fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64 % 1_000_000_000)
}
