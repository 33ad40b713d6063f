//! Placement at work: two simulated H200s serve Llama-3.1-8B's shape behind their routers, in virtual time.
//!
//! Step times are near those in docs/perf/2026-11-26-gpu-engine.md. The figures in
//! docs/perf/2026-11-30-placement.md are what [`figures`] prints.

mod worker;

use std::collections::VecDeque;

use self::worker::{Prompt, Steps, Worker};
use super::*;
use crate::{SloTargets, admission};

/// From a prompt's end to its first decode step elsewhere.
const HANDOFF: Duration = Duration::from_millis(4);
const REPORT_S: f64 = 0.1;
/// Requests of the first seconds are not counted.
const WARM_UP_S: f64 = 5.0;
/// What answers are judged by.
const TARGETS: SloTargets =
    SloTargets { ttft: Duration::from_millis(500), tpot: Duration::from_millis(30) };
/// Workers that cut their steps so that tokens keep the target.
const CUT: Steps = Steps { seconds_max: 24e-3, tokens_max: 2_048 };
/// Workers whose steps have so many prompt tokens whatever that takes.
const EVEN: Steps = Steps { seconds_max: f64::INFINITY, tokens_max: 768 };

/// One of each.
const PAIR: &str = "p1[new places=256] d1[new places=256]";
/// As many engines, each for itself.
const ENGINES: &str = "d1[new places=256] d2[new places=256]";
const FOUR_ENGINES: &str =
    "d1[new places=256] d2[new places=256] d3[new places=256] d4[new places=256]";
/// Four workers, by how many of them are for prompts.
const ONE_OF_FOUR: &str =
    "p1[new places=256] d1[new places=256] d2[new places=256] d3[new places=256]";
const TWO_OF_FOUR: &str =
    "p1[new places=256] p2[new places=256] d1[new places=256] d2[new places=256]";
const THREE_OF_FOUR: &str =
    "p1[new places=256] p2[new places=256] p3[new places=256] d1[new places=256]";

/// What is asked, and of whom.
#[derive(Clone, Copy)]
struct Scene {
    workers: &'static str,
    engines: &'static str,
    steps: Steps,
    routers: usize,
    /// What routers hold answers to, and let requests in by.
    held: SloTargets,
    per_s: f64,
    prompt: u32,
    output: u32,
    seconds: f64,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
struct Served {
    /// Requests a second that were answered within both targets.
    good_per_s: f64,
    ttft_s: f64,
    tpot_s: f64,
    refused: u32,
    /// Requests by way.
    handed_over: u32,
    on_decode: u32,
    on_prefill: u32,
}

/// One answer's times.
#[derive(Clone, Copy, Default)]
struct Answer {
    came: f64,
    first: f64,
    last: f64,
    tokens: u32,
}

/// Chooses as was chosen before: a hand-off, or a decode worker whose sequences all wait for it.
struct Before(SloTargets);

/// Routers, their workers and what is between them.
struct House<'a> {
    scene: Scene,
    placer: &'a dyn Placer,
    start: Instant,
    view: ClusterSnapshot,
    ledgers: Vec<(Ledger, Vec<LedgerEntry>)>,
    workers: Vec<Worker>,
    /// Hand-offs under way: until when, whose and where to.
    joining: VecDeque<(f64, usize, usize)>,
    answers: Vec<Answer>,
    served: Served,
}

// === impl Before ===

impl Placer for Before {
    fn place(
        &self,
        view: &ClusterSnapshot,
        request: &PlacementRequest<'_>,
        now: Instant,
    ) -> Result<Placement, Refusal> {
        let by = |handoff| LeastLoad { handoff, targets: self.0 }.place(view, request, now);
        let (over, local) = (by(HandoffPolicy::Always)?, by(HandoffPolicy::Never)?);
        let on = view.workers.iter().find(|it| it.info.address == local.decode).expect("known");
        let stalled = f64::from(on.sequences().max(1));
        let local_s = local.terms.ttft_s() + local.terms.prefill_s * stalled;
        let over_s = over.terms.ttft_s() + local.terms.queue_s;
        Ok(if local_s < over_s { local } else { over })
    }
}

// === impl Scene ===

impl Scene {
    /// Prompts of 1,024 tokens and answers of 128, behind one router that knows the targets.
    fn at(per_s: f64) -> Self {
        Self {
            workers: PAIR,
            engines: ENGINES,
            steps: CUT,
            routers: 1,
            held: TARGETS,
            per_s,
            prompt: 1_024,
            output: 128,
            seconds: 65.0,
        }
    }

    fn before(self) -> Served {
        House::new(self, &Before(self.held)).run()
    }

