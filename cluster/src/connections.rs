//! How many connections a node holds, and for how long those that say nothing.
//!
//! A connection costs a descriptor, and descriptors run out. A port that strangers reach therefore
//! has a limit in all and one per client; at the limit the connection that has been idle for longest
//! makes room, and only where none is idle a newcomer is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::throttled::Throttled;

mod activity;
mod calls;
mod guarded;
mod readers;

pub use activity::{Activity, Call};
pub use calls::{Caller, CountCalls, CountCallsService, Counted};
pub use guarded::Guarded;
pub use readers::Streams;

/// Idle connections closed when an accept fails for want of descriptors.
const ROOM_CONNECTIONS: usize = 8;

/// How many connections, and how long silent ones stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Open connections, over all ports that share this limit.
    pub open_max: usize,
    /// Of these, from one client address.
    pub per_client_max: usize,
    /// For a client to begin: its first bytes, as many as the shortest request has.
    pub greeting_timeout: Duration,
    /// For a connection without a request; `None`: as long as its peer answers pings.
    pub idle_timeout: Option<Duration>,
    /// For a peer to take something of what is ready for it; `None`: no limit but that of pings.
    pub reader_timeout: Option<Duration>,
}

/// The connections of one or several ports. A clone counts into the same.
#[derive(Clone, Debug)]
pub struct Connections {
    limits: ConnectionLimits,
    open: Arc<Mutex<Open>>,
    readers_cut: Counter,
}

/// A connection's place among the others, until dropped.
#[derive(Debug)]
pub struct Seat {
    number: u64,
    activity: Arc<Activity>,
    connections: Connections,
}

/// Whom a connection comes from, as far as the network knows: an IPv4 address, or an IPv6 network
/// of 64 bits, of which one client has all addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddress(pub IpAddr);

#[derive(Debug, Default)]
struct Open {
    seats: HashMap<u64, (ClientAddress, Arc<Activity>)>,
    per_client: HashMap<ClientAddress, usize>,
    next: u64,
    refused: Throttled,
    failed: Throttled,
    unread: Throttled,
}

// === impl ConnectionLimits ===

impl Default for ConnectionLimits {
    /// For ports within a cluster: peers keep idle connections for their next call, and their pings
    /// tell that they are there.
    fn default() -> Self {
        Self {
            open_max: 4096,
            per_client_max: 1024,
            greeting_timeout: Duration::from_secs(10),
            idle_timeout: None,
            reader_timeout: None,
        }
    }
}

// === impl ClientAddress ===

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = v6.to_bits() >> 64 << 64;
                Self(IpAddr::V6(network.into()))
            }
            v4 => Self(v4),
        }
    }
}

// === impl Connections ===

impl Connections {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self { limits, open: Arc::default(), readers_cut: Counter::default() }
    }

    /// The same, counting into `readers_cut` whom it cuts because nothing was read.
    #[must_use]
    pub fn counting(self, readers_cut: Counter) -> Self {
        Self { readers_cut, ..self }
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> &ConnectionLimits {
        &self.limits
    }

    /// Connections open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.lock().seats.len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A place for a connection that was accepted from `address`, if need be that of an idle one.
    /// `None` if all are at work: close it. Says so in the log, not more often than is readable.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Seat> {
        let client = ClientAddress::from(address);
        let mut open = self.open.lock();
        let own = open.per_client.get(&client).copied().unwrap_or(0);
        let has_room = (own < self.limits.per_client_max || open.close_idle(1, Some(client)) == 1)
            && (open.seats.len() < self.limits.open_max || open.close_idle(1, None) == 1);
        if !has_room {
            self.refuse(&mut open, client, own);
            return None;
        }
        let number = open.next;
        open.next += 1;
        let activity = Arc::new(Activity::new(client));
        open.seats.insert(number, (client, Arc::clone(&activity)));
        *open.per_client.entry(client).or_default() += 1;
        Some(Seat { number, activity, connections: self.clone() })
    }

    /// After an accept that failed, as it does when descriptors run out: closes idle connections.
    pub fn accept_failed(&self, error: &std::io::Error) {
        let mut open = self.open.lock();
        let closed = open.close_idle(ROOM_CONNECTIONS, None);
        if let Some(times) = open.failed.note() {
            warn!(%error, times, open = open.seats.len(), closed_idle = closed,
                  "connections can't be accepted; if descriptors run out, raise `ulimit -n`");
        }
    }

    /// Nothing of an answer to `client` was read for too long: it ends here.
    fn reader_cut(&self, client: ClientAddress) {
        self.readers_cut.inc();
        let Some(times) = self.open.lock().unread.note() else { return };
        let patience = self.limits.reader_timeout.unwrap_or_default();
        warn!(times, client = %client.0, ?patience, "a client reads nothing of its answer, which ends here");
    }

    fn refuse(&self, open: &mut Open, client: ClientAddress, own: usize) {
        let Some(times) = open.refused.note() else { return };
        let ConnectionLimits { open_max, per_client_max, .. } = &self.limits;
        warn!(
            times, client = %client.0, of_client = own, per_client_max, open = open.seats.len(), open_max,
            "connections are refused: all those open are at work; \
             raise connections_max, connections_per_client_max or `ulimit -n`, or add routers"
        );
    }
}

// === impl Open ===

impl Open {
    /// Closes up to `count` connections, those that have been idle for longest, of one client or of
    /// all; their places are free at once. Returns how many.
    fn close_idle(&mut self, count: usize, of: Option<ClientAddress>) -> usize {
        let idle = self.seats.iter().filter(|(_, (client, _))| of.is_none_or(|of| of == *client));
        let mut idle: Vec<(Instant, u64)> = idle
            .filter_map(|(&number, (_, activity))| Some((activity.idle_since()?, number)))
            .collect();
        if idle.len() > count {
            idle.select_nth_unstable(count);
            idle.truncate(count);
        }
        for (_, number) in &idle {
            if let Some(activity) = self.remove(*number) {
                activity.close();
            }
        }
        idle.len()
    }

    fn remove(&mut self, number: u64) -> Option<Arc<Activity>> {
        let (client, activity) = self.seats.remove(&number)?;
        if let Some(count) = self.per_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.per_client.remove(&client);
            }
        }
        Some(activity)
    }
}

// === impl Seat ===

impl Seat {
    /// What happens on the connection.
    #[must_use]
    pub fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// Cancelled when the connection has to make room.
    fn closed(&self) -> &CancellationToken {
        self.activity.closed()
    }

    fn limits(&self) -> &ConnectionLimits {
        &self.connections.limits
    }

    /// Runs the streams of the connection, where it has several.
    pub fn streams(&self) -> Streams {
        let patience = self.limits().reader_timeout;
        Streams::new(self.connections.clone(), self.activity.client(), patience)
    }

    /// The client takes nothing of what is written to it.
    fn reader_cut(&self) {
        self.connections.reader_cut(self.activity.client());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.open.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests;
