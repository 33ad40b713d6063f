//! A run: hosts, their network and the time, until all is said and done.

mod happenings;
mod machine;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use router::dispatch::Pin;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::machine::Machine;
use crate::checks::Verdicts;
use crate::checks::coverage::Coverage;
use crate::checks::ledger::{Calm, Ledger};
use crate::network::{HostId, Network};
use crate::nodes::clients::{Clients, Clock};
use crate::nodes::etcd::Disk;
use crate::nodes::process::Process;
use crate::nodes::{self, Locksmith, Place};
use crate::plan::{CALM_AFTER, Part, Plan, SETTLING, Trouble, What};
use crate::planted::Bug;
use crate::strangers::strangers;
use crate::watchdog::Progress;

/// The least that the simulation goes on at once, and what a message takes at least.
const TICK: Duration = Duration::from_millis(1);
/// The most that it goes on at once while nothing is on its way.
const TICK_MAX: Duration = Duration::from_millis(8);
/// How long after its end a process is started again by whoever looks after it.
const RESTART: Duration = Duration::from_secs(1);
/// How long a cluster may take to come to rest after its last request.
const REST: Duration = Duration::from_secs(3);
/// Steps from one look at all pools to the next.
const AUDIT: u64 = 32;
/// How often etcd is backed up.
const BACKUP: Duration = Duration::from_secs(3);
/// By when every request must have ended: the last one's time and its patience.
const END: Duration = Duration::from_secs(60);

/// A cluster in virtual time.
pub struct World {
    plan: Plan,
    now: Duration,
    network: Network,
    machines: Vec<Machine>,
    disk: Disk,
    backup: Disk,
    ledger: Ledger,
    verdicts: Verdicts,
    coverage: Coverage,
    locks: Locksmith,
    /// What answers are bound to, by their numbers.
    pins: Arc<Mutex<BTreeMap<usize, Pin>>>,
    rng: ChaCha8Rng,
    steps: u64,
    progress: Progress,
    /// What is still to happen, latest first.
    events: Vec<(Duration, Event)>,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was found wrong.
    pub findings: Vec<String>,
    /// A digest of everything that went over the network, and when.
    pub digest: u64,
    /// Requests that came to a good end.
    pub done: usize,
    /// Requests that were sent.
    pub sent: usize,
    /// What it came through, and how often.
    pub coverage: BTreeMap<String, u64>,
}

/// A change of the world.
#[derive(Clone, Debug)]
enum Event {
    Begin(What),
    End(What),
    Start(HostId),
    Backup,
}

// === impl World ===

impl World {
    /// The world of `plan`, at its beginning.
    #[must_use]
    pub fn new(plan: Plan, progress: Progress) -> Self {
        let (verdicts, coverage) = (Verdicts::default(), Coverage::default());
        let ledger = ledger(&plan, &verdicts, &coverage);
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        rng.set_stream(1);
        let machines = (1..).map(HostId).zip(&plan.parts);
        let machines =
            machines.map(|(host, &part)| Machine::new(host, part, plan.drop, &mut rng)).collect();
        Self {
            now: Duration::ZERO,
            network: Network::new(plan.seed, coverage.clone()),
            machines,
            disk: Disk::default(),
            backup: Disk::default(),
            ledger,
            verdicts,
            coverage,
            locks: Locksmith::new(plan.lock),
            pins: Arc::default(),
            rng,
            steps: 0,
            progress,
            events: events(&plan),
            plan,
        }
    }

