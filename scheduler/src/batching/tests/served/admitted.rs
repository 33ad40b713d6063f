//! The same engine behind routers that hold requests to targets: who is let in, and what that comes to.
//!
//! Routers see a report every tenth of a second and what they have sent since; the worker's entrance sees the engine as of its
//! last step. What decides is the real thing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use words::{Address, Capacity, Fingerprint, Incarnation, Load, NodeState, Role, WorkerInfo};

use super::engine::{BLOCKS, PLACES};
use super::*;
use crate::admission::{Misses, Size, Stage, decide, start_within};
use crate::cost::prior::PREFILL_TOKENS_PER_S;
use crate::placement::LedgerEntry;
use crate::{
    ClusterSnapshot, Forecast, HandoffPolicy, LeastLoad, Ledger, Placement, PlacementRequest,
    Placer, SloTargets, Turns, WorkerView,
};

const REPORT_S: f64 = 0.1;
/// From a router to the worker, or back.
const WAY_S: f64 = 0.5e-3;

/// What is asked, and of how many routers.
#[derive(Clone, Copy)]
struct Scene {
    traffic: Traffic,
    targets: Targets,
    routers: usize,
    seed: u64,
}

/// Routers, and a worker behind them.
struct House {
    scene: Scene,
    held: SloTargets,
    start: Instant,
    dice: Dice,
    view: ClusterSnapshot,
    routers: Vec<Router>,
    engine: Engine,
    promises: HashMap<u64, Promise>,
    served: Served,
}

/// What a router keeps to itself.
#[derive(Default)]
struct Router {
    ledger: Ledger,
    turns: Turns,
    misses: Misses,
}

/// What a request was let in with.
struct Promise {
    router: usize,
    forecast: Forecast,
    entry: LedgerEntry,
}

/// What came of all that came.
#[derive(Default)]
struct Served {
    came: usize,
    refused_by_router: usize,
    refused_by_worker: usize,
    done: Vec<Request>,
    /// By how much first tokens came later than forecast.
    late_s: Vec<f64>,
}

// === impl Scene ===

impl Scene {
    fn serve(self) -> Served {
        House::new(self).run()
    }
}

// === impl House ===

impl House {
    fn new(scene: Scene) -> Self {
        let usual = SloTargets::default();
        let held = SloTargets {
            ttft: scene.targets.ttft.unwrap_or(usual.ttft),
            tpot: scene.targets.tpot.unwrap_or(usual.tpot),
        };
        Self {
            scene,
            held,
            start: Instant::now(),
            dice: Dice(scene.seed),
            view: ClusterSnapshot { workers: vec![worker()] },
            routers: (0..scene.routers).map(|_| Router::default()).collect(),
            engine: Engine::new(Cut { tokens_max: 8448, targets: scene.targets }),
            promises: HashMap::new(),
            served: Served::default(),
        }
    }

