//! What the network is in the middle of.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::io::ReadBuf;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::HostId;
use super::link::Link;
use crate::checks::coverage::Coverage;

/// Bytes under way or unread, from which on a writer waits: a socket's buffers.
const WINDOW_BYTES: usize = 64 << 10;
/// The largest segment, as large as offloading network cards make them.
const SEGMENT_BYTES: usize = 16 << 10;
/// How long after a link was mended the first lost segment is sent again.
const AFTER_MEND: Duration = Duration::from_millis(400);

/// One end of a connection: which, and which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    connection: u64,
    side: usize,
}

/// The network.
pub(super) struct State {
    now: Duration,
    rng: ChaCha8Rng,
    ports: BTreeMap<HostId, Port>,
    dark: BTreeMap<HostId, bool>,
    links: BTreeMap<(HostId, HostId), Link>,
    connections: BTreeMap<u64, [End; 2]>,
    segments: BTreeMap<u64, Segment>,
    /// By when they arrive.
    flights: BTreeMap<(Duration, u64), ()>,
    serial: u64,
    pub(super) digest: u64,
    coverage: Coverage,
}

/// A port that is open.
#[derive(Default)]
struct Port {
    waiting: VecDeque<(EndId, HostId)>,
    waker: Option<Waker>,
}

struct End {
    host: HostId,
    opened: Opened,
    /// What has arrived and wasn't read.
    buffer: VecDeque<Bytes>,
    /// Bytes sent to this end that wasn't read by it.
    outstanding: usize,
    /// The other end will send no more.
    finished: bool,
    reset: bool,
    /// Nobody holds it any more.
    closed: bool,
    /// It has said that it will send no more.
    said_finished: bool,
    /// When the latest segment to it arrives: they keep their order.
    arrival: Duration,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opened {
    Pending,
    Yes,
    Refused,
}

/// Something on its way to an end.
struct Segment {
    to: EndId,
    what: What,
}

enum What {
    Open,
    Opened,
    Data(Bytes),
    Finish,
    Reset,
}

// === impl State ===

impl State {
    pub(super) fn new(seed: u64, coverage: Coverage) -> Self {
        Self {
            now: Duration::ZERO,
            rng: ChaCha8Rng::seed_from_u64(seed),
            ports: BTreeMap::new(),
            dark: BTreeMap::new(),
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            segments: BTreeMap::new(),
            flights: BTreeMap::new(),
            serial: 0,
            digest: seed,
            coverage,
        }
    }

    pub(super) fn link(&mut self, from: HostId, to: HostId) -> &mut Link {
        self.links.entry((from, to)).or_default()
    }

    pub(super) fn mend(&mut self, from: HostId, to: HostId) {
        let link = self.link(from, to);
        link.cut = false;
        let held = std::mem::take(&mut link.held);
        let again = self.now + AFTER_MEND.mul_f64(self.rng.random::<f64>());
        for segment in held {
            self.fly(segment, again);
        }
    }

    pub(super) fn set_powered(&mut self, host: HostId, powered: bool) {
        self.dark.insert(host, !powered);
    }

    pub(super) fn listen(&mut self, host: HostId) {
        self.ports.insert(host, Port::default());
    }

    /// Closes a port; whoever waits at it is refused.
    pub(super) fn close_port(&mut self, host: HostId) -> Vec<Waker> {
        let Some(port) = self.ports.remove(&host) else { return Vec::new() };
        for (end, _) in port.waiting {
            self.close(end);
        }
        port.waker.into_iter().collect()
    }

