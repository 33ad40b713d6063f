//! Clients that read as little of their answers as a test says.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tonic::Status;

/// A stream of HTTP/2 of which nothing is read.
#[derive(Debug)]
pub struct Unread {
    body: RecvStream,
    // The connection stays as long as there may be requests on it, and somebody drives it.
    _requests: SendRequest<Bytes>,
    _driven: JoinSet<()>,
}

/// Posts a JSON body over a connection of its own, which the kernel holds little for.
///
/// # Panics
/// If it can't be sent.
pub async fn post_http1(addr: SocketAddr, path: &str, body: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut stream = socket.connect(addr).await.expect("a connection");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.expect("a request");
    stream
}

/// Posts a body over HTTP/2, with HTTP/2's own default of what may be on its way unread.
///
/// # Panics
/// If it isn't answered with 200.
pub async fn post_http2(addr: SocketAddr, path: &str, content_type: &str, body: Bytes) -> Unread {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let mut driven = JoinSet::new();
    driven.spawn(async move { drop(connection.await) });
    let mut ready = requests.clone().ready().await.expect("room for a stream");
    let request = http::Request::post(format!("http://{addr}{path}"));
    let request = request.header("content-type", content_type).body(()).expect("a request");
    let (response, mut upload) = ready.send_request(request, false).expect("a stream");
    upload.send_data(body, true).expect("a body");
    let response = response.await.expect("an answer");
    assert_eq!(response.status(), 200);
    Unread { body: response.into_body(), _requests: requests, _driven: driven }
}

/// Posts bytes to a method of gRPC, and reads how the call ended.
///
/// # Panics
/// If it can't be sent, or is answered with a message.
pub async fn post_grpc(addr: SocketAddr, path: &str, body: Bytes) -> Status {
    let stream = TcpStream::connect(addr).await.expect("a connection");
    let (requests, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    let mut driven = JoinSet::new();
    driven.spawn(async move { drop(connection.await) });
    let request = http::Request::post(format!("http://{addr}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let mut ready = requests.ready().await.expect("room for a stream");
    let (response, mut upload) = ready.send_request(request, false).expect("a stream");
    // What is refused already takes no more.
    drop(upload.send_data(body, true));
    let response = response.await.expect("an answer");
    Status::from_header_map(response.headers()).expect("a status before any message")
}

/// A message as gRPC frames it.
#[must_use]
pub fn grpc_message(message: &[u8]) -> Bytes {
    let head = [&[0][..], &(message.len() as u32).to_be_bytes()].concat();
    [&head[..], message].concat().into()
}

// === impl Unread ===

impl Unread {
    /// Waits until the server resets the stream.
    ///
    /// # Panics
    /// If it ends otherwise, or stays.
    pub async fn is_reset(mut self, patience: Duration) {
        // What has come is looked at without making room for more.
        let end =
            async { while self.body.data().await.expect("a stream without its end").is_ok() {} };
        tokio::time::timeout(patience, end).await.expect("a reset");
    }
}