    fn engines(self) -> Served {
        Self { workers: self.engines, ..self }.now()
    }

    fn now(self) -> Served {
        let placer = LeastLoad { handoff: HandoffPolicy::Auto, targets: self.held };
        House::new(self, &placer).run()
    }
}

// === impl House ===

impl<'a> House<'a> {
    fn new(scene: Scene, placer: &'a dyn Placer) -> Self {
        let start = Instant::now();
        let view = cluster(scene.workers, start);
        let workers = view.workers.iter().map(|_| Worker::new(scene.steps)).collect();
        Self {
            scene,
            placer,
            start,
            view,
            ledgers: (0..scene.routers).map(|_| Default::default()).collect(),
            workers,
            joining: VecDeque::new(),
            answers: Vec::new(),
            served: Served::default(),
        }
    }

    fn run(mut self) -> Served {
        let (mut random, mut comes, mut reports) = (0x5eed, 0.0, 0);
        loop {
            let reported = reports as f64 * REPORT_S;
            let now = self.next().min(comes).min(reported);
            if now > self.scene.seconds + 30.0 {
                return self.told();
            }
            if reported <= now {
                reports += 1;
                self.report(reports, now);
            }
            if comes <= now {
                self.ask(now);
                comes += gap_s(&mut random, self.scene.per_s);
            }
            if comes > self.scene.seconds {
                comes = f64::INFINITY;
            }
            self.advance(now);
        }
    }

