//! Waiting for something to become true, with a deadline.

use std::future::Future;
use std::time::{Duration, Instant};

/// Pause between two looks: short against everything that is waited for.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Looks until `probe` gives a value, and returns it.
///
/// # Panics
/// If `patience` runs out; the message holds `what` and why the last look was not enough.
pub async fn wait_until<T, F, Fut>(what: &str, patience: Duration, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(why) if start.elapsed() > patience => {
                panic!("gave up waiting for {what} after {patience:?}: {why}")
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// A duration from the environment, for runs that are longer than usual.
///
/// # Panics
/// If the variable is set to something that isn't a number of seconds.
#[must_use]
pub fn seconds_from_env(name: &str, default_s: u64) -> Duration {
    let seconds = match std::env::var(name) {
        Ok(value) => value.parse().unwrap_or_else(|_| panic!("{name}={value:?}: want seconds")),
        Err(_) => default_s,
    };
    Duration::from_secs(seconds)
}
