//! A run: hosts, their network and the time, until all is said and done.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use kv_cache::BlockPool;
use kv_transfer::transport::Faults;
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use scheduler::Role;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checks::Verdicts;
use crate::client::{Clients, Clock};
use crate::etcd::Disk;
use crate::host::Process;
use crate::ledger::{Calm, Ledger};
use crate::network::{HostId, Network, Quality};
use crate::nodes::{self, Place, WorkerSpec};
use crate::plan::{CALM_AFTER, Part, Plan, SETTLING, Trouble, What};
use crate::stranger::stranger;

/// The least that the simulation goes on at once, and what a message takes at least.
const TICK: Duration = Duration::from_millis(1);
/// The most that it goes on at once while nothing is on its way.
const TICK_MAX: Duration = Duration::from_millis(8);
/// How long after its end a process is started again by whoever looks after it.
const RESTART: Duration = Duration::from_secs(1);
/// How long a cluster may take to come to rest after its last request.
const REST: Duration = Duration::from_secs(3);
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
    rng: ChaCha8Rng,
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
}

struct Machine {
    host: HostId,
    part: Part,
    process: Option<Process>,
    /// How far its clock is off, in milliseconds.
    clock_ms: i64,
    /// The blocks of the worker on it.
    pool: Arc<Mutex<Option<BlockPool>>>,
    faults: Faults,
    /// Tells the worker on it to leave.
    leave: CancellationToken,
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
    pub fn new(plan: Plan) -> Self {
        let verdicts = Verdicts::default();
        let weights = if plan.bug == Some(crate::planted::Bug::UnpinnedFingerprint) {
            vec![1]
        } else {
            plan.weights()
        };
        let settled = {
            let plan = plan.clone();
            Arc::new(move |at| plan.is_settled(at))
        };
        let prompt = plan.is_prompt();
        let ledger =
            Ledger::new(plan.asks.clone(), &weights, verdicts.clone(), Calm { settled, prompt });
        let mut rng = ChaCha8Rng::seed_from_u64(plan.seed);
        rng.set_stream(1);
        let machines = (1..).map(HostId).zip(&plan.parts);
        let machines =
            machines.map(|(host, &part)| Machine::new(host, part, plan.drop, &mut rng)).collect();
        let events = events(&plan);
        let network = Network::new(plan.seed);
        let (disk, backup) = (Disk::default(), Disk::default());
        Self {
            plan,
            now: Duration::ZERO,
            network,
            machines,
            disk,
            backup,
            ledger,
            verdicts,
            rng,
            events,
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
        let (done, sent) = self.ledger.counts();
        let findings = self.verdicts.findings();
        Outcome { findings, digest: self.network.digest(), done, sent }
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

    fn begin(&mut self, what: &What) {
        match *what {
            What::Kill(host, clock_ms) => {
                self.kill(host);
                self.machine(host).clock_ms += clock_ms;
            }
            What::Dark(host) => {
                self.network.set_powered(host, false);
                self.kill(host);
            }
            What::Stop(host) => {
                if let Some(process) = &mut self.machine(host).process {
                    process.stop();
                }
            }
            What::Leave(host) => self.machine(host).leave.cancel(),
            What::Cut(from, to) => self.network.cut(from, to),
            What::Isolate(host) => self.ways_of(host, Network::cut),
            What::Bad(from, to, quality) => self.network.set_quality(from, to, quality),
            What::Wipe(etcd) => {
                self.kill(etcd);
                self.disk.wipe();
            }
            What::Restore(etcd) => {
                self.kill(etcd);
                self.disk.restore(&self.backup);
            }
        }
    }

    fn end(&mut self, what: &What) {
        match *what {
            What::Kill(host, _) | What::Wipe(host) | What::Restore(host) => self.start(host),
            What::Dark(host) => {
                self.network.set_powered(host, true);
                self.start(host);
            }
            What::Stop(host) => {
                let now = self.now;
                if let Some(process) = &mut self.machine(host).process {
                    process.go_on(now);
                }
            }
            What::Leave(_) => {}
            What::Cut(from, to) => self.network.mend(from, to),
            What::Isolate(host) => self.ways_of(host, Network::mend),
            What::Bad(from, to, _) => self.network.set_quality(from, to, Quality::default()),
        }
    }

    /// Does something to each way from and to a host.
    fn ways_of(&self, host: HostId, change: impl Fn(&Network, HostId, HostId)) {
        for other in self.machines.iter().map(|machine| machine.host).filter(|it| *it != host) {
            change(&self.network, host, other);
            change(&self.network, other, host);
        }
    }

    fn kill(&mut self, host: HostId) {
        let now = self.now;
        let machine = self.machine(host);
        machine.process = None;
        *machine.pool.lock() = None;
        if let Part::Router(router) = machine.part {
            self.ledger.router_lost(router, now);
        }
    }

    /// Starts what belongs on a host, if it doesn't run.
    fn start(&mut self, host: HostId) {
        let (now, seed) = (self.now, self.rng.random());
        let (network, verdicts, bug) = (self.network.clone(), self.verdicts.clone(), self.plan.bug);
        let (disk, ledger) = (self.disk.clone(), self.ledger.clone());
        let (is_locked, reports_hold) = (self.plan.is_locked(), !self.plan.has_flips());
        let machine = self.machine(host);
        if machine.process.is_some() {
            return;
        }
        let (wall, part) = (machine.wall(now), machine.part);
        machine.leave = CancellationToken::new();
        let spec = machine.spec();
        let place = |tasks: TaskTracker| Place {
            host,
            wire: network.wire(host),
            wall,
            seed,
            tasks,
            bug,
            is_locked,
            reports_hold,
            verdicts,
        };
        let process = match part {
            Part::Etcd => Process::start(now, |tasks| nodes::etcd(place(tasks), disk)),
            Part::Router(router) => Process::start(now, |tasks| {
                let clock = Clock::starting(now);
                let clients = Clients { router, ledger, clock, tasks: tasks.clone() };
                nodes::router(place(tasks), clients)
            }),
            Part::Stranger => Process::start(now, |tasks| stranger(place(tasks))),
            Part::Prefill(_) | Part::Decode(_) => {
                Process::start(now, |tasks| nodes::worker(place(tasks), spec))
            }
        };
        machine.process = Some(process);
    }

    /// Lets all work end, and holds that nothing is left of it.
    fn come_to_rest(&mut self) {
        let rest = self.now + REST;
        while self.now < rest && !self.verdicts.are_bad() {
            self.step();
        }
        for machine in &self.machines {
            machine.check_blocks(&self.verdicts);
        }
    }

    fn machine(&mut self, host: HostId) -> &mut Machine {
        &mut self.machines[usize::from(host.0) - 1]
    }
}

// === impl Machine ===

impl Machine {
    fn new(host: HostId, part: Part, drop: f64, rng: &mut ChaCha8Rng) -> Self {
        let faults = Faults {
            seed: rng.random(),
            drop: rng.random_range(0.0..=drop),
            duplicate: often(rng, 0.1),
            corrupt: often(rng, 0.1),
            delay: often(rng, 0.1),
            delay_time: Duration::from_millis(rng.random_range(1..80)),
            cut_after: None,
            cuts_max: 0,
        };
        let pool = Arc::default();
        let leave = CancellationToken::new();
        Self { host, part, process: None, clock_ms: 0, pool, faults, leave }
    }

    fn runs_router(&self, router: usize) -> bool {
        let process = self.process.as_ref().filter(|_| self.part == Part::Router(router));
        process.is_some_and(|process| !process.is_stopped())
    }

    /// What its clock says.
    fn wall(&self, now: Duration) -> SystemTime {
        const EPOCH: Duration = Duration::from_secs(1_800_000_000);
        let off = Duration::from_millis(self.clock_ms.unsigned_abs());
        let right = SystemTime::UNIX_EPOCH + EPOCH + now;
        if self.clock_ms < 0 { right - off } else { right + off }
    }

    fn spec(&self) -> WorkerSpec {
        let (role, weights) = match self.part {
            Part::Prefill(weights) => (Role::Prefill, weights),
            Part::Decode(weights) => (Role::Decode, weights),
            Part::Etcd | Part::Router(_) | Part::Stranger => (Role::Decode, 0),
        };
        let (faults, pool, leave) = (self.faults.clone(), self.pool.clone(), self.leave.clone());
        WorkerSpec { role, weights, faults, pool, leave }
    }

    /// Holds that every block is back and nothing is promised.
    fn check_blocks(&self, verdicts: &Verdicts) {
        let Some(pool) = self.pool.lock().clone() else { return };
        let counts = pool.counts();
        if counts.active > 0 || counts.reserved > 0 {
            verdicts.violated(format!("host {} at rest: {counts:?}", self.host.0));
        }
        if let Err(corrupt) = pool.audit() {
            verdicts.violated(format!("host {} at rest: {corrupt}", self.host.0));
        }
    }
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

/// A chance that is 0 more often than not.
fn often(rng: &mut ChaCha8Rng, most: f64) -> f64 {
    if rng.random_bool(0.6) { 0.0 } else { rng.random_range(0.0..most) }
}
