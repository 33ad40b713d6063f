//! An HTTP server, for clients and for operators: HTTP/1 and HTTP/2, with a limit on everything that
//! a connection may hold.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Layer as _;

use crate::ClusterError;
use crate::connections::{Connections, CountCalls, CountCallsService, Guarded, Streams};
use crate::patience::PatientTimer;
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
/// Of an answer on HTTP/2, what is held for a client that has room for it and whose connection hasn't: what it
/// leaves unread beyond is not generated.
const UNSENT_BYTES_MAX: usize = 64 << 10;

/// What the kernel holds of an answer that a client doesn't read; it doubles the number for its own needs. Unbounded
/// it takes megabytes, all of which would be generated for nobody. 1.3 MB/s at 100 ms, to one connection.
const SEND_BUFFER_BYTES: u32 = 128 << 10;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

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
    /// What it speaks.
    pub protocol: Protocol,
}

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1 and HTTP/2, as the client begins.
    Http,
    /// HTTP/2 only, under gRPC.
    Grpc,
}

// === impl HttpServer ===

impl HttpServer {
    /// Binds a port for clients, of whose answers little is held until they read them.
    ///
    /// # Errors
    /// [`ClusterError::Bind`] if the port is taken or not allowed.
    pub fn bind(addr: SocketAddr) -> Result<TcpListener, ClusterError> {
        let listen = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // A port whose last connections are still closing can be bound again.
            socket.set_reuseaddr(true)?;
            // Connections have it from their listener.
            socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
            socket.bind(addr)?;
            socket.listen(BACKLOG)
        };
        listen().map_err(|source| ClusterError::Bind { addr, source })
    }

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
                    let builder = self.builder(seat.streams());
                    let guarded = Guarded::new(self.doorkeeper.meet(prepare(stream)), seat);
                    let app = CountCalls::of(&activity).layer(app.clone());
                    let connection = serve_connection(builder, guarded, app, stopped.clone());
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

    fn builder(&self, streams: Streams) -> Builder<Streams> {
        let mut builder = Builder::new(streams);
        builder
            .http1()
            .timer(PatientTimer)
            .header_read_timeout(self.head_timeout)
            .max_buf_size(HEAD_BYTES_MAX);
        builder
            .http2()
            .timer(PatientTimer)
            .keep_alive_interval(Some(PING_INTERVAL))
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .max_concurrent_streams(STREAMS_MAX)
            .max_send_buf_size(UNSENT_BYTES_MAX)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        match self.protocol {
            Protocol::Http => builder,
            Protocol::Grpc => builder.http2_only(),
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
    builder: Builder<Streams>,
    stream: Guarded<Secured<TcpStream>>,
    app: CountCallsService<Router>,
    stopped: CancellationToken,
) {
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
