//! A TCP hop between two of a cluster, or between a client and a router, with weather on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes moved at once: small enough for a change of weather to take hold soon.
const CHUNK_BYTES: usize = 16 << 10;
/// Where connections go out: to a gateway these are different clients.
const SOURCES: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 11),
    Ipv4Addr::new(127, 0, 0, 12),
    Ipv4Addr::new(127, 0, 0, 13),
    Ipv4Addr::new(127, 0, 0, 14),
];

/// Forwards connections to one address. Ends, with all of them, when dropped.
#[derive(Debug)]
pub struct Wire {
    weather: watch::Sender<Weather>,
    cuts: watch::Sender<Cuts>,
    flips: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Weather {
    /// They pass.
    #[default]
    Fair,
    /// They are late.
    Late(Duration),
    /// They wait for better weather, in both directions.
    Stalled,
    /// Answers do; questions pass.
    Mute,
    /// One bit in about so many bytes is flipped.
    Flipping(u32),
}

/// How often all connections were cut, and how.
#[derive(Clone, Copy, Debug, Default)]
struct Cuts {
    count: u64,
    is_reset: bool,
}

/// One direction of a connection.
struct Lane {
    weather: watch::Receiver<Weather>,
    is_answer: bool,
    rng: ChaCha8Rng,
    flips: Arc<AtomicU64>,
}

// === impl Wire ===

impl Wire {
    /// Listens at `near` and forwards to `far`; bits are flipped by `seed`.
    ///
    /// # Panics
    /// If the port is taken.
    pub async fn start(near: SocketAddr, far: SocketAddr, seed: u64) -> Self {
        let listener = TcpListener::bind(near).await.expect("a free port for a wire");
        let (weather, _) = watch::channel(Weather::Fair);
        let (cuts, _) = watch::channel(Cuts::default());
        let flips = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let (skies, ends, flipped) = (weather.clone(), cuts.clone(), flips.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let lane = |is_answer, rng| Lane {
                    weather: skies.subscribe(),
                    is_answer,
                    rng,
                    flips: flipped.clone(),
                };
                let lanes = [
                    lane(false, ChaCha8Rng::from_rng(&mut rng)),
                    lane(true, ChaCha8Rng::from_rng(&mut rng)),
                ];
                let source = SOURCES[rng.random_range(0..SOURCES.len())];
                connections.spawn(carry(stream, (source, far), lanes, ends.subscribe()));
            }
        });
        Self { weather, cuts, flips, _tasks: tasks }
    }

    /// Changes the weather, for connections there are and those to come.
    pub fn weather(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Ends all connections, by a farewell or by a reset.
    pub fn cut(&self, is_reset: bool) {
        self.cuts.send_modify(|cuts| *cuts = Cuts { count: cuts.count + 1, is_reset });
    }

    /// Bits flipped since the last time.
    #[must_use]
    pub fn take_flips(&self) -> u64 {
        self.flips.swap(0, Ordering::Relaxed)
    }
}

async fn carry(
    mut near: TcpStream,
    (source, far): (Ipv4Addr, SocketAddr),
    lanes: [Lane; 2],
    mut cuts: watch::Receiver<Cuts>,
) {
    let Ok(mut far) = dial(far, source).await else { return };
    for stream in [&near, &far] {
        let _ = stream.set_nodelay(true);
    }
    let [there, back] = lanes;
    {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        let both = async {
            // One that breaks ends the other; one that ends lets the other go on.
            tokio::try_join!(there.pump(near_in, far_out), back.pump(far_in, near_out))
        };
        tokio::select! {
            _ = both => return,
            _ = cuts.changed() => {}
        }
    }
    if cuts.borrow().is_reset {
        let _ = near.set_zero_linger();
        let _ = far.set_zero_linger();
    }
}

/// Connects to `to` from an address of this machine.
async fn dial(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

// === impl Lane ===

impl Lane {
    async fn pump(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = from.read(&mut chunk).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            self.wait(&mut chunk[..count]).await;
            to.write_all(&chunk[..count]).await?;
        }
    }

    /// Lets the weather have its way with what is on its way.
    async fn wait(&mut self, bytes: &mut [u8]) {
        let is_answer = self.is_answer;
        let passes = |weather: &Weather| match weather {
            Weather::Stalled => false,
            Weather::Mute => !is_answer,
            Weather::Fair | Weather::Late(_) | Weather::Flipping(_) => true,
        };
        // A wire that is gone takes its connections along.
        let Ok(weather) = self.weather.wait_for(passes).await.map(|weather| *weather) else {
            return;
        };
        match weather {
            Weather::Late(time) => tokio::time::sleep(time).await,
            Weather::Flipping(every) => self.flip(bytes, every),
            Weather::Fair | Weather::Stalled | Weather::Mute => {}
        }
    }

    fn flip(&mut self, bytes: &mut [u8], every: u32) {
        let chance = (bytes.len() as f64 / f64::from(every)).min(1.0);
        if self.rng.random_bool(chance) {
            let at = self.rng.random_range(0..bytes.len());
            bytes[at] ^= 1 << self.rng.random_range(0..8);
            self.flips.fetch_add(1, Ordering::Relaxed);
        }
    }
}
