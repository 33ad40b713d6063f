//! Routers, their workers, clients, and what goes on between them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use kv_cache::BlockHash;
use words::{Targets, WorkerId};

use super::agenda::Agenda;
use super::caches::CacheNews;
use super::engine::{Build, Engine, Job, Task, Token};
use super::fleet::Fleet;
use super::history::History;
use super::names::Namer;
use super::policy::Policy;
use super::report::SimulatedRun;
use super::router::{Asked, News, Promise, Refused, Router};
use super::{Seeds, SimulateOptions};
use crate::load::progress;
use crate::load::recorder::{Failed, Fault, Measured, Recorder};
use crate::load::report::Report;

/// Between two reports of a worker.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// From a router to a worker, or back; a client is beside its router.
const WAY: Duration = Duration::from_micros(500);

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Happening {
    /// A client sends a request, the first time or once more.
    Comes(usize),
    /// A request reaches a worker, which computes its prompt.
    Arrives { worker: usize, number: usize },
    /// A prompt's blocks are where its answer is generated.
    Joins { worker: usize, number: usize },
    /// A worker's step ends.
    StepEnds(usize),
    /// All workers report.
    Reports,
    /// Routers hear of it.
    Heard,
}

/// A request, from the client's side.
#[derive(Default)]
struct Visit {
    /// When it was sent first and last.
    sent: Option<(Duration, Duration)>,
    refusals: u64,
    promise: Option<Promise>,
    /// What it is to the engines.
    job: Option<Job>,
    decode: usize,
    /// When its tokens came.
    tokens: Vec<Duration>,
    cached_tokens: u32,
}

/// All that there is.
pub(super) struct House<'a> {
    options: &'a SimulateOptions,
    policy: Policy,
    start: Instant,
    agenda: Agenda,
    namer: Namer,
    routers: Vec<Router>,
    engines: Vec<Engine>,
    numbers: HashMap<WorkerId, usize>,
    visits: Vec<Visit>,
    /// The request that follows each one's answer.
    next: Vec<Option<usize>>,
    /// Reports on their way.
    reports: VecDeque<Vec<News>>,
    reported: u64,
    recorder: Recorder,
    history: History,
    bar: ProgressBar,
}

// === impl House ===

impl<'a> House<'a> {
    pub(super) fn new(options: &'a SimulateOptions, policy: Policy) -> Self {
        let SimulateOptions { trace, fleet, seed, .. } = options;
        let (seeds, targets) = (Seeds(*seed), options.targets());
        let namer = Namer::new(trace, fleet.block_tokens, *seed);
        let snapshot = fleet.snapshot();
        let ids = snapshot.workers.iter().map(|view| view.info.address.worker.clone());
        let router =
            |number| Router::new(snapshot.clone(), policy.chooser(targets, seeds, number), targets);
        let build = build(fleet, options, namer);
        let engine = |number| Engine::new(build, seeds.engine(number));
        let requests = trace.requests.len();
        Self {
            options,
            policy,
            start: Instant::now(),
            agenda: Agenda::default(),
            namer,
            numbers: ids.zip(0..).collect(),
            routers: (0..options.routers).map(router).collect(),
            engines: (0..fleet.workers()).map(engine).collect(),
            visits: (0..requests).map(|_| Visit::default()).collect(),
            next: trace.chains(),
            reports: VecDeque::new(),
            reported: 0,
            recorder: Recorder::new(header(options, policy)),
            history: History::new(fleet.workers(), options.slo),
            bar: match options.progress {
                true => progress::bar(format!("{policy} "), Some(requests as u64)),
                false => ProgressBar::hidden(),
            },
        }
    }

    /// Until every request was answered or refused.
    pub(super) fn run(mut self) -> SimulatedRun {
        self.invite();
        let mut now = Duration::ZERO;
        while self.recorder.requests() < self.visits.len() as u64 {
            let Some((at, what)) = self.agenda.next() else { break };
            now = at;
            self.happens(what, now);
        }
        self.bar.finish_and_clear();
        let report = Report { came_per_s: self.came_per_s(), ..self.recorder.finish(now) };
        let names = self.routers[0].names();
        let history = self.history.told();
        SimulatedRun::new(self.policy, report, names.zip(&self.engines), history, now)
    }

