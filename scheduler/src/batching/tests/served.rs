//! One engine under load, with the H200's table for its steps' times: what the plans come to for clients.

use std::collections::BTreeMap;

use super::*;
use crate::cost::StepShape;

/// What requests are like, and what is wanted of them.
#[derive(Clone, Copy)]
struct Traffic {
    per_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    ttft_s: f64,
    tpot_s: f64,
}

/// How steps are cut.
#[derive(Clone, Copy)]
struct Cut {
    tokens_max: u32,
    targets: Targets,
}

#[derive(Debug, Default)]
struct Report {
    /// Requests a second: within the targets, and all.
    within: f64,
    served: f64,
    ttft_mean_ms: f64,
    tpot_mean_ms: f64,
    itl_p99_ms: f64,
}

struct Request {
    view: SequenceView,
    arrived_s: f64,
    tokens_s: Vec<f64>,
    left: u32,
}

const SECONDS: f64 = 60.0;
const BLOCK: u32 = 16;

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    /// Above 0, at most 1.
    fn share(&mut self) -> f64 {
        let next = self.0.wrapping_mul(6_364_136_223_846_793_005);
        self.0 = next.wrapping_add(1_442_695_040_888_963_407);
        (((self.0 >> 33) + 1) as f64) / f64::from(1_u32 << 31)
    }
}

/// Serves a minute of traffic; steps take what the table says, more or less a few parts in a hundred.
fn serve(traffic: Traffic, cut: Cut) -> Report {
    let truth = StepTimes::new(StepSeed::GPU);
    let (mut times, mut dice) = (StepTimes::new(StepSeed::GPU), Dice(1126));
    let limits = BatchLimits {
        tokens_max: cut.tokens_max,
        sequences_max: 256,
        block_tokens: BLOCK,
        watermark_blocks: 100,
        wanted_blocks: 0,
    };
    let mut arrivals = Vec::new();
    let mut at = 0.0;
    while at < SECONDS {
        at -= dice.share().ln() / traffic.per_s;
        arrivals.push(at);
    }
    arrivals.reverse();
    let (mut now, mut live, mut done) = (0.0, BTreeMap::<SequenceKey, Request>::new(), Vec::new());
    let mut free_blocks = 80_000;
    let mut number = 0;
    while now < SECONDS {
        if live.is_empty() {
            now = arrivals.last().copied().unwrap_or(SECONDS).max(now);
        }
        while let Some(arrived_s) = arrivals.pop_if(|at| *at <= now) {
            number += 1;
            let key = SequenceKey { request: number, choice: 0 };
            let view = SequenceView {
                key,
                standing: Standing::Waiting,
                client: ClientId::default(),
                paused: false,
                stalled: false,
                context_tokens: traffic.prompt_tokens,
                filled_tokens: 0,
                held_blocks: 0,
                copies_tail: false,
                width: 1,
                due: Due::First(None),
            };
            let left = traffic.output_tokens;
            live.insert(key, Request { view, arrived_s, tokens_s: Vec::new(), left });
        }
        let views: Vec<SequenceView> = live.values().map(|it| it.seen(now, &cut.targets)).collect();
        let pace = Pace { times: &times, step_max: None };
        let plan = plan(&limits, &pace, &views, free_blocks, &mut |_| PrefixHit::default());
        let parts = plan.rows.iter().map(|row| live[&row.key].view.part(row.tokens));
        let shape: StepShape = parts.sum();
        let took = truth.forecast_s(&shape) * (0.98 + 0.04 * dice.share());
        times.observe(&shape, Duration::from_secs_f64(took));
        now += took;
        assert!(plan.preempted.is_empty(), "there is memory");
        for row in &plan.rows {
            free_blocks -= row.blocks;
            let Some(request) = live.get_mut(&row.key) else { continue };
            if request.advance(row, now) {
                let request = live.remove(&row.key).expect("it was there");
                free_blocks += request.view.held_blocks;
                done.push(request);
            }
        }
    }
    Report::of(&done, traffic)
}

impl Request {
    fn seen(&self, now: f64, targets: &Targets) -> SequenceView {
        let since = |then: f64| Duration::from_secs_f64(now - then);
        let progress = match (self.tokens_s.first(), self.tokens_s.last()) {
            (Some(first), Some(last)) => {
                let gaps = self.tokens_s.len() as u32 - 1;
                Progress::Streaming { since: since(*first), gaps, silent: since(*last) }
            }
            _ => Progress::Waiting { since: since(self.arrived_s) },
        };
        SequenceView { due: Due::of(progress, targets), ..self.view }
    }

    /// Whether that was its last token.
    fn advance(&mut self, row: &PlannedRow, now: f64) -> bool {
        let view = &mut self.view;
        view.standing = Standing::Running;
        view.held_blocks += row.blocks;
        view.filled_tokens += row.tokens;
        if view.filled_tokens == view.context_tokens {
            view.context_tokens += 1;
            self.tokens_s.push(now);
            self.left -= 1;
        }
        self.left == 0
    }

