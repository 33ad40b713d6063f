//! An HTTP server, for clients and for operators: HTTP/1 and HTTP/2, with a limit on everything that
//! a connection may hold.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Layer as _;

use crate::connections::{Connections, CountCalls, CountCallsService, Guarded};
use crate::security::{Doorkeeper, Secured};

/// How long open answers have to end once the node has stopped: their streams end by themselves,
/// only their last bytes have to be written.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// After an accept that failed, as it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A request's head. Browsers send some KiB, proxies with their tokens some more.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Requests at a time on one connection of HTTP/2.
const STREAMS_MAX: u32 = 256;
/// What an HTTP/2 client may send before it is read: of one request, and on a connection. This much is
/// held for clients whose bodies wait, so it is small: 2.5 MB/s at 100 ms.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;
/// A dead peer is noticed within interval and timeout (20 s) together.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// A server on a bound port.
#[derive(Debug)]
pub struct HttpServer {
    /// The port.
    pub listener: TcpListener,
    /// Its connections, and those that share their limit.
    pub connections: Connections,
    /// How it meets its callers.
    pub doorkeeper: Doorkeeper,
    /// For the head of a request to arrive whole. HTTP/1 connections stay open as long between two requests.
    pub head_timeout: Duration,
}

// === impl HttpServer ===

impl HttpServer {
    /// Serves `app` until `stopped`. Dropping the future cuts every connection.
    ///
    /// Requests have a [`ClientAddress`](crate::connections::ClientAddress) among their extensions.
    pub async fn serve(self, app: Router, stopped: &CancellationToken) {
        let tasks = TaskTracker::new();
        // Ends the connections' tasks when this future is dropped.
        let cut = CancellationToken::new();
        let _cut = cut.clone().drop_guard();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = stopped.cancelled() => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let Some(seat) = self.connections.admit(peer.ip()) else { continue };
                    let activity = Arc::clone(seat.activity());
                    let guarded = Guarded::new(self.doorkeeper.meet(prepare(stream)), seat);
                    let app = CountCalls::of(&activity).layer(app.clone());
                    let connection =
                        serve_connection(guarded, app, self.head_timeout, stopped.clone());
                    let cut = cut.clone();
                    tasks.spawn(async move { cut.run_until_cancelled(connection).await });
                }
                Err(error) => {
                    self.connections.accept_failed(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        tasks.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::debug!(left = tasks.len(), "cutting connections");
        }
    }
}

fn prepare(stream: TcpStream) -> TcpStream {
    // Nagle's algorithm would hold tokens back for up to 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    stream
}

/// Serves one connection; asks it to close when the node has stopped.
async fn serve_connection(
    stream: Guarded<Secured<TcpStream>>,
    app: CountCallsService<Router>,
    head_timeout: Duration,
    stopped: CancellationToken,
) {
    let builder = builder(head_timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // Clients that leave are no news.
        tracing::debug!(error = %io::Error::other(error), "connection");
    }
}

fn builder(head_timeout: Duration) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING_INTERVAL))
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}
