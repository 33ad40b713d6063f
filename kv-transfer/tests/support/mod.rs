//! A sender and a receiver with memory of their own, joined by each transport in turn.

#![allow(dead_code, missing_docs, unreachable_pub)]

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_cache::{
    BlockCounts, BlockHandle, BlockHash, BlockPool, BlockTable, Fence, HostRegion, KvCodec,
    KvLayout, KvRegion, PageRange, PageShape, PageSpan, RegionError,
};
use kv_transfer::transport::in_process::Registration;
use kv_transfer::transport::{
    Faults, Faulty, GrpcTransport, InProcessTransport, KvTransferService, LocalReceivers, Target,
    Transport, Transports,
};
use kv_transfer::{
    Expected, FilledPages, HandoffId, PageQueue, PendingHandoff, Receiver, ReceiverConfig, SendJob,
    SendReport, Sender, SenderConfig, TransferError, page_digest,
};
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub const INCARNATION: u64 = 7;
pub const BLOCK_TOKENS: u32 = 4;
pub const LAYERS: u32 = 4;
/// The name of whatever is handed over here.
pub const CONTEXT: BlockHash = BlockHash(0xba70);
/// Long enough for the slowest machine: no test waits for it to pass.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// From memory to memory.
    InPlace,
    /// Through a buffer: the sender's memory is one that the receiver doesn't reach.
    InProcess,
    Grpc,
    /// Over gRPC, each stream dealt over three connections.
    Lanes,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Drop,
    Duplicate,
    Corrupt,
    Delay,
    Cut,
    All,
}

/// In what pieces pages are pushed.
#[derive(Clone, Copy, Debug)]
pub enum PushOrder {
    /// Layer by layer, all blocks at once: one chunk of prefill.
    Layers,
    /// Two blocks at a time, two layers at a time: chunked prefill.
    Chunks,
    /// Page by page, last page first.
    Backwards,
}

/// A receiver that can be reached, and a sender that reaches it.
pub struct World {
    pub receiver: Receiver,
    pub receiving: Memory,
    pub sending: Memory,
    pub sender: Sender,
    pub transport: Arc<dyn Transport>,
    pub target: Target,
    pub server: Option<ServerProcess>,
    _registration: Registration,
}

/// A server that dies when dropped, connections and all.
pub struct ServerProcess(Option<Runtime>);

/// One worker's blocks.
pub struct Memory {
    pub pool: BlockPool,
    pub region: Arc<dyn KvRegion>,
}

/// Memory that no other reaches.
struct Apart(HostRegion);

// === impl Apart ===

impl KvRegion for Apart {
    fn layout(&self) -> &KvLayout {
        self.0.layout()
    }

    fn gather(
        &self,
        pages: &PageRange<'_>,
        fence: Fence,
        out: &mut [u8],
    ) -> Result<(), RegionError> {
        self.0.gather(pages, fence, out)
    }

    fn scatter(&self, pages: &PageRange<'_>, bytes: &[u8]) -> Result<(), RegionError> {
        self.0.scatter(pages, bytes)
    }
}

// === impl Fault ===

impl Fault {
    pub fn faults(self, seed: u64) -> Faults {
        let none = Faults { seed, ..Faults::default() };
        match self {
            Self::None => none,
            Self::Drop => Faults { drop: 0.2, ..none },
            Self::Duplicate => Faults { duplicate: 0.5, ..none },
            Self::Corrupt => Faults { corrupt: 0.3, ..none },
            Self::Delay => Faults { delay: 0.1, delay_time: Duration::from_millis(3), ..none },
            Self::Cut => Faults { cut_after: Some(5), cuts_max: 3, ..none },
            Self::All => Faults {
                drop: 0.05,
                duplicate: 0.1,
                corrupt: 0.05,
                delay: 0.02,
                delay_time: Duration::from_millis(2),
                cut_after: Some(9),
                cuts_max: 2,
                ..none
            },
        }
    }
}

// === impl ServerProcess ===

impl Drop for ServerProcess {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

// === impl Memory ===

impl Memory {
    pub fn new(blocks: u32) -> Self {
        Self::over(Arc::new(HostRegion::new(layout(), blocks)), blocks)
    }

    pub fn over(region: Arc<dyn KvRegion>, blocks: u32) -> Self {
        Self { pool: BlockPool::new(blocks, BLOCK_TOKENS), region }
    }

    /// A table for `tokens` tokens whose pages hold `salt`'s bytes.
    pub fn table(&self, tokens: u32, salt: u64) -> BlockTable {
        let mut table = BlockTable::new(BLOCK_TOKENS);
        let blocks = tokens.div_ceil(BLOCK_TOKENS);
        let mut credit = self.pool.reserve(blocks).unwrap();
        for block in 0..blocks {
            let handle = credit.bind().unwrap();
            for layer in 0..LAYERS {
                let blocks = [handle.reference()];
                let pages = PageRange { layers: layer..layer + 1, blocks: &blocks };
                self.region.scatter(&pages, &contents(layer, block, salt)).unwrap();
            }
            table.push(handle);
        }
        table.set_tokens(tokens as usize);
        table
    }

