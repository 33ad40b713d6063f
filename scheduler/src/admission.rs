//! Who is let in: by when its tokens would come, by its client's share, by what it may need.
//!
//! Full is a question of time. [`decide`] holds what a request may expect ([`Forecast`]) to the targets; [`Turns`]
//! says how much of what waits comes before it, when clients take turns; [`Line`] is the order in which requests
//! enter a worker, and [`Streams`] bounds what clients have open at a router.

mod line;
mod misses;
mod streams;
mod turns;

use std::time::Duration;

pub use line::{Line, LineFull, Need};
pub use misses::Misses;
pub use streams::{StreamLimits, StreamPermit, Streams};
pub use turns::{Size, Stage, Turns};

use crate::SloTargets;

/// Bounds of the time a refused client is told to wait.
const RETRY_AFTER_S: std::ops::RangeInclusive<f64> = 0.05..=60.0;

/// Clients that were refused together come back over so much more than the time they were told, as a share.
const RETRY_SPREAD: f64 = 1.0;

/// The part of a target that estimates may fill where nobody knows how right they are: they are so on average, and the target
/// is for nearly all.
const HEADROOM: f64 = 0.7;

/// The part of the time left for waiting that stays however wrong forecasts were: whoever is let in only where nobody
/// waits leaves workers idle between two requests.
const WAIT_SHARE_MIN: f64 = 0.25;

/// The golden ratio's fraction of 2^64: its multiples fill a range evenly, however many there are.
const EVENLY: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a request may expect where it would go.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Until others have made room: their prompts, a place, KV blocks.
    pub wait_s: f64,
    /// Its own way to the first token: prompt, hand-off, a step.
    pub own_s: f64,
    /// A decode step among the others.
    pub step_s: f64,
    /// A decode step if nobody else were there.
    pub step_alone_s: f64,
    /// Until one of the others ends.
    pub release_s: f64,
    /// What is to be left of the target to the first token, for what forecasts don't know.
    pub margin_s: f64,
    /// Its client has less than an equal share of what is under way.
    pub is_short: bool,
}

/// A request that would miss a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Late {
    /// Which.
    pub target: Target,
    /// Seconds to the first token, or of a step, as forecast.
    pub expected_s: f64,
    /// Seconds of the target that are left free for what forecasts miss by.
    pub margin_s: f64,
    /// Seconds until it is likely to meet it.
    pub room_in_s: f64,
}

/// What a request is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Time to the first token.
    Ttft,
    /// Time per output token.
    Tpot,
}

/// Whether a request is let in.
///
/// One that takes longer than a target even alone can't be held to it: it is held to twice what it takes alone,
/// so that an idle cluster serves whatever fits its context, and slow hardware does not queue for ever. A
/// client that has less than its share isn't kept out by what the others' tokens take.
///
/// # Errors
/// [`Late`], naming the target that it would miss.
pub fn decide(forecast: &Forecast, targets: &SloTargets) -> Result<(), Late> {
    let wait_max_s = wait_max_s(forecast, targets);
    if forecast.wait_s > wait_max_s {
        return Err(Late {
            target: Target::Ttft,
            expected_s: forecast.wait_s + forecast.own_s,
            margin_s: forecast.margin_s,
            room_in_s: forecast.wait_s - wait_max_s,
        });
    }
    // Where a step alone fills most of the target, two share it: who has just ended is still in the last report, and
    // would keep the next one from an idle worker.
    let step_max_s =
        attainable(targets.tpot, forecast.step_alone_s).max(2.0 * forecast.step_alone_s);
    if !forecast.is_short && forecast.step_s > step_max_s {
        return Err(Late {
            target: Target::Tpot,
            expected_s: forecast.step_s,
            margin_s: unlearned_s(targets.tpot),
            room_in_s: forecast.release_s,
        });
    }
    Ok(())
}

/// When to come back, for a client that was refused.
///
/// - `turn`: differs from refusal to refusal. Those refused together are spread out by it.
#[must_use]
pub fn retry_after(room_in_s: f64, turn: u64) -> Duration {
    let (least, most) = RETRY_AFTER_S.into_inner();
    let spread = (turn.wrapping_mul(EVENLY) >> 32) as f64 / f64::from(u32::MAX);
    // Nobody knows is as long as can be.
    let room_in_s = if room_in_s.is_nan() { most } else { room_in_s.clamp(least, most) };
    Duration::from_secs_f64(room_in_s * (1.0 + RETRY_SPREAD * spread))
}

/// Until work on a request has to begin, for its first token to come in time.
#[must_use]
pub fn start_within(forecast: &Forecast, targets: &SloTargets) -> Duration {
    Duration::try_from_secs_f64(wait_max_s(forecast, targets)).unwrap_or(Duration::MAX)
}

/// The longest time that a step may take at the worker, as measured there; `None`: whatever it takes, for a client with
/// less than its share.
#[must_use]
pub fn step_max(forecast: &Forecast, targets: &SloTargets) -> Option<Duration> {
    let step_max = targets.tpot.as_secs_f64().max(2.0 * forecast.step_alone_s);
    if forecast.is_short { None } else { Duration::try_from_secs_f64(step_max).ok() }
}

/// What is left for waiting. Where that is twice what the request takes alone, the usual doubt is in it.
fn wait_max_s(forecast: &Forecast, targets: &SloTargets) -> f64 {
    let Forecast { own_s, margin_s, .. } = *forecast;
    let (target_s, free_s) = (targets.ttft.as_secs_f64(), unlearned_s(targets.ttft));
    let (left_s, margin_s) = if own_s <= target_s - free_s {
        (target_s - own_s, margin_s)
    } else {
        (own_s, (margin_s - free_s).max(0.0))
    };
    (left_s - margin_s).max(WAIT_SHARE_MIN * left_s)
}

/// The part of a target that estimates may fill, or where one alone takes more, twice that.
pub(crate) fn attainable(target: Duration, alone_s: f64) -> f64 {
    let target_s = target.as_secs_f64() - unlearned_s(target);
    if alone_s <= target_s { target_s } else { 2.0 * alone_s }
}

/// What stays free of a target where nobody knows how right forecasts are.
pub(crate) fn unlearned_s(target: Duration) -> f64 {
    (1.0 - HEADROOM) * target.as_secs_f64()
}

#[cfg(test)]
mod tests;
