//! Clients that read nothing of their answers, or little at a time.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use prost::Message as _;
use proto::v1;
use proto::v1::inference_request::Input;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use words::SampledToken;

use crate::dispatch::GenerationEvent;
use crate::testing::*;

/// For a client to take a piece of its answer.
const READER_TIMEOUT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection of HTTP/2, whose streams are read as the test says.
struct Connection {
    requests: SendRequest<Bytes>,
    _driven: AbortOnDropHandle<()>,
}

// === impl Connection ===

impl Connection {
    async fn open(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        let driven = TaskTracker::new().spawn(async move { drop(connection.await) });
        Self { requests, _driven: AbortOnDropHandle::new(driven) }
    }

    /// Posts a request, and waits for the head of its answer.
    async fn post(&self, path: &str, content_type: &str, body: Bytes) -> RecvStream {
        let mut requests = self.requests.clone().ready().await.unwrap();
        let request = http::Request::post(format!("http://example.org{path}"));
        let request = request.header("content-type", content_type).body(()).unwrap();
        let (response, mut upload) = requests.send_request(request, false).unwrap();
        upload.send_data(body, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    async fn chat(&self) -> RecvStream {
        let body = chat(json!({"stream": true})).to_string();
        self.post("/v1/chat/completions", "application/json", body.into()).await
    }

    async fn generate(&self) -> RecvStream {
        let input = Some(Input::Text("hi".into()));
        let request = v1::InferenceRequest { input, ..v1::InferenceRequest::default() };
        let message = request.encode_to_vec();
        let head = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
        let path = "/baton.v1.Inference/Generate";
        self.post(path, "application/grpc", [head, message].concat().into()).await
    }
}

/// A router with the first answer too long for anything on its way to hold.
async fn with_a_long_answer() -> TestRouter {
    let many = (0..4000).map(|index| SampledToken { choice: 0, index, token: 65, logprob: None });
    let flood = Step::Send(GenerationEvent::Tokens(many.collect()));
    let script = [vec![started()], vec![flood; 100]].concat();
    TestRouter::configured(vec![script, says("x")], |config| {
        config.limits.connections.reader_timeout = Some(READER_TIMEOUT);
    })
    .await
}

fn assert_one_was_cut(router: &TestRouter) {
    let metrics = router.metrics.encode();
    assert!(metrics.contains("baton_readers_cut_total 1\n"), "{metrics}");
}

/// Waits until the server resets a stream of which nothing is read.
async fn is_reset(mut unread: RecvStream) {
    let end = async { while unread.data().await.expect("no end").is_ok() {} };
    // What has come is read without making room for more.
    tokio::time::timeout(PATIENCE, end).await.expect("the stream is reset");
}

#[tokio::test]
async fn a_connection_of_which_nothing_is_read_is_closed() {
    let router = with_a_long_answer().await;
    let mut stream = TcpStream::connect(router.addr).await.unwrap();
    let body = chat(json!({"stream": true})).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    router.peer.cancelled(1).await;
    assert_one_was_cut(&router);
    let rest = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(rest.is_ok(), "the connection is open still");
}

#[tokio::test]
async fn a_stream_of_which_nothing_is_read_is_reset_and_its_connection_goes_on() {
    for is_grpc in [false, true] {
        let router = with_a_long_answer().await;
        let addr = if is_grpc { &router.grpc_url } else { &router.url };
        let connection = Connection::open(addr.strip_prefix("http://").unwrap()).await;
        let unread = if is_grpc { connection.generate().await } else { connection.chat().await };
        router.peer.cancelled(1).await;
        assert_one_was_cut(&router);
        is_reset(unread).await;
        let mut next = if is_grpc { connection.generate().await } else { connection.chat().await };
        assert!(next.data().await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_stream_that_is_read_little_by_little_is_not_cut() {
    let router = with_a_long_answer().await;
    let connection = Connection::open(&router.addr.to_string()).await;
    let mut slow = connection.chat().await;
    let (start, mut read) = (tokio::time::Instant::now(), 0);
    while start.elapsed() < 4 * READER_TIMEOUT {
        let piece = slow.data().await.unwrap().expect("it is not reset");
        read += piece.len();
        tokio::time::sleep(READER_TIMEOUT / 10).await;
        slow.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert!(read > 64 << 10, "{read}");
    assert!(router.metrics.encode().contains("baton_readers_cut_total 0\n"));
    // Then it stops reading.
    router.peer.cancelled(1).await;
    let reset = loop {
        if let Err(error) = slow.data().await.unwrap() {
            break error;
        }
    };
    assert_eq!(reset.reason(), Some(Reason::CANCEL));
}