    /// The bytes of a page.
    pub fn page(&self, layer: u32, block: &BlockHandle) -> Vec<u8> {
        let mut page = vec![0; layout().page_bytes()];
        let blocks = [block.reference()];
        let pages = PageRange { layers: layer..layer + 1, blocks: &blocks };
        self.region.gather(&pages, Fence::default(), &mut page).unwrap();
        page
    }

    pub fn all_free(&self) -> bool {
        let total = self.pool.total_blocks();
        self.pool.counts() == BlockCounts { free: total, ..BlockCounts::default() }
    }
}

// === impl World ===

impl World {
    pub fn new(via: Via, faults: Faults) -> Self {
        Self::with_memory(via, faults, Memory::new(512))
    }

    pub fn with_memory(via: Via, faults: Faults, receiving: Memory) -> Self {
        let config =
            ReceiverConfig { incarnation: INCARNATION, handoffs_max: 128, window_bytes: 16 << 10 };
        let receiver = Receiver::new(receiving.pool.clone(), receiving.region.clone(), config);
        let local = LocalReceivers::default();
        let registration = local.register("inproc://decode", receiver.clone());
        let (transport, uri, server): (Arc<dyn Transport>, _, _) = match via {
            Via::InPlace | Via::InProcess => {
                (Arc::new(InProcessTransport::new(local)), "inproc://decode".to_owned(), None)
            }
            Via::Grpc => {
                let (uri, server) = serve(receiver.clone());
                (Arc::new(GrpcTransport::new(2)), uri, Some(server))
            }
            Via::Lanes => {
                let (uri, server) = serve(receiver.clone());
                (Arc::new(GrpcTransport::new(3).with_lane_bytes(1)), uri, Some(server))
            }
        };
        let transport: Arc<dyn Transport> = Arc::new(Faulty::new(transport, faults));
        let sender = Sender::new(Transports::new(vec![transport.clone()]), sender_config());
        let target = Target { worker: "receiver".into(), uri, incarnation: INCARNATION };
        let sending = match via {
            Via::InPlace => Memory::new(512),
            Via::InProcess | Via::Grpc | Via::Lanes => {
                Memory::over(Arc::new(Apart(HostRegion::new(layout(), 512))), 512)
            }
        };
        let _registration = registration;
        Self { receiver, receiving, sending, sender, transport, target, server, _registration }
    }

    /// Gives the sender other limits.
    pub fn configure(&mut self, config: SenderConfig) {
        self.sender = Sender::new(Transports::new(vec![self.transport.clone()]), config);
    }

    /// Expects `tokens` tokens, the first `held_blocks` blocks of them here already.
    pub fn expect(&self, tokens: u32, held_blocks: u32, salt: u64) -> PendingHandoff {
        self.try_expect(tokens, held_blocks, salt, PATIENCE).unwrap()
    }

    pub fn try_expect(
        &self,
        tokens: u32,
        held_blocks: u32,
        salt: u64,
        time: Duration,
    ) -> Result<PendingHandoff, TransferError> {
        let held = self.receiving.table(held_blocks * BLOCK_TOKENS, salt);
        let to_come = tokens.div_ceil(BLOCK_TOKENS) - held_blocks;
        self.receiver.expect(Expected {
            reservation: self.receiving.pool.reserve(to_come).unwrap(),
            held,
            tokens,
            context: CONTEXT,
            deadline: Instant::now() + time,
        })
    }

    pub fn start(&self, id: HandoffId, tokens: u32, held_blocks: u32) -> PageQueue {
        self.sender.start(self.job(id, tokens, held_blocks)).unwrap()
    }

    pub fn job(&self, id: HandoffId, tokens: u32, held_blocks: u32) -> SendJob {
        SendJob {
            id,
            target: self.target.clone(),
            transports: vec![self.transport.name().into()],
            blocks: held_blocks..tokens.div_ceil(BLOCK_TOKENS),
            tokens,
            region: self.sending.region.clone(),
            deadline: Instant::now() + PATIENCE,
        }
    }

