//! Clients that connect and do nothing more.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::testing::*;

const SOON: Duration = Duration::from_millis(300);
/// Far below what was before: for ever.
const PATIENCE: Duration = Duration::from_secs(10);

async fn impatient() -> TestRouter {
    TestRouter::configured(vec![says("x")], |config| {
        let limits = &mut config.limits;
        limits.head_timeout = SOON;
        limits.connections.greeting_timeout = SOON;
        limits.connections.idle_timeout = Some(SOON);
        limits.connections.open_max = 8;
        limits.connections.per_client_max = 8;
    })
    .await
}

/// Waits until the server closes the connection.
async fn is_closed(mut stream: TcpStream) {
    let mut rest = Vec::new();
    let read = stream.read_to_end(&mut rest);
    // A reset is as good as an end.
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("the server closes the connection");
}

#[tokio::test]
async fn whoever_says_nothing_or_does_not_finish_is_hung_up_on() {
    let router = impatient().await;
    let grpc = router.grpc_url.strip_prefix("http://").unwrap().to_owned();
    for (addr, said) in [
        (router.addr.to_string(), &b""[..]),
        (router.addr.to_string(), b"G"),
        (router.addr.to_string(), b"GET /health HTTP/1.1\r\nhost: example.org\r\nx-slow: "),
        (router.addr.to_string(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (router.addr.to_string(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
        (router.addr.to_string(), b"GET /health HTTP/1.1\r\nhost: example.org\r\n\r\n"),
        (grpc.clone(), b""),
        (grpc.clone(), b"PRI * HTTP/2.0\r\n"),
        (grpc.clone(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ] {
        let mut stream = TcpStream::connect(&addr).await.unwrap();
        stream.write_all(said).await.unwrap();
        is_closed(stream).await;
    }
}

#[tokio::test]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.limits.connections.open_max = 8;
        config.limits.connections.per_client_max = 8;
    })
    .await;
    let mut crowd = Vec::new();
    for _ in 0..100 {
        crowd.push(TcpStream::connect(router.addr).await.unwrap());
    }
    let begin = Instant::now();
    assert_eq!(router.get("/health").await.status, 200);
    assert!(begin.elapsed() < PATIENCE);
    // The longest silent made room, though the time for a greeting has not passed.
    is_closed(crowd.swap_remove(0)).await;
}