    pub(super) fn poll_accept(
        &mut self,
        host: HostId,
        cx: &mut Context<'_>,
    ) -> Poll<(EndId, HostId)> {
        let Some(port) = self.ports.get_mut(&host) else { return Poll::Pending };
        if let Some(accepted) = port.waiting.pop_front() {
            return Poll::Ready(accepted);
        }
        port.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn connect(&mut self, from: HostId, to: HostId) -> EndId {
        self.serial += 1;
        let connection = self.serial;
        self.connections.insert(connection, [End::new(from), End::new(to)]);
        self.send(EndId { connection, side: 1 }, What::Open);
        EndId { connection, side: 0 }
    }

    pub(super) fn poll_opened(&mut self, id: EndId, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let end = self.end(id);
        match end.opened {
            Opened::Yes => Poll::Ready(Ok(())),
            Opened::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Opened::Pending => {
                end.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reads; with the other end's writer, if it can go on.
    pub(super) fn poll_read(
        &mut self,
        id: EndId,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> (Poll<io::Result<()>>, Option<Waker>) {
        let end = self.end(id);
        let mut read = 0;
        while let Some(bytes) = end.buffer.front_mut().filter(|_| buf.remaining() > 0) {
            let count = bytes.len().min(buf.remaining());
            buf.put_slice(&bytes[..count]);
            bytes.advance(count);
            read += count;
            if bytes.is_empty() {
                end.buffer.pop_front();
            }
        }
        if read > 0 {
            end.outstanding -= read;
            return (Poll::Ready(Ok(())), self.end(id.other()).writer.take());
        }
        if end.reset {
            return (Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())), None);
        }
        if end.finished || buf.remaining() == 0 {
            return (Poll::Ready(Ok(())), None);
        }
        end.reader = Some(cx.waker().clone());
        (Poll::Pending, None)
    }

    pub(super) fn poll_write(
        &mut self,
        id: EndId,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.end(id).reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.end(id).said_finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = WINDOW_BYTES.saturating_sub(self.end(id.other()).outstanding);
        if room == 0 {
            self.end(id).writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = bytes.len().min(room).min(SEGMENT_BYTES);
        self.end(id.other()).outstanding += count;
        let (from, to) = (self.end(id).host, self.end(id.other()).host);
        let mut data = BytesMut::from(&bytes[..count]);
        let quality = self.link(from, to).quality;
        if quality.damage(&mut data, &mut self.rng) {
            self.coverage.reached("segment flipped");
        }
        self.send(id.other(), What::Data(data.freeze()));
        Poll::Ready(Ok(count))
    }

    pub(super) fn finish(&mut self, id: EndId) {
        if !std::mem::replace(&mut self.end(id).said_finished, true) {
            self.send(id.other(), What::Finish);
        }
    }

    /// Closes an end: politely if all was read that came, else with a reset.
    pub(super) fn close(&mut self, id: EndId) {
        let end = self.end(id);
        end.closed = true;
        let (unread, host) = (!end.buffer.is_empty(), end.host);
        end.buffer.clear();
        if self.is_dark(host) {
            return;
        }
        if unread { self.send(id.other(), What::Reset) } else { self.finish(id) }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.flights.keys().next().map(|(at, _)| *at)
    }

    /// Hands over what is due; with those who wait for it.
    pub(super) fn deliver(&mut self, now: Duration) -> Vec<Waker> {
        self.now = now;
        let mut wakers = Vec::new();
        while let Some((&(at, serial), ())) =
            self.flights.first_key_value().filter(|it| it.0.0 <= now)
        {
            self.flights.remove(&(at, serial));
            let Some(segment) = self.segments.remove(&serial) else { continue };
            if !self.is_dark(self.connections[&segment.to.connection][segment.to.side].host) {
                self.trace(&segment);
                self.arrive(segment, &mut wakers);
            }
        }
        wakers
    }

    fn arrive(&mut self, Segment { to, what }: Segment, wakers: &mut Vec<Waker>) {
        if matches!(what, What::Open) {
            return self.arrive_at_port(to, wakers);
        }
        let end = self.end(to);
        if end.closed {
            // Nobody is there; a host that was switched off doesn't even know the connection.
            if matches!(what, What::Data(_)) {
                self.send(to.other(), What::Reset);
            }
            return;
        }
        match what {
            What::Open | What::Opened => end.opened = Opened::Yes,
            What::Data(bytes) => end.buffer.push_back(bytes),
            What::Finish => end.finished = true,
            What::Reset => {
                end.reset = true;
                let is_refused = end.opened == Opened::Pending;
                if is_refused {
                    end.opened = Opened::Refused;
                }
                wakers.extend(end.writer.take());
                let what = if is_refused { "connection refused" } else { "connection reset" };
                wakers.extend(end.reader.take());
                return self.coverage.reached(what);
            }
        }
        wakers.extend(end.reader.take());
    }

    fn arrive_at_port(&mut self, to: EndId, wakers: &mut Vec<Waker>) {
        let (host, caller) = (self.end(to).host, self.end(to.other()).host);
        let Some(port) = self.ports.get_mut(&host) else {
            self.end(to).closed = true;
            return self.send(to.other(), What::Reset);
        };
        port.waiting.push_back((to, caller));
        wakers.extend(port.waker.take());
        self.end(to).opened = Opened::Yes;
        self.send(to.other(), What::Opened);
    }

    /// Sends something on its way, unless the way is cut.
    fn send(&mut self, to: EndId, what: What) {
        let (from, at) = (self.end(to.other()).host, self.end(to).host);
        self.serial += 1;
        let serial = self.serial;
        self.segments.insert(serial, Segment { to, what });
        let link = self.links.entry((from, at)).or_default();
        if link.cut {
            link.held.push(serial);
            return;
        }
        let (delay, losses) = link.quality.delay(&mut self.rng);
        self.coverage.add("segment lost", losses);
        self.fly(serial, self.now + delay);
    }

    /// Lets a segment arrive, not before those that were sent earlier.
    fn fly(&mut self, serial: u64, arrival: Duration) {
        let Some(to) = self.segments.get(&serial).map(|segment| segment.to) else { return };
        let end = self.end(to);
        end.arrival = end.arrival.max(arrival);
        let arrival = end.arrival;
        self.flights.insert((arrival, serial), ());
    }

    fn trace(&mut self, Segment { to, what }: &Segment) {
        let EndId { connection, side } = to;
        let (kind, bytes): (u8, &[u8]) = match what {
            What::Open => (0, &[]),
            What::Opened => (1, &[]),
            What::Data(bytes) => (2, bytes),
            What::Finish => (3, &[]),
            What::Reset => (4, &[]),
        };
        let head = format!("{} {connection} {side} {kind}", self.now.as_micros());
        let digest = xxh3_64_with_seed(head.as_bytes(), self.digest);
        self.digest = xxh3_64_with_seed(bytes, digest);
        tracing::trace!(connection, side, kind, bytes = bytes.len(), digest = self.digest);
    }

    fn is_dark(&self, host: HostId) -> bool {
        self.dark.get(&host).copied().unwrap_or(false)
    }

    fn end(&mut self, id: EndId) -> &mut End {
        let ends = self.connections.get_mut(&id.connection).expect("a connection that was made");
        &mut ends[id.side]
    }
}

// === impl EndId ===

impl EndId {
    fn other(self) -> Self {
        Self { side: 1 - self.side, ..self }
    }
}

// === impl End ===

impl End {
    fn new(host: HostId) -> Self {
        Self {
            host,
            opened: Opened::Pending,
            buffer: VecDeque::new(),
            outstanding: 0,
            finished: false,
            reset: false,
            closed: false,
            said_finished: false,
            arrival: Duration::ZERO,
            reader: None,
            writer: None,
        }
    }
}
