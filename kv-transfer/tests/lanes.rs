//! A stream over several connections, of which one breaks.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use kv_transfer::transport::{Faults, GrpcTransport, Target, Transports};
use kv_transfer::{Sender, SenderConfig};
use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use self::support::{BLOCK_TOKENS, LAYERS, PushOrder, Via, World, sender_config};

const LANES: usize = 3;
const TOKENS: u32 = 64 * BLOCK_TOKENS;

/// Carries connections to a server; the first few break off. All end with it.
struct Proxy {
    address: SocketAddr,
    cuts: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

// === impl Proxy ===

impl Proxy {
    /// - `bytes`: after which the first `cuts_max` connections break off.
    async fn start(server: &str, bytes: usize, cuts_max: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = server.trim_start_matches("http://").to_owned();
        let cuts = Arc::new(AtomicUsize::new(0));
        let counted = cuts.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut carrying = JoinSet::new();
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else { return };
                let bytes = if connection < cuts_max { bytes } else { usize::MAX };
                let carried = carry(client, server.clone(), bytes);
                let cuts = counted.clone();
                carrying.spawn(async move {
                    if carried.await {
                        cuts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        Self { address, cuts, _serving: serving }
    }

    fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Whether it was cut.
async fn carry(client: TcpStream, server: String, bytes_max: usize) -> bool {
    let server = TcpStream::connect(server).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = tokio::io::copy(&mut from_server, &mut to_client);
    let forth = async {
        let (mut buffer, mut left) = ([0; 1024], bytes_max);
        loop {
            match from_client.read(&mut buffer).await {
                Ok(count) if count > 0 && count <= left => {
                    left -= count;
                    if to_server.write_all(&buffer[..count]).await.is_err() {
                        return false;
                    }
                }
                Ok(count) => return count > 0,
                Err(_) => return false,
            }
        }
    };
    tokio::select! {
        _ = back => false,
        cut = forth => cut,
    }
}

fn connect(uri: &str) -> Channel {
    Endpoint::from_shared(uri.to_owned()).unwrap().tcp_nodelay(true).connect_lazy()
}

/// A world whose lane `broken` goes by a proxy that cuts its first connections.
async fn world_with_cuts(broken: usize, bytes: usize, cuts_max: usize) -> (World, Proxy) {
    let mut world = World::new(Via::Lanes, Faults::default());
    let proxy = Proxy::start(&world.target.uri, bytes, cuts_max).await;
    let uris =
        (0..LANES).map(|lane| if lane == broken { proxy.uri() } else { world.target.uri.clone() });
    let channels: Vec<Channel> = uris.map(|uri| connect(&uri)).collect();
    let dial = move |_: &Target, lane: usize| Ok(channels[lane].clone());
    let transport = GrpcTransport::with_dial(LANES, Arc::new(dial)).with_lane_bytes(1);
    world.transport = Arc::new(transport);
    let config = SenderConfig { stall: Duration::from_secs(20), ..sender_config() };
    world.sender = Sender::new(Transports::new(vec![world.transport.clone()]), config);
    (world, proxy)
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hand_off_survives_the_loss_of_one_of_its_connections(
    #[values(0, 1, 2)] broken: usize,
    #[values(600, 5_000, 20_000)] bytes: usize,
) {
    let (world, proxy) = world_with_cuts(broken, bytes, 2).await;
    let report = world.hand_over(TOKENS, 0, PushOrder::Chunks, 3).await;
    world.sender.drained().await;
    world.assert_idle();
    let (sent, received) = (world.sender.stats().counts(), world.receiver.stats().counts());
    assert_eq!(received.pages, u64::from(64 * LAYERS), "each page is written once");
    assert_eq!(sent.handoffs_verified, 1);
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    assert!(cuts >= 1, "nothing was cut");
    assert!(bytes < 5_000 || report.resent_pages > 0 || sent.streams_cut > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_hand_offs_survive_the_loss_of_a_connection_that_they_share() {
    let (world, proxy) = world_with_cuts(1, 100_000, 2).await;
    let hand_over =
        |salt: u32| world.hand_over(TOKENS / 8 + salt, 0, PushOrder::Layers, salt.into());
    join_all((0..24).map(hand_over)).await;
    world.sender.drained().await;
    world.assert_idle();
    assert_eq!(world.receiver.stats().counts().handoffs_verified, 24);
    assert!(proxy.cuts.load(Ordering::Relaxed) >= 1, "nothing was cut");
}
