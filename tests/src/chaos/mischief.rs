//! What strangers do to a gateway. It may refuse all of it, and nobody else may notice.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::http::{Client, Failure};
use crate::model::NAME;

/// How many do it at once.
const CROWD: usize = 24;
const PATIENCE: Duration = Duration::from_secs(5);
/// A text that the model's context doesn't hold, bytes.
const LONG: usize = 8 << 10;
/// A text that no model's would.
const HUGE: usize = 2 << 20;

/// A way of being rude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// Bodies that are no JSON, or other JSON.
    BrokenBodies,
    /// Requests for more than there is.
    TooMuch,
    /// Large texts whose senders are gone before they are read.
    HugeAndGone,
    /// Connections that say nothing.
    Silence,
    /// Bytes that are no HTTP.
    Garbage,
    /// Streams whose clients leave at once.
    Leavers,
}

// === impl Mischief ===

impl Mischief {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::BrokenBodies,
        Self::TooMuch,
        Self::HugeAndGone,
        Self::Silence,
        Self::Garbage,
        Self::Leavers,
    ];

    /// Does it to the gateway at `http`, whose gRPC is at `grpc`.
    ///
    /// # Errors
    /// An answer that is not a refusal.
    pub(super) async fn play(self, http: SocketAddr, grpc: SocketAddr) -> Result<(), String> {
        let client = Client::new(http);
        let results = match self {
            Self::BrokenBodies => join_all((0..CROWD).map(|nth| broken(&client, nth))).await,
            Self::TooMuch => join_all((0..CROWD).map(|nth| too_much(&client, nth))).await,
            Self::HugeAndGone => join_all((0..4).map(|_| huge_and_gone(&client))).await,
            Self::Silence => join_all([http, grpc].repeat(CROWD).into_iter().map(silence)).await,
            Self::Garbage => join_all([http, grpc].repeat(CROWD).into_iter().map(garbage)).await,
            Self::Leavers => join_all((0..CROWD).map(|_| leaver(&client))).await,
        };
        results.into_iter().collect()
    }
}

async fn broken(client: &Client, nth: usize) -> Result<(), String> {
    let bodies = [
        json!(null),
        json!([1, 2]),
        json!({ "model": 7, "messages": "hello" }),
        json!({ "model": NAME, "messages": [{ "role": "user", "content": 5 }] }),
        json!({ "model": NAME, "messages": [], "temperature": "hot" }),
        json!({ "model": "x".repeat(LONG), "messages": [{ "role": "user", "content": "hi" }] }),
    ];
    refused(client.whole("/v1/chat/completions", &bodies[nth % bodies.len()]).await)
}

async fn too_much(client: &Client, nth: usize) -> Result<(), String> {
    let text = |bytes: usize| "ab ".repeat(bytes / 3);
    let bodies = [
        json!({ "model": NAME, "prompt": text(LONG) }),
        json!({ "model": NAME, "prompt": "hi", "n": 100_000 }),
        json!({ "model": NAME, "prompt": "hi", "max_tokens": 1_000_000 }),
        json!({ "model": NAME, "prompt": [1, 2, 1_000_000_000] }),
    ];
    refused(client.whole("/v1/completions", &bodies[nth % bodies.len()]).await)
}

/// That it was not answered, and that it is not the server's fault.
fn refused(answer: Result<Value, Failure>) -> Result<(), String> {
    match answer {
        Ok(answer) => Err(format!("a rude request was answered: {answer}")),
        Err(Failure { status: Some(status), detail, .. })
            if status.is_server_error() && status.as_u16() != 503 =>
        {
            Err(format!("a rude request was {status}: {detail}"))
        }
        // A refusal, a router that leaves, or a connection that something else broke.
        Err(_) => Ok(()),
    }
}

async fn huge_and_gone(client: &Client) -> Result<(), String> {
    let content = "ab ".repeat(HUGE / 3);
    let body = json!({ "model": NAME, "messages": [{ "role": "user", "content": content }] });
    let asked = client.whole("/v1/chat/completions", &body);
    let _ = tokio::time::timeout(Duration::from_millis(50), asked).await;
    Ok(())
}

async fn silence(addr: SocketAddr) -> Result<(), String> {
    let stream = TcpStream::connect(addr).await;
    tokio::time::sleep(Duration::from_secs(2)).await; // What it is: a client that says nothing.
    drop(stream);
    Ok(())
}

async fn garbage(addr: SocketAddr) -> Result<(), String> {
    let Ok(mut stream) = TcpStream::connect(addr).await else { return Ok(()) };
    let noise: Vec<u8> =
        (0..1000u32).map(|nth| (nth.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let _ = stream.write_all(&noise).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    Ok(())
}

async fn leaver(client: &Client) -> Result<(), String> {
    let body = json!({ "model": NAME, "prompt": "Once", "max_tokens": 500, "ignore_eos": true });
    if let Ok(mut stream) = client.open("/v1/completions", &body).await {
        let _ = tokio::time::timeout(PATIENCE, stream.next()).await;
    }
    Ok(())
}
