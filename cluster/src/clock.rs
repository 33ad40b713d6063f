//! What time it is for a node.

use std::time::Instant;

/// This instant on the runtime's clock, which is the system's unless a simulation holds it.
///
/// For deadlines and ages on a request's path, so that all of them can run in virtual time. Outside
/// of a runtime it is the system's clock, too.
#[must_use]
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_a_runtime_it_is_the_runtimes_time() {
        let before = now();
        assert_eq!(now(), before, "a clock that is held stands still");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(now() - before, Duration::from_secs(3600));
        let deadline = before + Duration::from_secs(3601);
        tokio::time::sleep_until(deadline.into()).await;
        assert_eq!(now(), deadline, "its instants are those that timers wait for");
    }

    #[test]
    fn outside_of_one_it_is_the_systems() {
        let (before, now, after) = (Instant::now(), now(), Instant::now());
        assert!(before <= now && now <= after);
    }
}
