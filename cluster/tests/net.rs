//! Servers and channels on a network of another make: no socket is opened.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use cluster::rpc::net::{Accepted, Connection, Dial};
use cluster::rpc::{self, Channels, Listener, Server};
use cluster::security::{Identity, NodeRole, Security};
use cluster::testing::{DEADLINE, worker};
use cluster::{Lifecycle, ReportService};
use futures::future::BoxFuture;
use http::Uri;
use proto::v1;
use proto::v1::worker_client::WorkerClient;
use support::REPORT_INTERVAL;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::{Code, Status, Streaming};
use words::{Load, Role, WorkerInfo};

/// Room on the way of a connection.
const PIPE_BYTES: usize = 64 << 10;
const SECRET: &[u8] = b"a secret of many bytes";
const AT: &str = "10.0.0.7:50051";

/// Leads to one port.
#[derive(Debug)]
struct Pipes {
    port: mpsc::Sender<io::Result<Accepted>>,
}

/// A worker on a network that it shares with nobody but the test.
struct Island {
    info: WorkerInfo,
    pipes: Arc<Pipes>,
    node: Lifecycle,
    server: JoinHandle<()>,
}

// === impl Pipes ===

impl Dial for Pipes {
    fn dial(&self, uri: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
        let (port, known) = (self.port.clone(), uri.authority().is_some_and(|at| *at == AT));
        Box::pin(async move {
            if !known {
                return Err(io::ErrorKind::AddrNotAvailable.into());
            }
            let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
            let peer = SocketAddr::from(([10, 0, 0, 8], 1));
            let accepted = Accepted { connection: Box::new(theirs), peer };
            let sent = port.send(Ok(accepted)).await;
            sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }
}

// === impl Island ===

impl Island {
    fn new(security: &Security) -> Self {
        let (port, arriving) = mpsc::channel(4);
        let listener = Listener::over(Box::new(ReceiverStream::new(arriving)), AT.parse().unwrap());
        let listener = listener.for_nodes(security);
        let mut info = worker("d-0", Role::Decode);
        info.address.uri = listener.uri("10.0.0.7");
        let node = Lifecycle::new();
        node.serve();
        let report = ReportService::start("", &info, Load::default, REPORT_INTERVAL, &node);
        let serving = Server::new(listener, &node).serve(Routes::new(report.into_server()));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { info, pipes: Arc::new(Pipes { port }), node, server }
    }

    async fn reports(&self, security: &Security) -> Result<Streaming<v1::LoadReport>, Status> {
        let channels = Channels::over(self.pipes.clone()).secured(security);
        let channel = channels.get(&self.info.address, self.info.role);
        let incarnation = self.info.address.incarnation.0;
        let deadline = cluster::clock::now() + DEADLINE;
        let request =
            rpc::request(v1::ReportRequest { incarnation, ..Default::default() }, deadline);
        Ok(WorkerClient::new(channel).report(request).await?.into_inner())
    }
}

fn secret(role: NodeRole, id: &str) -> Security {
    Security::with_secret(SECRET, Identity::new("test", role, id)).unwrap()
}

#[tokio::test]
async fn calls_go_over_whatever_network_there_is() {
    let island = Island::new(&Security::open());
    let mut reports = island.reports(&Security::open()).await.unwrap();
    let report = timeout(DEADLINE, reports.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(report.incarnation, island.info.address.incarnation.0);
}

#[tokio::test]
async fn an_address_that_the_network_does_not_know_is_unavailable() {
    let mut island = Island::new(&Security::open());
    island.info.address.uri = "http://10.0.0.9:50051".to_owned();
    let refused = island.reports(&Security::open()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
}

/// The network carries bytes; who is at its ends is proven over it, as over TCP.
#[tokio::test]
async fn members_prove_who_they_are_over_it() {
    let island = Island::new(&secret(NodeRole::Decode, "d-0"));
    assert!(island.reports(&secret(NodeRole::Router, "r-0")).await.is_ok());
    let misplaced = island.reports(&secret(NodeRole::Prefill, "p-0")).await.unwrap_err();
    assert_eq!(misplaced.code(), Code::PermissionDenied, "{misplaced}");
    assert!(island.reports(&Security::open()).await.is_err());
}

#[tokio::test]
async fn its_connections_are_cut_when_the_node_is_gone() {
    let island = Island::new(&Security::open());
    let mut reports = island.reports(&Security::open()).await.unwrap();
    island.node.drain(DEADLINE).await;
    island.node.stop(DEADLINE).await;
    timeout(DEADLINE, island.server).await.expect("an end").unwrap();
    let to_the_end = async { while let Ok(Some(_)) = reports.message().await {} };
    timeout(DEADLINE, to_the_end).await.expect("a stream that ends");
}