    /// Plans the beginning of all chains.
    fn invite(&mut self) {
        let SimulateOptions { trace, seed, .. } = self.options;
        let arrivals = trace.arrivals(*seed);
        for number in trace.heads() {
            self.agenda.plan(arrivals[number], Happening::Comes(number));
        }
        self.agenda.plan(Duration::ZERO, Happening::Reports);
    }

    fn happens(&mut self, what: Happening, now: Duration) {
        match what {
            Happening::Comes(number) => self.ask(number, now),
            Happening::Arrives { worker, number } => {
                let job = self.visits[number].job.clone();
                self.engines[worker].take(job.expect("it was placed"));
                self.begin_step(worker, now);
            }
            Happening::Joins { worker, number } => {
                let Visit { job, tokens, .. } = &self.visits[number];
                let job = job.clone().expect("it was placed");
                self.engines[worker].take(Job { task: Task::Decode { first: tokens[0] }, ..job });
                self.begin_step(worker, now);
            }
            Happening::StepEnds(worker) => {
                for token in self.engines[worker].end(now) {
                    self.speak(worker, token, now);
                }
                self.begin_step(worker, now);
            }
            Happening::Reports => self.report(now),
            Happening::Heard => {
                let (news, at) = (self.reports.pop_front().unwrap_or_default(), self.at(now));
                self.routers.iter_mut().for_each(|router| router.hear(&news, at));
            }
        }
    }

    fn at(&self, time: Duration) -> Instant {
        self.start + time
    }

    fn begin_step(&mut self, worker: usize, now: Duration) {
        if let Some(took) = self.engines[worker].begin(now) {
            self.agenda.plan(now + took, Happening::StepEnds(worker));
        }
    }

    fn report(&mut self, now: Duration) {
        self.reported += 1;
        let news =
            |it: &Engine| News { load: it.load(self.reported), cache: CacheNews::of(&it.pool) };
        self.reports.push_back(self.engines.iter().map(news).collect());
        self.history.note(now, &self.engines);
        self.agenda.plan(now + self.options.events_delay, Happening::Heard);
        self.agenda.plan(now + REPORT_EVERY, Happening::Reports);
    }

    fn ask(&mut self, number: usize, now: Duration) {
        let (at, trace) = (self.at(now), &self.options.trace);
        let request = &trace.requests[number];
        let prompt_tokens = trace.scaled(request.input_length);
        let output_tokens = trace.scaled(request.output_length);
        let visit = &mut self.visits[number];
        let first = visit.sent.map_or(now, |(first, _)| first);
        visit.sent = Some((first, now));
        let router = number % self.routers.len();
        let names: Arc<[BlockHash]> = self.namer.prompt(request, number, prompt_tokens).into();
        let block_tokens = self.options.fleet.block_tokens;
        let asked = Asked { prompt_tokens, output_tokens, names: &names, block_tokens };
        match self.routers[router].ask(&asked, at) {
            Ok(promise) => {
                let task = Task::Both;
                let job = Job { number, names, prompt_tokens, output_tokens, asked: now, task };
                self.send(router, job, promise, now);
            }
            Err(refused) => self.refuse(number, &refused, now),
        }
    }

    fn send(&mut self, router: usize, job: Job, promise: Promise, now: Duration) {
        let (number, at) = (job.number, self.at(now + 2 * WAY));
        self.routers[router].taken(&promise, at);
        let placement = &promise.placement;
        let decode = self.numbers[&placement.decode.worker];
        let prefill = placement.prefill.first().map(|it| self.numbers[&it.worker]);
        let task = if prefill.is_some() { Task::Prefill } else { Task::Both };
        if prefill.is_some() {
            self.engines[decode].expect();
        }
        let visit = &mut self.visits[number];
        visit.decode = decode;
        (visit.job, visit.promise) = (Some(Job { task, ..job }), Some(promise));
        let worker = prefill.unwrap_or(decode);
        self.agenda.plan(now + WAY, Happening::Arrives { worker, number });
    }

    /// Whoever is in a chain comes back; who came by a clock does not, as a public endpoint sees it.
    fn refuse(&mut self, number: usize, refused: &Refused, now: Duration) {
        let visit = &mut self.visits[number];
        let is_chained = self.options.trace.requests[number].session.is_some();
        if is_chained && refused.retry_after < Duration::MAX {
            visit.refusals += 1;
            self.agenda.plan(now + refused.retry_after, Happening::Comes(number));
            return;
        }
        let why = refused.why.to_owned();
        let failed = Failed { why, fault: Fault::Refused, refusals: visit.refusals };
        self.recorder.record_failure(&failed);
        self.follow(number, now);
    }

