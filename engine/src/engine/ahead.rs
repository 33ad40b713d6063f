//! How long before the end of a step the next one is planned.

use std::time::Duration;

use super::stats::NEWEST_SHARE;

/// What is left where submitting took its usual time: for a thread that wakes late, and steps that end early. Of an H200's
/// decode steps 19 in 20 end no earlier before their forecast than that.
const SPARE: Duration = Duration::from_micros(300);
/// The same as a share of the step in flight: of steps with prompts, too, 19 in 20.
const SPARE_SHARE: f64 = 0.05;

/// How long it is where nothing was measured: host time of a decode step (0.1 to 0.4 ms), and as much again.
const UNMEASURED: Duration = Duration::from_millis(1);
/// The same as a share of the step in flight, since its forecast is an average.
const UNMEASURED_SHARE: f64 = 0.15;

/// What planning and submitting a step costs the engine's thread: by so much, and a little, the next is planned before the one
/// in flight ends. Later, the device waits, and who has a token of that step hears of it late; earlier, whoever comes
/// meanwhile is left out.
///
/// Steps with prompts are hundreds of launches where others are a recording, and count apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlanAhead {
    prompts: Option<Duration>,
    decodes: Option<Duration>,
}

// === impl PlanAhead ===

impl PlanAhead {
    /// Takes into account what planning and submitting a step cost.
    ///
    /// - `in_time`: it was over before the step in flight ended. Then it may have waited for room in the device's queue,
    ///   as long as it was early: no reason to be earlier still.
    pub(crate) fn observe(&mut self, prompts: bool, cost: Duration, in_time: bool) {
        let usual = self.usual_mut(prompts);
        *usual = Some(match *usual {
            Some(usual) if in_time && cost > usual => usual,
            Some(usual) => usual.mul_f64(1.0 - NEWEST_SHARE) + cost.mul_f64(NEWEST_SHARE),
            None => cost,
        });
    }

    /// How long before its end the step after one in flight is planned.
    ///
    /// - `prompts`: whether the next one will have any.
    /// - `expected`: how long the one in flight takes.
    pub(crate) fn lead(&self, prompts: bool, expected: Duration) -> Duration {
        let usual = if prompts { self.prompts } else { self.decodes };
        match usual {
            Some(usual) => usual + SPARE.max(expected.mul_f64(SPARE_SHARE)),
            None => UNMEASURED.max(expected.mul_f64(UNMEASURED_SHARE)),
        }
    }

    fn usual_mut(&mut self, prompts: bool) -> &mut Option<Duration> {
        if prompts { &mut self.prompts } else { &mut self.decodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn us(us: u64) -> Duration {
        Duration::from_micros(us)
    }

    #[test]
    fn nothing_measured_is_a_millisecond_or_a_share() {
        let ahead = PlanAhead::default();
        assert_eq!(ahead.lead(true, us(4000)), us(1000));
        assert_eq!(ahead.lead(false, us(20_000)), us(3000));
    }

    #[test]
    fn each_kind_has_its_own() {
        let mut ahead = PlanAhead::default();
        ahead.observe(true, us(1500), false);
        assert_eq!(ahead.lead(true, us(4000)), us(1800));
        assert_eq!(ahead.lead(true, us(20_000)), us(2500));
        assert_eq!(ahead.lead(false, us(4000)), us(1000), "nothing is known of them");
        ahead.observe(false, us(100), false);
        assert_eq!(ahead.lead(false, us(4000)), us(400));
    }

    #[test]
    fn it_follows_what_it_costs() {
        let mut ahead = PlanAhead::default();
        ahead.observe(true, us(500), false);
        (0..60).for_each(|_| ahead.observe(true, us(2500), false));
        assert!(ahead.lead(true, us(4000)) > us(2790));
        (0..60).for_each(|_| ahead.observe(true, us(500), true));
        assert!(ahead.lead(true, us(4000)) < us(810));
    }

    /// Submitting that waits for the device takes the longer the earlier it begins.
    #[test]
    fn being_early_is_no_reason_to_be_earlier() {
        let mut ahead = PlanAhead::default();
        ahead.observe(true, us(1500), false);
        let before = ahead.lead(true, us(20_000));
        for _ in 0..60 {
            let waits = ahead.lead(true, us(20_000)) - us(100);
            ahead.observe(true, waits, true);
        }
        assert_eq!(ahead.lead(true, us(20_000)), before);
    }
}
