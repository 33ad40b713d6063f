use proptest::prelude::*;
use rstest::rstest;

use super::*;

const TARGETS: SloTargets =
    SloTargets { ttft: Duration::from_millis(200), tpot: Duration::from_millis(10) };
const GOOD: Outcome = Outcome::Answered { ttft_met: true, tpot_met: true };

/// Each case: first and last token in ms after arrival, tokens, and what was met.
#[rstest]
#[case::both(200, 300, 11, true, true)]
#[case::late_first_token(201, 300, 11, false, true)]
#[case::slow_tokens(100, 201, 11, true, false)]
#[case::one_token_has_no_gap(100, 100, 1, true, true)]
#[case::no_token_has_no_gap(100, 5_000, 0, true, true)]
fn targets_are_inclusive(
    #[case] first_ms: u64,
    #[case] last_ms: u64,
    #[case] output_tokens: u32,
    #[case] ttft_met: bool,
    #[case] tpot_met: bool,
) {
    let received = Instant::now();
    let at = |ms| received + Duration::from_millis(ms);
    let timing =
        Timing { received, first_token: at(first_ms), last_token: at(last_ms), output_tokens };
    assert_eq!(TARGETS.judge(&timing), Outcome::Answered { ttft_met, tpot_met });
}

#[test]
fn goodput_counts_each_kind_of_miss() {
    let start = Instant::now();
    let mut window = SloWindow::new(Duration::from_secs(60), start);
    let late = Outcome::Answered { ttft_met: false, tpot_met: true };
    let slow = Outcome::Answered { ttft_met: true, tpot_met: false };
    for outcome in [GOOD, late, slow, Outcome::Failed] {
        window.record(outcome, start + Duration::from_secs(1));
    }
    let goodput = window.goodput(start + Duration::from_secs(2));
    let counts = (goodput.requests, goodput.good, goodput.ttft_missed, goodput.tpot_missed);
    assert_eq!((counts, goodput.failed), ((4, 1, 1, 1), 1));
    assert_eq!((goodput.requests_per_s, goodput.good_per_s), (2.0, 0.5));
    assert_eq!(goodput.attainment(), Some(0.25));
}

#[test]
fn an_empty_window_has_no_attainment_and_no_rate() {
    let start = Instant::now();
    let goodput = SloWindow::new(Duration::from_secs(60), start).goodput(start);
    assert_eq!((goodput, goodput.attainment()), (Goodput::default(), None));
}

#[test]
fn what_is_older_than_the_window_is_forgotten() {
    let start = Instant::now();
    let mut window = SloWindow::new(Duration::from_secs(60), start);
    let after = |seconds| start + Duration::from_secs(seconds);
    window.record(GOOD, after(10));
    assert_eq!(window.goodput(after(69)).requests, 1);
    assert_eq!(window.goodput(after(71)).requests, 0);
}

proptest! {
    #[test]
    fn the_window_agrees_with_counting_to_one_bucket(
        gaps_ms in prop::collection::vec(0_u64..4_000, 1..200),
    ) {
        let start = Instant::now();
        let mut window = SloWindow::new(Duration::from_secs(60), start);
        let mut times_ms = Vec::new();
        let mut at_ms = 0;
        for gap_ms in gaps_ms {
            at_ms += gap_ms;
            times_ms.push(at_ms);
            let now = start + Duration::from_millis(at_ms);
            window.record(GOOD, now);
            let since = |age_ms: u64| {
                times_ms.iter().filter(|time| **time + age_ms > at_ms).count() as u64
            };
            let got = window.goodput(now).requests;
            prop_assert!((since(59_000)..=since(60_001)).contains(&got), "{got} at {at_ms} ms");
        }
        prop_assert!(window.buckets.len() <= BUCKETS as usize);
    }
}
