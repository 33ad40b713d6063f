use proptest::prelude::*;
use rstest::rstest;

use super::*;

fn admission(requests_max: u32, tokens_max: u64) -> Admission {
    Admission::new(AdmissionLimits { requests_max, tokens_max })
}

/// Each case: limits, the sizes that ask in turn, and who gets in.
#[rstest]
#[case::requests(2, 1_000, &[10, 10, 10], "++-")]
#[case::tokens(9, 100, &[60, 50, 40, 1], "+-+-")]
#[case::a_giant_waits_for_an_empty_router(9, 100, &[10, 101, 20], "+-+")]
#[case::a_giant_gets_in_alone(9, 100, &[101, 1], "+-")]
#[case::nothing(0, 100, &[1], "-")]
fn limits_hold(
    #[case] requests_max: u32,
    #[case] tokens_max: u64,
    #[case] sizes: &[u64],
    #[case] want: &str,
) {
    let admission = admission(requests_max, tokens_max);
    let now = Instant::now();
    let answers: Vec<_> = sizes.iter().map(|&tokens| admission.admit(tokens, now)).collect();
    let got: String = answers.iter().map(|answer| if answer.is_ok() { '+' } else { '-' }).collect();
    assert_eq!(got, want);
}

#[test]
fn a_dropped_permit_makes_room() {
    let (admission, now) = (admission(1, 100), Instant::now());
    let permit = admission.admit(10, now).expect("room");
    assert_eq!(admission.in_flight(), InFlight { requests: 1, tokens: 10 });
    assert!(admission.admit(10, now).is_err());
    drop(permit);
    assert_eq!(admission.in_flight(), InFlight::default());
    assert!(admission.admit(10, now).is_ok());
}

#[test]
fn the_wait_is_what_the_missing_room_takes_at_the_rate_seen() {
    let admission = admission(1, 1_000);
    let start = Instant::now();
    let mut permit = admission.admit(100, start).ok();
    assert!(permit.is_some());
    // Four requests a second, for long enough to be believed.
    for quarter in 1..=120 {
        permit = None;
        permit = permit.or(admission.admit(100, start + Duration::from_millis(250) * quarter).ok());
    }
    let busy = admission.admit(100, start + Duration::from_millis(250) * 120).unwrap_err();
    let seconds = busy.retry_after.as_secs_f64();
    assert!((0.2..0.3).contains(&seconds), "{seconds}");
    drop(permit);
}

#[test]
fn before_anything_has_ended_the_wait_is_the_longest() {
    let (admission, now) = (admission(1, 100), Instant::now());
    let _held = admission.admit(1, now).expect("room");
    assert_eq!(admission.admit(1, now).unwrap_err().retry_after, Duration::from_secs(60));
}

proptest! {
    #[test]
    fn counts_follow_the_permits(steps in prop::collection::vec((any::<bool>(), 0_u64..50), 0..80)) {
        let admission = admission(5, 120);
        let mut permits = Vec::new();
        for (index, (enter, tokens)) in steps.into_iter().enumerate() {
            let now = Instant::now() + Duration::from_millis(index as u64);
            if enter {
                permits.extend(admission.admit(tokens, now));
            } else {
                permits.pop();
            }
            let tokens: u64 = permits.iter().map(Permit::tokens).sum();
            prop_assert_eq!(admission.in_flight(), InFlight { requests: permits.len() as u32, tokens });
            prop_assert!(permits.len() <= 5 && (tokens <= 120 || permits.len() == 1));
        }
    }
}