    /// Goes on to the end, or to the first finding.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        while !self.verdicts.are_bad() && !self.is_over() {
            self.step();
        }
        if !self.verdicts.are_bad() {
            self.come_to_rest();
        }
        for machine in &mut self.machines {
            machine.kill(&self.coverage);
            machine.take_up(&self.coverage);
        }
        let (done, sent) = self.ledger.counts();
        let (findings, coverage) = (self.verdicts.findings(), self.coverage.counted());
        Outcome { findings, digest: self.network.digest(), done, sent, coverage }
    }

    fn is_over(&self) -> bool {
        let asked = self.now > CALM_AFTER + SETTLING && self.ledger.is_done(self.now);
        asked || self.now >= END
    }

    /// One tick: what happens, what arrives, and what everybody makes of it.
    fn step(&mut self) {
        self.happen();
        self.network.deliver(self.now);
        self.now += self.tick();
        for at in 0..self.machines.len() {
            self.run_machine(at);
        }
        let runs = |router| self.machines.iter().any(|machine| machine.runs_router(router));
        self.ledger.check_deadlines(self.now, runs);
        self.steps += 1;
        if self.steps.is_multiple_of(AUDIT) {
            self.machines.iter().for_each(|machine| machine.audit(&self.verdicts));
        }
    }

    /// How far to go at once: not past what is due.
    fn tick(&self) -> Duration {
        let due = [self.network.next_due(), self.events.last().map(|(at, _)| *at)];
        let next = due.into_iter().flatten().min().unwrap_or(self.now + TICK_MAX);
        let left = next.saturating_sub(self.now);
        // The clocks of the processes have milliseconds.
        Duration::from_millis(left.as_millis() as u64).clamp(TICK, TICK_MAX)
    }

    fn run_machine(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        self.progress.note(self.now, machine.host);
        let Some(process) = &mut machine.process else { return };
        process.run_to(self.now);
        if process.is_over() {
            let host = machine.host;
            self.kill(host);
            self.schedule(self.now + RESTART, Event::Start(host));
        }
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        let index = self.events.partition_point(|(other, _)| *other >= at);
        self.events.insert(index, (at, event));
    }

    fn happen(&mut self) {
        while self.events.last().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, event)) = self.events.pop() else { return };
            if !matches!(event, Event::Backup) {
                tracing::info!(now = self.now.as_secs_f64(), ?event, "happens");
            }
            match event {
                Event::Start(host) => self.start(host),
                Event::Begin(what) => self.begin(&what),
                Event::End(what) => self.end(&what),
                Event::Backup => {
                    self.backup = self.disk.backup();
                    self.schedule(self.now + BACKUP, Event::Backup);
                }
            }
        }
    }

    fn kill(&mut self, host: HostId) {
        let (now, coverage) = (self.now, self.coverage.clone());
        let machine = self.machine(host);
        machine.kill(&coverage);
        if let Part::Router(router) = machine.part {
            self.ledger.router_lost(router, now);
        }
    }

    /// Starts what belongs on a host, if it doesn't run.
    fn start(&mut self, host: HostId) {
        if self.machine(host).process.is_some() {
            return;
        }
        let (now, place) = (self.now, self.place(host));
        let place = |tasks: TaskTracker| Place { tasks, ..place };
        let (disk, ledger, pins) = (self.disk.clone(), self.ledger.clone(), self.pins.clone());
        let machine = self.machine(host);
        machine.leave = CancellationToken::new();
        let (spec, leave) = (machine.spec(), machine.leave.clone());
        let process = match machine.part {
            Part::Etcd => Process::start(now, |tasks| nodes::etcd(place(tasks), disk)),
            Part::Router(router) => Process::start(now, |tasks| {
                let clock = Clock::starting(now);
                let clients = Clients { router, ledger, clock, tasks: tasks.clone(), pins };
                nodes::router(place(tasks), clients, leave)
            }),
            Part::Stranger => Process::start(now, |tasks| strangers(place(tasks))),
            Part::Prefill(_) | Part::Decode(_) => {
                Process::start(now, |tasks| nodes::worker(place(tasks), spec))
            }
        };
        machine.process = Some(process);
    }

    /// Where a process on a host stands.
    fn place(&mut self, host: HostId) -> Place {
        let (now, seed) = (self.now, self.rng.random());
        let machine = &self.machines[usize::from(host.0) - 1];
        Place {
            host,
            wire: self.network.wire(host),
            wall: machine.wall(now),
            seed,
            tasks: TaskTracker::new(),
            bug: self.plan.bug,
            locks: self.locks.clone(),
            reports_hold: !self.plan.has_flips(),
            ttft: self.plan.ttft,
            handoff: self.plan.handoff,
            verdicts: self.verdicts.clone(),
            coverage: self.coverage.clone(),
            metrics: machine.metrics.clone(),
        }
    }

    /// Lets all work end, and holds that nothing is left of it.
    fn come_to_rest(&mut self) {
        let rest = self.now + REST;
        while self.now < rest && !self.verdicts.are_bad() {
            self.step();
        }
        for machine in &self.machines {
            machine.audit(&self.verdicts);
            machine.check_rest(&self.verdicts);
        }
    }

    fn machine(&mut self, host: HostId) -> &mut Machine {
        &mut self.machines[usize::from(host.0) - 1]
    }
}

fn ledger(plan: &Plan, verdicts: &Verdicts, coverage: &Coverage) -> Ledger {
    let told = plan.bug == Some(Bug::UnpinnedFingerprint);
    let weights = if told { vec![1] } else { plan.weights() };
    let (prompt, settled) = (plan.is_prompt(), plan.clone());
    let calm = Calm { settled: Arc::new(move |at| settled.is_settled(at)), prompt };
    Ledger::new(plan.asks.clone(), &weights, verdicts.clone(), coverage.clone(), calm)
}

fn events(plan: &Plan) -> Vec<(Duration, Event)> {
    let mut events = vec![(BACKUP, Event::Backup)];
    let hosts = (1..=plan.parts.len() as u8).map(HostId);
    events.extend(hosts.map(|host| (Duration::ZERO, Event::Start(host))));
    for Trouble { from, until, what } in &plan.troubles {
        events.push((*from, Event::Begin(what.clone())));
        events.push((*until, Event::End(what.clone())));
    }
    events.sort_by_key(|(at, _)| *at);
    events.reverse();
    events
}
