//! Bytes that clients have sent and that are not tokens yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use words::ClientId;

use crate::RequestError;

/// When to come back: about what the tokenizer takes for the largest of bodies.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Counts bytes in flight, of all clients and of each, from the first that arrives until the text
/// has become tokens. A clone counts into the same.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    total_max: usize,
    per_client_max: usize,
    held: Arc<Mutex<Held>>,
}

/// Bytes of one request, given back when dropped.
#[derive(Debug)]
pub(crate) struct Bytes {
    client: ClientId,
    count: usize,
    in_flight: InFlight,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    per_client: HashMap<ClientId, usize>,
}

// === impl InFlight ===

impl InFlight {
    /// Nothing in flight yet.
    #[must_use]
    pub(crate) fn new(total_max: usize, per_client_max: usize) -> Self {
        Self { total_max, per_client_max, held: Arc::default() }
    }

    /// A request of `client` that has sent nothing yet.
    #[must_use]
    pub(crate) fn begin(&self, client: ClientId) -> Bytes {
        Bytes { client, count: 0, in_flight: self.clone() }
    }

    /// Bytes held.
    #[must_use]
    pub(crate) fn total(&self) -> usize {
        self.held.lock().total
    }
}

// === impl Bytes ===

impl Bytes {
    /// Counts `more` bytes.
    ///
    /// # Errors
    /// [`RequestError::Busy`] if that is more than may be in flight, of this client or of all;
    /// nothing more is counted then.
    pub(crate) fn add(&mut self, more: usize) -> Result<(), RequestError> {
        let InFlight { total_max, per_client_max, held } = &self.in_flight;
        let mut held = held.lock();
        let own = held.per_client.get(&self.client).copied().unwrap_or(0);
        if own + more > *per_client_max {
            return Err(full(*per_client_max, "from this client"));
        }
        if held.total + more > *total_max {
            return Err(full(*total_max, "from all clients"));
        }
        held.total += more;
        held.per_client.insert(self.client, own + more);
        self.count += more;
        Ok(())
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        if self.count == 0 {
            return;
        }
        let mut held = self.in_flight.held.lock();
        held.total -= self.count;
        if let Some(own) = held.per_client.get_mut(&self.client) {
            *own -= self.count;
            if *own == 0 {
                held.per_client.remove(&self.client);
            }
        }
    }
}

fn full(most: usize, whose: &str) -> RequestError {
    let message =
        format!("{most} bytes of requests {whose} are being read already; send fewer at a time");
    RequestError::Busy { message, retry_after: RETRY_AFTER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_bounded_for_each_and_for_all_and_come_back() {
        let in_flight = InFlight::new(100, 60);
        let (mut a, mut b) = (in_flight.begin(ClientId(1)), in_flight.begin(ClientId(2)));
        a.add(50).unwrap();
        let own = a.add(20).unwrap_err().to_string();
        assert!(own.contains("60 bytes of requests from this client"), "{own}");
        b.add(45).unwrap();
        let all = b.add(10).unwrap_err().to_string();
        assert!(all.contains("100 bytes of requests from all"), "{all}");
        drop(a);
        b.add(10).unwrap();
        drop(b);
        assert_eq!(in_flight.total(), 0);
        assert!(in_flight.held.lock().per_client.is_empty(), "no client is remembered");
    }
}
