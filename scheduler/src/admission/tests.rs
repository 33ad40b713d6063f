use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn targets() -> SloTargets {
    SloTargets { ttft: Duration::from_secs(2), tpot: Duration::from_millis(100) }
}

/// `wait=1 own=0.5 step=0.05 alone=0.01 release=3 short`, all in seconds and 0 where left out.
fn forecast(text: &str) -> Forecast {
    let given = |key: &str| {
        let value = |one: &str| one.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
        text.split(' ').find_map(value).unwrap_or(0.0)
    };
    Forecast {
        wait_s: given("wait"),
        own_s: given("own"),
        step_s: given("step"),
        step_alone_s: given("alone"),
        release_s: given("release"),
        margin_s: given("margin"),
        is_short: text.ends_with("short"),
    }
}

/// Each case: what is expected, where 2 s and 100 ms are wanted, and the decision.
#[rstest]
#[case::idle("own=0.1 step=0.01 alone=0.01", "in")]
#[case::a_short_queue("wait=1.2 own=0.1 margin=0.6", "in")]
#[case::as_long_as_the_target("wait=1.9 own=0.1 margin=0.6", "Ttft in 0.6 s")]
#[case::the_same_where_forecasts_are_right("wait=1.7 own=0.1 margin=0.1", "in")]
#[case::a_long_queue("wait=5 own=0.1 margin=0.6", "Ttft in 3.7 s")]
#[case::a_prompt_longer_than_the_target_on_an_idle_cluster("own=30", "in")]
#[case::the_same_behind_another("wait=29 own=30 margin=0.6", "in")]
#[case::the_same_behind_two("wait=61 own=30 margin=0.6", "Ttft in 31.0 s")]
#[case::the_same_where_forecasts_miss_by_much("wait=29 own=30 margin=2.6", "Ttft in 1.0 s")]
#[case::forecasts_that_miss_by_more("wait=1.2 own=0.1 margin=1", "Ttft in 0.3 s")]
#[case::forecasts_that_tell_nothing("wait=0.5 own=0.1 margin=9", "Ttft in 0.0 s")]
#[case::the_same_where_nobody_waits("own=0.1 margin=9", "in")]
#[case::steps_as_wanted("step=0.06 alone=0.01", "in")]
#[case::steps_too_slow("step=0.11 alone=0.01 release=0.7", "Tpot in 0.7 s")]
#[case::two_share_what_one_nearly_fills("step=0.11 alone=0.06", "in")]
#[case::a_slow_device_alone("step=0.5 alone=0.5", "in")]
#[case::a_slow_device_shared_by_few("step=0.9 alone=0.5", "in")]
#[case::a_slow_device_shared_by_too_many("step=1.1 alone=0.5 release=9", "Tpot in 9.0 s")]
#[case::who_has_less_than_a_share_may_slow_the_rest("step=0.11 alone=0.01 short", "in")]
#[case::but_not_come_late("wait=5 own=0.1 margin=0.6 short", "Ttft in 3.7 s")]
fn requests_are_held_to_the_targets(#[case] expected: &str, #[case] want: &str) {
    let got = match decide(&forecast(expected), &targets()) {
        Ok(()) => "in".to_owned(),
        Err(late) => format!("{:?} in {:.1} s", late.target, late.room_in_s),
    };
    assert_eq!(got, want);
}

#[test]
fn clients_refused_together_come_back_apart() {
    let waits: Vec<f64> = (0..100).map(|turn| retry_after(2.0, turn).as_secs_f64()).collect();
    assert!(waits.iter().all(|wait| (2.0..=4.0).contains(wait)), "{waits:?}");
    // Every tenth of the range has its tenth of the clients, give or take two.
    for tenth in 0..10 {
        let from = 2.0 + f64::from(tenth) / 5.0;
        let count = waits.iter().filter(|&&wait| (from..from + 0.2).contains(&wait)).count();
        assert!((8..=12).contains(&count), "{count} from {from}");
    }
}

#[rstest]
#[case::soon(0.0, 0.05)]
#[case::never(f64::INFINITY, 60.0)]
#[case::nobody_knows(f64::NAN, 60.0)]
fn the_wait_is_bounded(#[case] room_in_s: f64, #[case] want: f64) {
    assert_eq!(retry_after(room_in_s, 0), Duration::from_secs_f64(want));
}

proptest! {
    #[test]
    fn an_idle_cluster_lets_everybody_in(own_s in 0.0..1e6_f64, step in 0.0..1e3_f64) {
        let idle = Forecast { own_s, step_s: step, step_alone_s: step, ..Forecast::default() };
        prop_assert_eq!(decide(&idle, &targets()), Ok(()));
    }

    #[test]
    fn who_waits_less_is_let_in_rather(wait_s in 0.0..10.0_f64, own_s in 0.0..10.0_f64, less in 0.0..1.0_f64) {
        let later = Forecast { wait_s, own_s, ..Forecast::default() };
        let sooner = Forecast { wait_s: wait_s * less, ..later };
        prop_assert!(decide(&later, &targets()).is_err() || decide(&sooner, &targets()).is_ok());
    }
}
