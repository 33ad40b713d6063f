//! What a request has run into so far, and so where it is not sent next.

use std::time::Duration;

use cluster::ErrorCode;
use scheduler::WorkerId;

use super::DispatchError;

/// The workers that one request may lose before it gives up: more than any rolling restart takes.
const LOST_MAX: usize = 8;
/// The first pause before a full cluster is asked again; each one is twice as long as the last.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// When a refused client should come back, where the worker that refused gave no time: about what
/// a full queue of short prompts takes.
const BUSY_RETRY: Duration = Duration::from_secs(1);

/// The workers that failed a request, and those that had no room for it.
#[derive(Clone, Debug)]
pub(super) struct Setbacks {
    lost: Vec<WorkerId>,
    busy: Vec<WorkerId>,
    refusal: Option<DispatchError>,
    pause: Duration,
}

// === impl Setbacks ===

impl Setbacks {
    pub(super) fn none() -> Self {
        Self { lost: Vec::new(), busy: Vec::new(), refusal: None, pause: PAUSE_MIN }
    }

    /// Notes how a worker failed.
    ///
    /// # Errors
    /// The failure itself, when it was one too many.
    pub(super) fn add(
        &mut self,
        worker: WorkerId,
        error: DispatchError,
    ) -> Result<(), DispatchError> {
        if error.code == ErrorCode::Busy {
            self.busy.push(worker);
            self.refusal = Some(DispatchError { retry_after: Some(BUSY_RETRY), ..error });
            return Ok(());
        }
        self.lost.push(worker);
        if self.lost.len() >= LOST_MAX { Err(error) } else { Ok(()) }
    }

    /// Where not to go next.
    pub(super) fn excluded(&self) -> Vec<WorkerId> {
        self.lost.iter().chain(&self.busy).cloned().collect()
    }

    /// A full worker's refusal, if there was one.
    pub(super) fn refusal(&self) -> Option<&DispatchError> {
        self.refusal.as_ref()
    }

    /// How long to wait before workers that were full are worth another try.
    pub(super) fn next_pause(&mut self) -> Duration {
        self.busy.clear();
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: ErrorCode) -> DispatchError {
        DispatchError { code, message: "no".into(), retry_after: None }
    }

    #[test]
    fn a_full_worker_is_tried_again_after_a_pause_and_a_lost_one_never() {
        let mut setbacks = Setbacks::none();
        setbacks.add("full".into(), error(ErrorCode::Busy)).expect("room for more");
        setbacks.add("dead".into(), error(ErrorCode::Unavailable)).expect("room for more");
        assert_eq!(setbacks.excluded(), ["dead".into(), "full".into()]);
        assert_eq!(setbacks.next_pause(), PAUSE_MIN);
        assert_eq!(setbacks.excluded(), ["dead".into()]);
        assert_eq!(setbacks.next_pause(), PAUSE_MIN * 2);
        assert!((0..20).all(|_| setbacks.next_pause() <= PAUSE_MAX));
    }

    #[test]
    fn full_workers_do_not_use_up_the_tries() {
        let mut setbacks = Setbacks::none();
        for _ in 0..10 * LOST_MAX {
            setbacks.add("full".into(), error(ErrorCode::Busy)).expect("a wait, not a failure");
        }
        for _ in 1..LOST_MAX {
            setbacks.add("dead".into(), error(ErrorCode::Unavailable)).expect("room for more");
        }
        setbacks.add("dead".into(), error(ErrorCode::Unavailable)).expect_err("one too many");
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let mut setbacks = Setbacks::none();
        assert!(setbacks.refusal().is_none());
        setbacks.add("full".into(), error(ErrorCode::Busy)).expect("room for more");
        let refusal = setbacks.refusal().expect("a refusal");
        assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Busy, Some(BUSY_RETRY)));
    }
}