    /// Hands one sequence over and compares every page of it.
    pub async fn hand_over(
        &self,
        tokens: u32,
        held_blocks: u32,
        order: PushOrder,
        salt: u64,
    ) -> SendReport {
        let sent = self.sending.table(tokens, salt);
        let pending = self.expect(tokens, held_blocks, salt);
        let queue = self.start(pending.id(), tokens, held_blocks);
        let sending = async {
            for pages in filled(&sent, held_blocks, order) {
                queue.push(pages).await?;
            }
            queue.commit(CONTEXT).await
        };
        let receiving = pending.verified(Instant::now() + PATIENCE);
        let (report, table) = tokio::join!(sending, receiving);
        let report = report.unwrap_or_else(|error| panic!("sequence {salt}: sender: {error}"));
        let table = table.unwrap_or_else(|error| panic!("sequence {salt}: receiver: {error}"));
        assert_eq!(table.tokens(), tokens as usize);
        self.assert_same_pages(&sent, &table);
        report
    }

    pub fn assert_same_pages(&self, sent: &BlockTable, received: &BlockTable) {
        assert_eq!(sent.blocks().len(), received.blocks().len());
        for (index, (ours, theirs)) in sent.blocks().iter().zip(received.blocks()).enumerate() {
            for layer in 0..LAYERS {
                let same = self.sending.page(layer, ours) == self.receiving.page(layer, theirs);
                assert!(same, "block {index}, layer {layer}");
            }
        }
    }

    /// Nothing is open, nothing is held, nothing is lost.
    pub fn assert_idle(&self) {
        assert_eq!(self.receiver.open_handoffs(), 0);
        assert_eq!(self.orphans(), 0);
        assert!(self.receiving.all_free(), "{:?}", self.receiving.pool);
        assert!(self.sending.all_free(), "{:?}", self.sending.pool);
    }

    pub fn orphans(&self) -> u32 {
        self.receiving.pool.orphans(self.receiver.held_blocks())
    }
}

/// `table` in pushes, from logical block `first` on.
pub fn filled(table: &BlockTable, first: u32, order: PushOrder) -> Vec<FilledPages> {
    let whole = PageSpan { layers: 0..LAYERS, blocks: first..table.blocks().len() as u32 };
    let spans: Vec<PageSpan> = match order {
        PushOrder::Layers => (0..LAYERS).map(|layer| part(&whole, layer..layer + 1)).collect(),
        PushOrder::Chunks => {
            let columns = whole.blocks.clone().step_by(2);
            let column = |start: u32| start..whole.blocks.end.min(start + 2);
            let rows = |blocks: Range<u32>| {
                [0..2, 2..LAYERS].map(move |layers| PageSpan { layers, blocks: blocks.clone() })
            };
            columns.flat_map(|start| rows(column(start))).collect()
        }
        PushOrder::Backwards => {
            let page =
                |(layer, block)| PageSpan { layers: layer..layer + 1, blocks: block..block + 1 };
            let mut pages: Vec<_> = whole.iter().map(page).collect();
            pages.reverse();
            pages
        }
    };
    spans.into_iter().map(|span| pages_of(table, span)).collect()
}

fn part(span: &PageSpan, layers: Range<u32>) -> PageSpan {
    PageSpan { layers, blocks: span.blocks.clone() }
}

pub fn pages_of(table: &BlockTable, span: PageSpan) -> FilledPages {
    let blocks = span.blocks.start as usize..span.blocks.end as usize;
    FilledPages {
        layers: span.layers,
        first_block: span.blocks.start,
        blocks: table.blocks()[blocks].to_vec(),
        fence: Fence::default(),
    }
}

/// The digests of pages full of `byte`.
pub fn uniform(span: &PageSpan, byte: u8) -> (Vec<u8>, Vec<u64>) {
    let page = vec![byte; layout().page_bytes()];
    let digests = span.iter().map(|(layer, block)| page_digest(layer, block, &page)).collect();
    (page.repeat(span.pages()), digests)
}

pub fn layout() -> KvLayout {
    KvLayout::whole(LAYERS, 2, PageShape::keys_and_values(8, BLOCK_TOKENS), KvCodec::F32)
}

/// Small messages, so that a sequence takes many; a short stall, so that lost ones are soon noticed.
pub fn sender_config() -> SenderConfig {
    SenderConfig {
        message_bytes: 2 * layout().page_bytes(),
        in_place_bytes: 2 * layout().page_bytes(),
        stall: Duration::from_millis(300),
        rounds_max: 50,
        opens_max: 10,
        ..SenderConfig::default()
    }
}

fn contents(layer: u32, block: u32, salt: u64) -> Vec<u8> {
    let mut state = salt << 32 | u64::from(layer) << 16 | u64::from(block);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..layout().page_bytes()).map(|_| next()).collect()
}

/// A gRPC server on a port of its own, in a runtime of its own.
fn serve(receiver: Receiver) -> (String, ServerProcess) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    runtime.spawn(async move {
        let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).unwrap());
        let service = KvTransferService::server(receiver);
        let server = Server::builder().add_service(service);
        server.serve_with_incoming(incoming.with_nodelay(Some(true))).await.unwrap();
    });
    (uri, ServerProcess(Some(runtime)))
}

/// Waits until `condition` holds.
pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
