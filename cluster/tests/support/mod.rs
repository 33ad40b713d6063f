//! A worker node with a real server, as far as its peers can tell.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod store;

use std::net::SocketAddr;
use std::time::Duration;

use cluster::rpc::{Listener, Server};
use cluster::testing::worker;
use cluster::{Followers, Lifecycle, ReportService};
use tokio::task::JoinHandle;
use tonic::service::Routes;
use words::{Incarnation, Load, Role, WorkerInfo};

pub(crate) const REPORT_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) struct Worker {
    pub(crate) node: Lifecycle,
    pub(crate) info: WorkerInfo,
    pub(crate) addr: SocketAddr,
    pub(crate) server: JoinHandle<()>,
    pub(crate) followers: Followers,
}

impl Worker {
    pub(crate) async fn start(id: &str, incarnation: u64) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), id, incarnation).await
    }

    pub(crate) async fn start_at(addr: SocketAddr, id: &str, incarnation: u64) -> Self {
        Self::start_in("", addr, id, incarnation).await
    }

    /// A worker of the cluster `namespace`.
    pub(crate) async fn start_in(
        namespace: &str,
        addr: SocketAddr,
        id: &str,
        incarnation: u64,
    ) -> Self {
        let node = Lifecycle::new();
        node.serve();
        let listener = Listener::bind(addr).await.unwrap();
        let addr = listener.local_addr();
        let mut info = worker(id, Role::Decode);
        info.address.incarnation = Incarnation(incarnation);
        info.address.uri = listener.uri("127.0.0.1");
        let load = || Load { running: 3, total_blocks: 8, free_blocks: 5, ..Load::default() };
        let reports = ReportService::start(namespace, &info, load, REPORT_INTERVAL, &node);
        let followers = reports.followers();
        let server = Server::new(listener, &node);
        let routes = Routes::new(reports.into_server());
        let server = tokio::spawn(async move { server.serve(routes).await.unwrap() });
        Self { node, info, addr, server, followers }
    }

    /// Ends like a killed process: connections break, the port closes.
    pub(crate) async fn kill(self) -> WorkerInfo {
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        self.info
    }
}
