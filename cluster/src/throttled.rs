//! Log lines of what strangers can make happen as often as they like.

use std::time::Duration;

use tokio::time::Instant;

/// Between two lines of a kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Counts what happened since it was last logged.
#[derive(Debug, Default)]
pub(crate) struct Throttled {
    count: u64,
    logged: Option<Instant>,
}

// === impl Throttled ===

impl Throttled {
    /// Counts one; when it is time for a log line, how many there were since the last.
    pub(crate) fn note(&mut self) -> Option<u64> {
        self.count += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_trouble_is_logged_at_once_and_then_with_its_count() {
        let mut throttled = Throttled::default();
        assert_eq!(throttled.note(), Some(1));
        assert_eq!((throttled.note(), throttled.note()), (None, None));
        tokio::time::advance(LOG_INTERVAL).await;
        assert_eq!(throttled.note(), Some(3));
    }
}
