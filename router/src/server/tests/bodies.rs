//! Bodies that are refused before they have come.

use std::time::{Duration, Instant};

use rstest::rstest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::testing::*;

/// Below what is read, and forgotten, of a body that is refused.
const SOON: Duration = Duration::from_secs(4);

fn head(bytes: usize, more: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {bytes}\r\n{more}\r\n"
    )
}

async fn with_small_bodies() -> TestRouter {
    TestRouter::configured(vec![], |config| config.limits.body_bytes = 1000).await
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_refused_before_it_comes() {
    let router = with_small_bodies().await;
    for more in ["", "expect: 100-continue\r\n"] {
        let begin = Instant::now();
        let answer = router.exchange(&head(2000, more)).await;
        assert!(begin.elapsed() < SOON, "after {:?}: {answer}", begin.elapsed());
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains("body_too_large"), "{answer}");
    }
}

#[tokio::test]
async fn leave_to_send_is_given_to_who_announces_no_more_than_is_read() {
    let router = with_small_bodies().await;
    let mut stream = TcpStream::connect(router.addr).await.unwrap();
    stream.write_all(head(2, "expect: 100-continue\r\n").as_bytes()).await.unwrap();
    let mut leave = [0; 25];
    stream.read_exact(&mut leave).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
}

/// Much more than what lies between two sockets.
const LARGE: usize = 8 << 20;

#[rstest]
#[case::too_large("POST /v1/chat/completions", "application/json", "413")]
#[case::of_another_type("POST /v1/chat/completions", "text/plain", "415")]
#[case::for_no_route("POST /v1/nothing", "application/json", "404")]
#[case::by_another_method("POST /health", "application/json", "405")]
#[tokio::test]
async fn who_sends_all_of_a_body_that_is_refused_reads_why(
    #[case] call: &str,
    #[case] of_type: &str,
    #[case] status: &str,
) {
    assert_eq!(status_of_all(&with_small_bodies().await, call, of_type).await, status);
}

#[tokio::test]
async fn a_stranger_who_sends_a_large_body_reads_that_a_key_is_missing() {
    let router =
        TestRouter::configured(vec![], |config| config.api_keys = vec!["sk-1".into()]).await;
    assert_eq!(
        status_of_all(&router, "POST /v1/chat/completions", "application/json").await,
        "401"
    );
}

/// What is answered to who sends a large body to its end before reading.
async fn status_of_all(router: &TestRouter, call: &str, of_type: &str) -> String {
    let mut stream = TcpStream::connect(router.addr).await.unwrap();
    let head = format!(
        "{call} HTTP/1.1\r\nhost: a\r\ncontent-type: {of_type}\r\ncontent-length: {LARGE}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; LARGE]).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).replace("HTTP/1.1 ", "")
}
