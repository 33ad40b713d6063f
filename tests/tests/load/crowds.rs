//! What a router holds for those who take and give nothing: connections that are silent, texts whose senders are gone.

#![allow(clippy::print_stderr, reason = "figures, beside what is asserted")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use baton_tests::chaos::Vitals;
use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::{Cluster, Single};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What a shell may allow a router, and more connections than that, to each port.
const DESCRIPTORS: u32 = 64;
const SILENT: usize = 80;
/// For a short answer, on a machine that does other things as well.
const SHORT_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_few_descriptors_answers_beside_silent_connections() {
    let cluster = Cluster::builder().router_descriptors_max(DESCRIPTORS).start().await;
    let ports = cluster.router.ports();
    let mut silent = Vec::new();
    for addr in [ports.http, ports.grpc].map(|addr| addr.expect("a port")) {
        silent.extend(silent_connections(addr).await);
    }

    let other = cluster.client().from_address([127, 0, 0, 2].into());
    for _ in 0..3 {
        let started = Instant::now();
        let answer = other.chat("Who is there?", 8).await.expect("an answer");
        assert_eq!(answer.flaw(), None);
        assert!(started.elapsed() < SHORT_MAX, "a short answer took {:?}", started.elapsed());
    }
    let request = token_request(&[10, 20, 30], 4);
    let generated = cluster.grpc().await.generate(request).await.expect("an answer");
    assert_eq!(generated.tokens().len(), 4);
    drop(silent);
}

async fn silent_connections(addr: SocketAddr) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        // Those that are refused are refused: what counts is who is let in.
        silent.extend(TcpStream::connect(addr).await);
    }
    silent
}

/// Clients that send much and are gone before an answer.
const SENDERS: usize = 6;
const TEXT_BYTES: usize = 10 << 20;
/// Long enough to send it; nobody waits for the answer.
const SENDER_PATIENCE: Duration = Duration::from_millis(800);
const CROWD_TIME: Duration = Duration::from_secs(15);
/// For a tiny request beside them: 84 s before texts were bounded, far below a second on an idle machine.
const TINY_MAX: Duration = Duration::from_secs(5);
/// What the router may keep of all they sent: it was 2.2 GB, and is some 220 MiB however long they go on.
const KEPT_KIB_MAX: u64 = 384 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_tiny_request_does_not_wait_for_large_ones_whose_senders_are_gone() {
    let mut single = Single::start(&[]).await;
    let client = single.node.client();
    let process = single.node.process().id();
    client.chat("Hello", 4).await.expect("an answer");
    let before = Vitals::of(process);

    let (router, request) = (single.node.ports().http.expect("a port"), large_request());
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        senders.spawn(sends_and_goes(router, request.clone()));
    }
    let tiny = client.from_address([127, 0, 0, 2].into());
    let (started, mut took) = (Instant::now(), Vec::new());
    while started.elapsed() < CROWD_TIME {
        let asked = Instant::now();
        let answer = tiny.chat("Hello", 4).await.expect("an answer");
        assert_eq!(answer.flaw(), None);
        took.push(asked.elapsed());
    }
    senders.shutdown().await;

    took.sort();
    let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
    eprintln!("{} tiny answers, {middle:?} in the middle, {longest:?} at most", took.len());
    assert!(longest < TINY_MAX, "{longest:?}");
    single.assert_clean().await;
    if let (Some(before), Some(after)) = (before, Vitals::of(process)) {
        eprintln!("{before}, then {after}");
        assert!(after.rss_kib < before.rss_kib + KEPT_KIB_MAX, "{before}, then {after}");
    }
}

/// Sends large chats, one after the other, and waits for no answer.
async fn sends_and_goes(router: SocketAddr, request: Bytes) {
    loop {
        let sent = async {
            let mut stream = TcpStream::connect(router).await?;
            stream.write_all(&request).await?;
            stream.read_u8().await
        };
        let _ = tokio::time::timeout(SENDER_PATIENCE, sent).await;
    }
}

/// A large chat, as it goes over the wire.
fn large_request() -> Bytes {
    let body = chat_body(&"ab ".repeat(TEXT_BYTES / 3), 4).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    (head + &body).into()
}