    fn next(&self) -> f64 {
        let ends = self.workers.iter().filter_map(Worker::ends);
        let joins = self.joining.iter().map(|(at, ..)| *at);
        ends.chain(joins).fold(f64::INFINITY, f64::min)
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn report(&mut self, number: u64, now: f64) {
        let at = self.at(now);
        for (worker, view) in self.workers.iter().zip(&mut self.view.workers) {
            view.observe(view.info.address.incarnation, worker.report(number), at);
        }
    }

    fn ask(&mut self, now: f64) {
        let (number, at, scene) = (self.answers.len(), self.at(now), self.scene);
        let (ledger, entries) = &mut self.ledgers[number % scene.routers];
        ledger.apply(&mut self.view);
        let total_tokens_max = scene.prompt + scene.output;
        let turn = number as u64;
        let asked = PlacementRequest { turn, total_tokens_max, ..request(scene.prompt) };
        self.answers.push(Answer { came: now, ..Answer::default() });
        let placed = self.placer.place(&self.view, &asked, at);
        let kept = |it: &Placement| admission::decide(&it.forecast, &scene.held).is_ok();
        let Some(placement) = placed.ok().filter(kept) else {
            self.served.refused += 1;
            return;
        };
        entries.push(ledger.record(&placement, at));
        self.send(number, &placement);
    }

    fn send(&mut self, answer: usize, placement: &Placement) {
        let index = |address: &Address| {
            self.view.workers.iter().position(|it| it.info.address == *address).expect("known")
        };
        let decode = index(&placement.decode);
        let left = self.scene.prompt;
        match (placement.prefill.first().map(index), self.view.workers[decode].info.role) {
            (Some(prefill), _) => {
                self.served.handed_over += 1;
                self.workers[decode].expect();
                self.workers[prefill].compute(Prompt { answer, left, to: Some(decode) });
                return;
            }
            (None, Role::Decode) => self.served.on_decode += 1,
            (None, Role::Prefill) => self.served.on_prefill += 1,
        }
        self.workers[decode].compute(Prompt { answer, left, to: None });
    }

    fn advance(&mut self, now: f64) {
        let left = self.scene.output - 1;
        for worker in &mut self.workers {
            for Prompt { answer, to, .. } in worker.end_step(now, &mut self.answers) {
                match to {
                    Some(to) => {
                        worker.handed_over(self.scene.prompt);
                        self.joining.push_back((now + HANDOFF.as_secs_f64(), answer, to));
                    }
                    None => worker.generate(answer, left),
                }
            }
        }
        while let Some((_, answer, to)) = self.joining.pop_front_if(|(at, ..)| *at <= now) {
            self.workers[to].receive(answer, left);
        }
        self.workers.iter_mut().for_each(|worker| worker.begin_step(now));
    }

    fn told(self) -> Served {
        let counts = |it: &&Answer| it.tokens == self.scene.output && it.came >= WARM_UP_S;
        let answers: Vec<_> = self.answers.iter().filter(counts).collect();
        let ttft_s = |it: &Answer| it.first - it.came;
        let tpot_s = |it: &Answer| (it.last - it.first) / f64::from(it.tokens - 1);
        let is_good = |it: &&&Answer| {
            ttft_s(it) <= TARGETS.ttft.as_secs_f64() && tpot_s(it) <= TARGETS.tpot.as_secs_f64()
        };
        let mean = |of: &dyn Fn(&Answer) -> f64| {
            answers.iter().map(|it| of(it)).sum::<f64>() / answers.len() as f64
        };
        Served {
            good_per_s: answers.iter().filter(is_good).count() as f64
                / (self.scene.seconds - WARM_UP_S),
            ttft_s: mean(&ttft_s),
            tpot_s: mean(&tpot_s),
            ..self.served
        }
    }
}

/// Between two requests that come at random (SplitMix64).
fn gap_s(state: &mut u64, per_s: f64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let unit = ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    -(1.0 - unit).ln() / per_s
}

/// Answers of 128 tokens to prompts of 1,024: as many within the targets as two engines give, and as a hand-off of every
/// prompt gives, at any rate.
#[rstest]
fn either_pool_helps_the_other(#[values(30.0, 45.0, 60.0, 70.0)] per_s: f64) {
    let scene = Scene { seconds: 25.0, ..Scene::at(per_s) };
    let (now, engines, before) = (scene.now(), scene.engines(), scene.before());
    let best = engines.good_per_s.max(before.good_per_s);
    assert!(now.good_per_s >= 0.99 * best, "{now:?}\n{engines:?}\n{before:?}");
    assert!(per_s < 60.0 || now.good_per_s >= 56.0, "{now:?}");
}

/// Long answers to short prompts: a prefill worker generates nearly as many as the decode worker.
#[test]
fn an_idle_prefill_worker_generates() {
    let scene = Scene { prompt: 128, output: 512, seconds: 25.0, ..Scene::at(50.0) };
    let (now, before) = (scene.now(), scene.before());
    assert!(now.on_prefill * 3 > now.handed_over + now.on_decode, "{now:?}");
    assert!(now.good_per_s >= 1.3 * before.good_per_s, "{now:?}\n{before:?}");
}

#[test]
fn four_routers_serve_as_many_as_one() {
    let one = Scene { seconds: 25.0, ..Scene::at(55.0) };
    let four = Scene { routers: 4, ..one };
    let (one, four) = (one.now(), four.now());
    assert!(four.good_per_s >= 0.97 * one.good_per_s, "{four:?}\n{one:?}");
}

#[test]
#[ignore = "prints figures for docs/perf, and holds nothing"]
fn figures() {
    let target = SloTargets::default();
    let usual = [30.0, 35.0, 40.0, 45.0, 50.0, 55.0, 60.0, 65.0, 70.0];
    tell("1,024 in, 128 out", &usual, Scene::at);
    tell("the same behind four routers", &usual, |per_s| Scene { routers: 4, ..Scene::at(per_s) });
    tell("steps of 768 prompt tokens", &usual, |per_s| Scene { steps: EVEN, ..Scene::at(per_s) });
    tell("the usual targets", &usual, |per_s| Scene { held: target, ..Scene::at(per_s) });
    let rates = [20.0, 30.0, 40.0, 50.0, 60.0];
    tell("128 in, 512 out", &rates, |per_s| Scene { prompt: 128, output: 512, ..Scene::at(per_s) });
    for (what, workers) in
        [("1 + 3", ONE_OF_FOUR), ("2 + 2", TWO_OF_FOUR), ("3 + 1", THREE_OF_FOUR)]
    {
        tell(what, &[60.0, 90.0, 100.0, 110.0, 120.0, 130.0], |per_s| Scene {
            workers,
            engines: FOUR_ENGINES,
            ..Scene::at(per_s)
        });
    }
    let rates = [6.0, 8.0, 10.0, 12.0, 14.0, 16.0];
    tell("4,096 in, 128 out", &rates, |per_s| Scene { prompt: 4_096, ..Scene::at(per_s) });
}

#[expect(clippy::print_stdout, reason = "figures are to be seen")]
fn tell(what: &str, rates: &[f64], scene: impl Fn(f64) -> Scene) {
    println!("\n| {what}: req/s | before | engines | now | handed over, on decode, on prefill |");
    println!("| --- | --- | --- | --- | --- |");
    for &per_s in rates {
        let scene = scene(per_s);
        let (before, engines, now) = (scene.before(), scene.engines(), scene.now());
        let Served { handed_over, on_decode, on_prefill, .. } = now;
        println!(
            "| {per_s} | {before} | {engines} | {now} | {handed_over}, {on_decode}, {on_prefill} |"
        );
    }
}

impl std::fmt::Display for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { good_per_s, ttft_s, tpot_s, .. } = self;
        write!(f, "{good_per_s:.1} ({:.0}, {:.1})", 1e3 * ttft_s, 1e3 * tpot_s)
    }
}
