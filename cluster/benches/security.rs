//! What it costs to be safe on a network: bytes over one connection, and a connection's beginning.
//!
//! `cargo bench -p cluster`. Loopback, both ends in this process, each on a thread of its own.

#![allow(missing_docs, reason = "criterion's macros")]

use std::hint::black_box;

use cluster::rpc::net::Connection;
use cluster::security::{Doorkeeper, Identity, NodeRole, Security, access};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use words::{Role, WorkerId};

const BYTES: usize = 256 << 20;
/// A frame of a hand-off.
const CHUNK: usize = 1 << 20;

fn node(role: NodeRole, id: &str) -> Security {
    let identity = Identity::new("bench", role, id);
    Security::with_secret(b"a secret for measuring by", identity).expect("a secret")
}

fn nodes() -> [(&'static str, Security, Security); 2] {
    [
        ("plain", Security::open(), Security::open()),
        ("tls", node(NodeRole::Prefill, "p"), node(NodeRole::Decode, "d")),
    ]
}

/// Both ends of a connection, once each knows the other.
async fn connected(
    caller: &Security,
    called: Doorkeeper,
) -> (Box<dyn Connection>, Box<dyn Connection>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("its address");
    let calling = async {
        let stream = TcpStream::connect(addr).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let mut stream = caller
            .meet(Box::new(stream), &WorkerId::from("d"), Role::Decode)
            .await
            .expect("the worker");
        stream.write_u8(1).await.expect("a byte");
        stream.flush().await.expect("a byte");
        stream
    };
    let answering = async {
        let (stream, _) = listener.accept().await.expect("a caller");
        let mut stream = called.meet(stream);
        assert_eq!(stream.read_u8().await.expect("a byte"), 1);
        Box::new(stream) as Box<dyn Connection>
    };
    tokio::join!(calling, answering)
}

async fn send(mut stream: Box<dyn Connection>) -> Box<dyn Connection> {
    let chunk = vec![7; CHUNK];
    for _ in 0..BYTES / CHUNK {
        stream.write_all(&chunk).await.expect("room");
    }
    stream.flush().await.expect("room");
    stream
}

async fn receive(mut stream: Box<dyn Connection>) -> Box<dyn Connection> {
    let mut chunk = vec![0; CHUNK];
    for _ in 0..BYTES / CHUNK {
        stream.read_exact(&mut chunk).await.expect("bytes");
    }
    stream
}

#[allow(clippy::disallowed_methods, reason = "both ends are waited for")]
fn bulk(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(BYTES as u64)).sample_size(10);
    for (name, caller, called) in nodes() {
        let mut ends = Some(runtime.block_on(connected(&caller, called.doorkeeper())));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (ours, theirs) = ends.take().expect("both ends");
                ends = Some(runtime.block_on(async {
                    let (sent, received) =
                        tokio::join!(tokio::spawn(send(ours)), tokio::spawn(receive(theirs)));
                    (sent.expect("the sender"), received.expect("the receiver"))
                }));
            });
        });
    }
}

fn handshake(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("connection");
    for (name, caller, called) in nodes() {
        group.bench_function(name, |bencher| {
            bencher.iter(|| drop(runtime.block_on(connected(&caller, called.doorkeeper()))));
        });
    }
}

fn table(criterion: &mut Criterion) {
    criterion.bench_function("who may call", |bencher| {
        bencher.iter(|| access::of(black_box("/baton.v1.Worker/Report")));
    });
}

criterion_group!(benches, bulk, handshake, table);
criterion_main!(benches);
