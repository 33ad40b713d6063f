//! How fast pages move, beside how fast memory does.
//!
//! `cargo bench -p kv-transfer`: each transport at several message sizes, one hand-off of 64 MiB; then
//! eight at once, and what they cost the processor.

#![allow(clippy::print_stdout)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::join_all;
use kv_cache::{
    BlockHash, BlockPool, BlockTable, Fence, HostRegion, KvCodec, KvLayout, KvRegion, PageShape,
};
use kv_transfer::transport::{
    GrpcTransport, InProcessTransport, KvTransferService, LocalReceivers, Target, Transport,
};
use kv_transfer::{
    Expected, FilledPages, Receiver, ReceiverConfig, SendJob, Sender, SenderConfig, Transports,
    page_digest,
};
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

/// 16 layers of 64 KiB pages: Llama-3.1-8B's pages, half of its layers.
const LAYOUT: KvLayout = KvLayout::whole(16, 8, PageShape::keys_and_values(128, 16), KvCodec::BF16);
/// A prompt of 1024 tokens.
const BLOCKS: u32 = 64;
const TOKENS: u32 = BLOCKS * LAYOUT.block_tokens();
/// HTTP/2's, as `cluster` has it.
const WINDOW: u32 = 8 << 20;
/// Hand-offs at once, where there are several.
const AT_ONCE: u32 = 8;

/// One worker's memory.
struct Memory {
    pool: BlockPool,
    region: Arc<dyn KvRegion>,
}

impl Memory {
    fn new() -> Self {
        let blocks = AT_ONCE * BLOCKS;
        let pool = BlockPool::new(blocks, LAYOUT.block_tokens()).with_prefix_cache(false);
        Self { pool, region: Arc::new(HostRegion::new(LAYOUT, blocks)) }
    }
}

fn handoffs(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let memory = Memory::new();
    let config = ReceiverConfig::default();
    let receiver = Receiver::new(memory.pool.clone(), memory.region.clone(), config);
    let local = LocalReceivers::default();
    let _registration = local.register("inproc://decode", receiver.clone());
    let uri = serve(&runtime, receiver.clone());
    let ways: [(&str, Arc<dyn Transport>, String); 3] = [
        ("in place", Arc::new(InProcessTransport::new(local)), "inproc://decode".into()),
        ("grpc", Arc::new(GrpcTransport::new(1)), uri.clone()),
        ("grpc, 4 connections", Arc::new(GrpcTransport::new(4)), uri),
    ];
    let mut group = criterion.benchmark_group("hand-off");
    group.throughput(Throughput::Bytes(u64::from(BLOCKS) * LAYOUT.block_bytes() as u64));
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for (way, transport, uri) in &ways {
        for kib in [128, 256, 512, 1024] {
            let config = SenderConfig {
                message_bytes: kib << 10,
                in_place_bytes: kib << 10,
                ..SenderConfig::default()
            };
            let sender = Sender::new(Transports::new(vec![transport.clone()]), config);
            let target = Target { worker: "receiver".into(), uri: uri.clone(), incarnation: 0 };
            let id = BenchmarkId::new(*way, format!("{kib} KiB"));
            let source = Memory::new();
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    runtime.block_on(hand_over(&receiver, &memory, &sender, &source, &target));
                });
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("hand-offs at once");
    let bytes = u64::from(AT_ONCE * BLOCKS) * LAYOUT.block_bytes() as u64;
    group.throughput(Throughput::Bytes(bytes));
    group.sample_size(10).measurement_time(Duration::from_secs(4));
    for (way, transport, uri) in &ways {
        let sender = Sender::new(Transports::new(vec![transport.clone()]), SenderConfig::default());
        let target = Target { worker: "receiver".into(), uri: uri.clone(), incarnation: 0 };
        let source = Memory::new();
        let (mut processor, mut rounds) = (Duration::ZERO, 0);
        group.bench_function(*way, |bencher| {
            bencher.iter(|| {
                let before = processor_time();
                let one = |_| hand_over(&receiver, &memory, &sender, &source, &target);
                runtime.block_on(join_all((0..AT_ONCE).map(one)));
                processor += processor_time() - before;
                rounds += 1;
            });
        });
        let gigabytes = f64::from(rounds) * bytes as f64 / 1e9;
        if gigabytes > 0.0 {
            println!("{way}: {:.2} s of a core for 1 GB", processor.as_secs_f64() / gigabytes);
        }
    }
    group.finish();
}

/// Time that this process has had of all cores; zero where there is no `/proc`.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may have spaces: user and kernel time are the 12th and 13th, in 10 ms.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

async fn hand_over(
    receiver: &Receiver,
    memory: &Memory,
    sender: &Sender,
    source: &Memory,
    target: &Target,
) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let expected = Expected {
        reservation: memory.pool.reserve(BLOCKS).unwrap(),
        held: BlockTable::new(LAYOUT.block_tokens()),
        tokens: TOKENS,
        context: BlockHash(1),
        deadline,
    };
    let pending = receiver.expect(expected).unwrap();
    let job = SendJob {
        id: pending.id(),
        target: target.clone(),
        transports: vec!["in-process".into(), "grpc".into()],
        blocks: 0..BLOCKS,
        tokens: TOKENS,
        region: source.region.clone(),
        deadline,
    };
    let queue = sender.start(job).unwrap();
    let mut credit = source.pool.reserve(BLOCKS).unwrap();
    let blocks: Vec<_> = std::iter::from_fn(|| credit.bind()).collect();
    for layer in 0..LAYOUT.layers() {
        let layers = layer..layer + 1;
        let pages = FilledPages { layers, first_block: 0, blocks: blocks.clone(), fence: Fence(0) };
        queue.push(pages).await.unwrap();
    }
    let (report, table) = tokio::join!(queue.commit(BlockHash(1)), pending.verified(deadline));
    report.unwrap();
    black_box(table.unwrap());
}

/// What no hand-off can beat: each byte is copied and hashed on both sides.
fn floors(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("floor");
    let from = vec![1u8; 1 << 20];
    let mut to = vec![0u8; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("memcpy 1 MiB", |bencher| {
        bencher.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
    });
    let page = &from[..LAYOUT.page_bytes()];
    group.throughput(Throughput::Bytes(page.len() as u64));
    group.bench_function("page digest 64 KiB", |bencher| {
        bencher.iter(|| page_digest(1, 2, black_box(page)));
    });
    group.finish();
}

fn serve(runtime: &Runtime, receiver: Receiver) -> String {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let serving = Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW)
        .max_frame_size(1 << 20)
        .add_service(KvTransferService::server(receiver))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    runtime.spawn(serving);
    uri
}

criterion_group!(benches, floors, handoffs);
criterion_main!(benches);
