//! One engine under load, with the H200's table for its steps' times: what the plans come to for clients.

mod admitted;
mod engine;

use self::engine::{Cut, Engine, Request};
use super::*;

/// What requests are like, and what is wanted of them.
#[derive(Clone, Copy)]
struct Traffic {
    per_s: f64,
    prompt_tokens: u32,
    output_tokens: u32,
    ttft_s: f64,
    tpot_s: f64,
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

const SECONDS: f64 = 60.0;

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

/// When requests come, the last first.
fn arrivals(per_s: f64, dice: &mut Dice) -> Vec<f64> {
    let (mut arrivals, mut at) = (Vec::new(), 0.0);
    while at < SECONDS {
        at -= dice.share().ln() / per_s;
        arrivals.push(at);
    }
    arrivals.reverse();
    arrivals
}

/// Serves a minute of traffic, whoever comes.
fn serve(traffic: Traffic, cut: Cut) -> Report {
    let (mut engine, mut dice, mut done) = (Engine::new(cut), Dice(1126), Vec::new());
    let mut arrivals = arrivals(traffic.per_s, &mut dice);
    let mut now = 0.0;
    while now < SECONDS {
        if engine.is_idle() {
            now = arrivals.last().copied().unwrap_or(SECONDS).max(now);
        }
        while let Some(arrived_s) = arrivals.pop_if(|at| *at <= now) {
            engine.take(arrived_s, traffic.prompt_tokens, traffic.output_tokens);
        }
        engine.begin(now, &mut dice);
        now = engine.ends_s().unwrap_or(now);
        done.extend(engine.end().into_iter().map(|(_, request)| request));
    }
    Report::of(&done, traffic)
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
const LONG: Traffic = Traffic { prompt_tokens: 4096, output_tokens: 256, ..SHORT };

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
