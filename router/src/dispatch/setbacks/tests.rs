use words::Incarnation;

use super::*;

fn loss(worker: &str, incarnation: u64, code: ErrorCode) -> Loss {
    Loss {
        life: Life { worker: worker.into(), incarnation: Incarnation(incarnation) },
        taken: true,
        error: DispatchError::new(code, "no"),
    }
}

fn lost(worker: &str, incarnation: u64) -> Loss {
    loss(worker, incarnation, ErrorCode::Unavailable)
}

fn excluded(setbacks: &Setbacks, now: Instant) -> Vec<String> {
    setbacks.excluded(now).iter().map(ToString::to_string).collect()
}

#[test]
fn a_lost_life_is_avoided_for_a_time_and_a_full_one_until_the_next_pause() {
    let (mut setbacks, start) = (Setbacks::none(), Instant::now());
    setbacks.add(lost("dead", 1), start).expect("room for more");
    setbacks.add(loss("full", 1, ErrorCode::Busy), start).expect("room for more");
    assert_eq!(excluded(&setbacks, start), ["dead/1", "full/1"]);
    setbacks.next_pause();
    assert_eq!(excluded(&setbacks, start), ["dead/1"]);
    assert!(excluded(&setbacks, start + AVOID_MIN).is_empty());
}

#[test]
fn the_same_life_is_avoided_for_longer_each_time_and_never_for_ever() {
    let (mut setbacks, mut now) = (Setbacks::none(), Instant::now());
    for avoided in [1, 2, 4, 8, 16, 20, 20].map(|times| times * AVOID_MIN) {
        setbacks.add(lost("bad", 1), now).expect("one worker counts once");
        assert_eq!(excluded(&setbacks, now + avoided - Duration::from_millis(1)), ["bad/1"]);
        now += avoided;
        assert!(excluded(&setbacks, now).is_empty(), "after {avoided:?}");
    }
    now += AVOID_MAX;
    setbacks.add(lost("bad", 1), now).expect("one worker counts once");
    assert!(excluded(&setbacks, now + AVOID_MIN).is_empty(), "it was well for long enough");
}

#[test]
fn a_worker_that_comes_and_goes_never_ends_a_request() {
    let (mut setbacks, now) = (Setbacks::none(), Instant::now());
    for life in 0..1000 {
        setbacks.add(lost("flapping", life), now).expect("a wait, not a failure");
        let next = format!("flapping/{}", life + 1);
        assert!(!excluded(&setbacks, now).contains(&next), "the next life has done nothing");
    }
}

#[test]
fn a_request_that_breaks_worker_after_worker_is_stopped() {
    let (mut setbacks, now) = (Setbacks::none(), Instant::now());
    for worker in 1..BROKEN_MAX {
        setbacks.add(lost(&format!("w{worker}"), 1), now).expect("room for more");
    }
    setbacks.clone().add(lost("w1", 2), now).expect("known to be broken");
    let unreached = Loss { taken: false, ..lost("other", 1) };
    setbacks.clone().add(unreached, now).expect("it did not break under the request");
    setbacks.clone().add(lost("other", 1), now).expect_err("one too many");
    setbacks.forgive();
    setbacks.add(lost("other", 1), now).expect("there was a token in between");
}

#[test]
fn a_fault_is_tried_elsewhere_a_few_times_and_then_told() {
    let (mut setbacks, now) = (Setbacks::none(), Instant::now());
    for worker in 1..FAULTS_MAX {
        let fault = loss(&format!("w{worker}"), 1, ErrorCode::Internal);
        setbacks.add(fault, now).expect("another worker may do better");
    }
    let told = setbacks.refusal().expect("something to tell").code;
    assert_eq!(told, ErrorCode::Internal);
    setbacks.add(loss("w0", 1, ErrorCode::Corrupt), now).expect_err("one too many");
}

#[test]
fn full_workers_do_not_use_up_the_tries() {
    let (mut setbacks, now) = (Setbacks::none(), Instant::now());
    for worker in 0..10 * BROKEN_MAX {
        let full = loss(&format!("w{worker}"), 1, ErrorCode::Busy);
        setbacks.add(full, now).expect("a wait, not a failure");
    }
}

#[test]
fn a_refusal_says_when_to_come_back() {
    let mut setbacks = Setbacks::none();
    assert!(setbacks.refusal().is_none());
    setbacks.add(loss("full", 1, ErrorCode::Busy), Instant::now()).expect("room for more");
    let told = |setbacks: &Setbacks| setbacks.refusal().expect("a refusal").retry_after;
    assert_eq!(told(&setbacks), Some(BUSY_RETRY), "nobody knows better");
    for (ms, sooner_ms) in [(700, 700), (5_000, 700), (300, 300)] {
        let mut full = loss("full", 1, ErrorCode::Busy);
        full.error.retry_after = Some(Duration::from_millis(ms));
        setbacks.add(full, Instant::now()).expect("room for more");
        assert_eq!(told(&setbacks), Some(Duration::from_millis(sooner_ms)));
    }
    let words = &setbacks.refusal().expect("a refusal").message;
    assert_eq!(words, "no; try again in 0.3 s");
}

#[test]
fn pauses_grow_and_stay_short() {
    let mut setbacks = Setbacks::none();
    assert!(setbacks.next_pause() <= PAUSE_MIN);
    assert!((0..20).all(|_| setbacks.next_pause() <= PAUSE_MAX));
    assert!(setbacks.next_pause() >= PAUSE_MAX / 2);
}

#[test]
fn what_two_workers_cannot_compute_is_not_asked_of_a_third() {
    let (mut setbacks, now) = (Setbacks::none(), Instant::now());
    let miscomputed = |worker| loss(worker, 1, ErrorCode::Miscomputed);
    setbacks.add(miscomputed("one"), now).expect("it may be the worker's");
    setbacks.add(lost("dead", 1), now).expect("another matter");
    setbacks.forgive();
    setbacks.add(miscomputed("two"), now).expect_err("it is the prompt's");
}