    /// Until all that came in a minute have been answered or refused.
    fn run(mut self) -> Served {
        let mut arrivals = arrivals(self.scene.traffic.per_s, &mut self.dice);
        let mut reports = 0_u64;
        loop {
            let comes = arrivals.last().copied().unwrap_or(f64::INFINITY);
            let reported = reports as f64 * REPORT_S;
            let ends = self.engine.ends_s().unwrap_or(f64::INFINITY);
            if comes.min(ends).is_infinite() {
                return self.served;
            }
            let now = comes.min(reported).min(ends);
            if ends <= now {
                self.end_step(now);
            } else if reported <= now {
                reports += 1;
                self.report(reports, now);
            } else {
                arrivals.pop();
                self.ask(now);
            }
            if self.engine.ends_s().is_none() && !self.engine.is_idle() {
                self.engine.begin(now, &mut self.dice);
            }
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn size(&self) -> Size {
        Size { width: 1, prompt_tokens: self.scene.traffic.prompt_tokens }
    }

    fn ask(&mut self, now: f64) {
        let number = self.served.came;
        self.served.came += 1;
        let router = number % self.routers.len();
        let at = self.at(now);
        let placed = self.place(router, at);
        let margin_s = self.routers[router].misses.margin_s(self.held.ttft, at);
        let forecast = Forecast { margin_s, ..placed.forecast };
        if decide(&forecast, &self.held).is_err() {
            self.served.refused_by_router += 1;
        } else if self.begins_within_s() + WAY_S > start_within(&forecast, &self.held).as_secs_f64()
        {
            self.served.refused_by_worker += 1;
        } else {
            self.send(router, &placed, now);
        }
    }

    fn place(&mut self, router: usize, at: Instant) -> Placement {
        let Traffic { prompt_tokens, output_tokens, .. } = self.scene.traffic;
        let Router { ledger, turns, .. } = &mut self.routers[router];
        ledger.apply(&mut self.view);
        let asked = PlacementRequest {
            context_tokens: prompt_tokens,
            total_tokens_max: prompt_tokens + output_tokens,
            ..PlacementRequest::smallest("m", 0)
        };
        let asked = asked.of(ClientId::default(), turns);
        let placer = LeastLoad { handoff: HandoffPolicy::Never, targets: self.held };
        placer.place(&self.view, &asked, at).expect("there is a worker")
    }

    /// As the worker's entrance forecasts it.
    fn begins_within_s(&self) -> f64 {
        let measured = self.engine.meter.prompt_tokens_per_s();
        let tokens_per_s = if measured > 0.0 { measured } else { PREFILL_TOKENS_PER_S };
        self.engine.backlog().total() as f64 / tokens_per_s
    }

    fn send(&mut self, router: usize, placed: &Placement, now: f64) {
        let (size, sent_at) = (self.size(), self.at(now));
        let heard_at = self.at(now + 2.0 * WAY_S);
        let Router { ledger, turns, .. } = &mut self.routers[router];
        turns.begin(ClientId::default(), size);
        let entry = ledger.record(placed, sent_at);
        ledger.taken(&entry, &placed.decode.worker, heard_at);
        let Traffic { prompt_tokens, output_tokens, .. } = self.scene.traffic;
        let number = self.engine.take(now, prompt_tokens, output_tokens);
        self.promises.insert(number, Promise { router, forecast: placed.forecast, entry });
    }

    fn report(&mut self, sequence: u64, now: f64) {
        let (running, waiting) = self.engine.counts();
        let meter = &self.engine.meter;
        let load = Load {
            sequence,
            running,
            waiting,
            queued_prefill_tokens: self.engine.backlog().total(),
            free_blocks: self.engine.free_blocks(),
            total_blocks: BLOCKS,
            prefill_tokens_per_s: meter.prompt_tokens_per_s(),
            decode_step_s: meter.decode_step_s,
            output_tokens: meter.output.mean(),
            generating: running + waiting,
            prefill_tokens: meter.prompt_tokens,
            ..Load::default()
        };
        let at = self.at(now);
        self.view.workers[0].observe(Incarnation(1), load, at);
    }

    fn end_step(&mut self, now: f64) {
        let done = self.engine.end();
        let first = self.engine.firsts(now);
        first.into_iter().for_each(|(number, ttft_s)| self.speaks(number, ttft_s, now));
        for (number, request) in done {
            if let Some(Promise { router, entry, .. }) = self.promises.remove(&number) {
                let size = self.size();
                let Router { ledger, turns, .. } = &mut self.routers[router];
                ledger.settle(entry);
                turns.end(ClientId::default(), size, Stage::Speaks);
            }
            self.served.done.push(request);
        }
    }

    fn speaks(&mut self, number: u64, ttft_s: f64, now: f64) {
        let (size, at) = (self.size(), self.at(now));
        let Promise { router, forecast, .. } = &self.promises[&number];
        let late_s = ttft_s - forecast.wait_s - forecast.own_s;
        let Router { turns, misses, .. } = &mut self.routers[*router];
        turns.advance(ClientId::default(), size, Stage::Waits, Stage::Speaks);
        misses.observe(late_s, at);
        self.served.late_s.push(late_s);
    }
}

// === impl Served ===

impl Served {
    fn add(&mut self, more: Self) {
        self.came += more.came;
        self.refused_by_router += more.refused_by_router;
        self.refused_by_worker += more.refused_by_worker;
        self.done.extend(more.done);
        self.late_s.extend(more.late_s);
    }

    fn refused(&self) -> usize {
        self.refused_by_router + self.refused_by_worker
    }

    /// The part of those that came that was answered in time.
    fn share_in_time(&self, traffic: Traffic) -> f64 {
        Report::of(&self.done, traffic).within * SECONDS / self.came as f64
    }

    fn ttft_p99_ms(&self) -> f64 {
        let mut ttfts: Vec<f64> = self.done.iter().map(|it| it.ttft_s() * 1e3).collect();
        ttfts.sort_by(f64::total_cmp);
        ttfts.get(ttfts.len() * 99 / 100).copied().unwrap_or_default()
    }

    /// The mean of how late first tokens came, and its deviation.
    fn late_ms(&self) -> (f64, f64) {
        let mean_of = |of: &dyn Fn(f64) -> f64| {
            self.late_s.iter().map(|it| of(*it)).sum::<f64>() / self.late_s.len() as f64
        };
        let mean_s = mean_of(&|it| it);
        (mean_s * 1e3, mean_of(&|it| (it - mean_s).powi(2)).sqrt() * 1e3)
    }
}

fn worker() -> WorkerView {
    let address = Address { worker: "d1".into(), incarnation: Incarnation(1), uri: String::new() };
    let fingerprint = Fingerprint {
        model: "m".into(),
        weights: "5eed".into(),
        kv_layout: "layers=32 kv_heads=8 head_dim=128 block_tokens=16 dtype=bf16"
            .parse()
            .expect("a layout"),
        hash_version: 1,
        wire_version: 1,
    };
    let capacity = Capacity {
        kv_blocks: BLOCKS,
        block_tokens: 16,
        sequences_max: PLACES,
        queue_max: 1024,
        context_tokens_max: 131_072,
    };
    WorkerView::new(Arc::new(WorkerInfo {
        address,
        role: Role::Decode,
        state: NodeState::Serving,
        fingerprint,
        capacity,
        transports: Vec::new(),
    }))
}

const HELD: (u64, u64, u64) = (500, 30, 30);

fn scene(traffic: Traffic, per_s: f64, routers: usize) -> Scene {
    let (ttft, tpot, itl) = HELD;
    let traffic = Traffic { per_s, ..traffic };
    Scene { traffic, targets: targets(ttft, tpot, itl), routers, seed: 1126 }
}

/// Each case: what comes, and how much of it is answered in time at least. Capacity is 6.7 and 33 a second.
#[rstest]
#[case::below_capacity(LONG, 5.0, 0.98)]
#[case::near_it(LONG, 6.0, 0.95)]
#[case::beyond(LONG, 8.0, 0.82)]
#[case::short_prompts_near_it(SHORT, 31.0, 0.99)]
#[case::short_prompts_beyond(SHORT, 40.0, 0.80)]
fn what_capacity_lacks_is_refused_and_little_else(
    #[case] traffic: Traffic,
    #[case] per_s: f64,
    #[case] least: f64,
    #[values(1, 4)] routers: usize,
) {
    let scene = scene(traffic, per_s, routers);
    let served = scene.serve();
    let share = served.share_in_time(scene.traffic);
    assert_eq!(served.done.len() + served.refused(), served.came, "nobody is lost");
    assert!(share >= least, "{share} of {}", served.came);
    let late = 1.0 - share - served.refused() as f64 / served.came as f64;
    assert!(late <= 0.01, "{late} were let in and came late");
}

#[test]
fn forecasts_are_right_on_average() {
    for (traffic, per_s) in [(LONG, 7.0), (SHORT, 34.0)] {
        let (mean_ms, deviation_ms) = scene(traffic, per_s, 1).serve().late_ms();
        assert!(mean_ms.abs() <= 20.0 && deviation_ms <= 35.0, "{mean_ms} +- {deviation_ms}");
    }
}

/// All figures: `cargo test -p scheduler --lib -- --ignored --no-capture behind_routers`.
#[test]
#[ignore = "prints figures, and takes minutes"]
fn behind_routers() {
    for (name, routers, targets) in [
        ("none", 1, targets(0, 0, 30)),
        ("500, 30", 1, targets(500, 30, 30)),
        ("four routers", 4, targets(500, 30, 30)),
    ] {
        for per_s in [5.0, 6.0, 7.0, 8.0] {
            tell(name, Scene { traffic: Traffic { per_s, ..LONG }, targets, routers, seed: 0 });
        }
        for per_s in [28.0, 31.0, 34.0, 40.0] {
            tell(name, Scene { traffic: Traffic { per_s, ..SHORT }, targets, routers, seed: 0 });
        }
    }
}

/// Five minutes of it.
#[expect(clippy::print_stdout, reason = "figures are to be seen")]
fn tell(name: &str, scene: Scene) {
    const SEEDS: u64 = 5;
    let mut all = Served::default();
    (1..=SEEDS).for_each(|seed| all.add(Scene { seed: seed * 1126, ..scene }.serve()));
    let Traffic { prompt_tokens, output_tokens, per_s, .. } = scene.traffic;
    let it = Report::of(&all.done, scene.traffic);
    let (late_ms, deviation_ms) = all.late_ms();
    let (within, came) = (it.within / SEEDS as f64, all.came as f64 / SECONDS / SEEDS as f64);
    println!(
        "| {prompt_tokens}/{output_tokens} {per_s} {name} | {came:.2} | {within:.2} ({:.0} %) | {:.1} % ({} + {}) | {:.0} / {:.0} | {:.1} | {:.1} | {late_ms:.0} +- {deviation_ms:.0} |",
        100.0 * all.share_in_time(scene.traffic),
        100.0 * all.refused() as f64 / all.came as f64,
        all.refused_by_router,
        all.refused_by_worker,
        it.ttft_mean_ms,
        all.ttft_p99_ms(),
        it.tpot_mean_ms,
        it.itl_p99_ms,
    );
}