    fn speak(&mut self, worker: usize, token: Token, now: Duration) {
        let Token { number, is_first, is_last, cached_tokens } = token;
        let at = self.at(now + WAY);
        let visit = &mut self.visits[number];
        visit.tokens.push(now + WAY);
        if is_first {
            visit.cached_tokens = cached_tokens;
            let promise = visit.promise.as_mut().expect("it was placed");
            let (_, sent) = visit.sent.expect("it was sent");
            let router = number % self.routers.len();
            self.routers[router].came(promise, now + WAY - sent, at);
        }
        let job = visit.job.as_ref().expect("it was placed");
        let is_handed_over = is_first && job.task == Task::Prefill;
        match (is_handed_over, job.output_tokens) {
            (true, 2..) => self.hand_over(worker, number, now),
            (true, _) => {
                self.engines[visit.decode].expect_no_more();
                self.finish(number, now);
            }
            (false, _) if is_last => self.finish(number, now),
            (false, _) => {}
        }
    }

    fn hand_over(&mut self, from: usize, number: usize, now: Duration) {
        let visit = &self.visits[number];
        let tokens = visit.job.as_ref().expect("it was placed").prompt_tokens;
        let takes = self.options.fleet.handoff.takes(tokens);
        self.engines[from].handed_over(tokens, takes);
        self.agenda.plan(now + takes, Happening::Joins { worker: visit.decode, number });
    }

    fn finish(&mut self, number: usize, now: Duration) {
        let visit = std::mem::take(&mut self.visits[number]);
        let promise = visit.promise.expect("it was placed");
        let path = promise.placement.path.name();
        let measured = Visit { promise: None, ..visit }.measured(path);
        self.history.answered(&measured);
        self.recorder.record(&measured);
        let router = number % self.routers.len();
        self.routers[router].ended(promise);
        self.bar.set_position(self.recorder.requests());
        self.follow(number, now);
    }

    /// What its client asks next.
    fn follow(&mut self, number: usize, now: Duration) {
        let Some(next) = self.next[number] else { return };
        let pause = self.options.trace.pause(&self.options.trace.requests[next]);
        self.agenda.plan(now + WAY + pause, Happening::Comes(next));
    }

    /// Requests that came a second, where they came by a clock.
    fn came_per_s(&self) -> Option<f64> {
        let trace = &self.options.trace;
        let is_open = trace.requests.iter().all(|request| request.session.is_none());
        let last = trace.arrivals(self.options.seed).last().copied().unwrap_or_default();
        let rate = trace.requests.len() as f64 / last.as_secs_f64();
        (is_open && rate.is_finite()).then_some(rate)
    }
}

fn build(fleet: &Fleet, options: &SimulateOptions, namer: Namer) -> Build {
    let targets = options.targets();
    let itl = options.slo.itl_p99_ms.map(|ms| Duration::from_secs_f64(ms / 1e3));
    let targets = Targets { ttft: Some(targets.ttft), tpot: Some(targets.tpot), itl };
    Build { blocks: fleet.blocks, limits: fleet.limits(), targets, steps: fleet.steps, namer }
}

/// What a run's report begins with.
fn header(options: &SimulateOptions, policy: Policy) -> Report {
    let SimulateOptions { trace, fleet, slo, seed, .. } = options;
    Report {
        server: format!("simulated: {fleet}"),
        model: "simulated".to_owned(),
        workload: trace.describe(),
        arrivals: policy.to_string(),
        seed: *seed,
        slo: *slo,
        ..Report::default()
    }
}

// === impl Visit ===

impl Visit {
    /// As its client saw it, once it is answered.
    fn measured(&self, path: &str) -> Measured {
        let (first, sent) = self.sent.expect("it was sent");
        let job = self.job.as_ref().expect("it was placed");
        let after = |time: Option<&Duration>| time.map_or(Duration::ZERO, |it| *it - sent);
        Measured {
            lag: Duration::ZERO,
            refusals: self.refusals,
            waited: sent - first,
            ttft: after(self.tokens.first()),
            total: after(self.tokens.last()),
            gaps: self.tokens.windows(2).map(|pair| pair[1] - pair[0]).collect(),
            input_tokens: job.prompt_tokens.into(),
            cached_tokens: self.cached_tokens.into(),
            output_tokens: self.tokens.len() as u64,
            path: Some(path.to_owned()),
        }
    }
}