    fn ttft_s(&self) -> f64 {
        self.tokens_s[0] - self.arrived_s
    }

    fn tpot_s(&self) -> f64 {
        let (first, last) = (self.tokens_s[0], self.tokens_s[self.tokens_s.len() - 1]);
        (last - first) / (self.tokens_s.len() - 1) as f64
    }
}

impl Report {
    fn of(done: &[Request], traffic: Traffic) -> Self {
        let mean_ms = |of: fn(&Request) -> f64| {
            done.iter().map(of).sum::<f64>() / done.len().max(1) as f64 * 1e3
        };
        let is_within =
            |it: &&Request| it.ttft_s() <= traffic.ttft_s && it.tpot_s() <= traffic.tpot_s;
        let gaps = done.iter().flat_map(|it| it.tokens_s.windows(2).map(|pair| pair[1] - pair[0]));
        let mut gaps: Vec<f64> = gaps.collect();
        gaps.sort_by(f64::total_cmp);
        Self {
            within: done.iter().filter(is_within).count() as f64 / SECONDS,
            served: done.len() as f64 / SECONDS,
            ttft_mean_ms: mean_ms(Request::ttft_s),
            tpot_mean_ms: mean_ms(Request::tpot_s),
            itl_p99_ms: gaps.get(gaps.len() * 99 / 100).map_or(0.0, |gap| gap * 1e3),
        }
    }
}

fn targets(ttft: u64, tpot: u64, itl: u64) -> Targets {
    let of = |ms| (ms > 0).then(|| Duration::from_millis(ms));
    Targets { ttft: of(ttft), tpot: of(tpot), itl: of(itl) }
}

const SHORT: Traffic =
    Traffic { per_s: 0.0, prompt_tokens: 1024, output_tokens: 128, ttft_s: 0.5, tpot_s: 0.03 };

#[test]
fn near_its_capacity_an_engine_keeps_nearly_all_in_time_and_no_gap_is_long() {
    let cut = Cut { tokens_max: 8448, targets: targets(500, 0, 30) };
    let report = serve(Traffic { per_s: 31.0, ..SHORT }, cut);
    assert!(report.within >= 0.99 * report.served && report.served > 29.0, "{report:?}");
    assert!(report.itl_p99_ms <= 30.0, "{report:?}");
}

#[test]
fn beyond_it_most_are_in_time_where_prompts_come_by_their_targets() {
    let of = |ttft| {
        let cut = Cut { tokens_max: 8448, targets: targets(ttft, 0, 30) };
        serve(Traffic { per_s: 40.0, ..SHORT }, cut)
    };
    let (by_arrival, by_target) = (of(0), of(500));
    assert!(by_target.within > 2.5 * by_arrival.within, "{by_target:?} {by_arrival:?}");
    assert!(by_target.served > 0.98 * by_arrival.served, "{by_target:?} {by_arrival:?}");
}

/// All figures: `cargo test -p scheduler -- --ignored --no-capture one_engine`.
#[test]
#[ignore = "prints figures, and takes a minute"]
#[expect(clippy::print_stdout, reason = "that is what it is for")]
fn one_engine_under_load() {
    let cuts = [
        ("768 tokens", Cut { tokens_max: 768 + 64, targets: Targets::default() }),
        ("as large as may be", Cut { tokens_max: 8448, targets: Targets::default() }),
        ("itl 30", Cut { tokens_max: 8448, targets: targets(0, 0, 30) }),
        ("ttft 500, itl 30", Cut { tokens_max: 8448, targets: targets(500, 0, 30) }),
        ("ttft 500, tpot 30, itl 30", Cut { tokens_max: 8448, targets: targets(500, 30, 30) }),
        ("ttft 500, itl 15", Cut { tokens_max: 8448, targets: targets(500, 0, 15) }),
        ("ttft 500, tpot 30, itl 60", Cut { tokens_max: 8448, targets: targets(500, 30, 60) }),
    ];
    for (prompt_tokens, output_tokens, rates) in
        [(1024, 128, [24.0, 28.0, 31.0, 34.0, 40.0]), (4096, 256, [5.0, 6.0, 6.6, 7.2, 8.0])]
    {
        for per_s in rates {
            for (name, cut) in cuts {
                let traffic =
                    Traffic { per_s, prompt_tokens, output_tokens, ttft_s: 0.5, tpot_s: 0.03 };
                let it = serve(traffic, cut);
                println!(
                    "{prompt_tokens}/{output_tokens} {per_s:4.1}/s {name:26} {:5.2} of {:5.2}  ttft {:6.0}  tpot {:5.1}  itl p99 {:5.1}",
                    it.within, it.served, it.ttft_mean_ms, it.tpot_mean_ms, it.itl_p99_ms
                );
            }
        }
    }
}
