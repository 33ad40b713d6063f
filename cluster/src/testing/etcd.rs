//! An etcd process of a test's own.

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

use etcd_client::{Client, Error};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tonic::Code;

use super::{DEADLINE, wait_until};
use crate::EtcdConfig;
use crate::membership::etcd::EtcdTls;

/// Another process may take a port between our finding it free and etcd's binding it.
const START_ATTEMPTS: usize = 5;

/// One etcd member with a data directory of its own. Ends with the value.
#[derive(Debug)]
pub struct Etcd {
    data: TempDir,
    client_port: u16,
    peer_port: u16,
    child: Option<Child>,
    args: Vec<OsString>,
    tls: Option<EtcdTls>,
}

// === impl Etcd ===

impl Etcd {
    /// Starts the `etcd` on the path and waits until it answers.
    ///
    /// # Panics
    /// If there is no `etcd`, or it does not answer.
    pub async fn start() -> Self {
        Self::start_with(Vec::new(), None).await
    }

    /// Starts one with more arguments; with `tls`, these have to make it speak TLS.
    ///
    /// # Panics
    /// If there is no `etcd`, or it does not answer.
    pub async fn start_with(args: Vec<OsString>, tls: Option<EtcdTls>) -> Self {
        for _ in 0..START_ATTEMPTS {
            let mut etcd = Self::prepare(args.clone(), tls.clone());
            etcd.spawn();
            if etcd.answers_or_exits().await {
                return etcd;
            }
        }
        panic!("etcd did not start; is it on the path?");
    }

    /// The endpoint for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// Settings for this etcd with short times: leases of 2 s, retries within 200 ms.
    #[must_use]
    pub fn config(&self) -> EtcdConfig {
        EtcdConfig {
            lease_ttl: Duration::from_secs(2),
            retry_limit: Duration::from_millis(200),
            tls: self.tls.clone(),
            ..EtcdConfig::new([self.endpoint()])
        }
    }

    /// Stops it in order; its data stays.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        self.reap().await;
    }

    /// Kills it; its data stays as it is on disk.
    pub async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.reap().await;
    }

    /// Lets it hang: connections stay open, nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Ends a [`Etcd::pause`].
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Starts it again, after a stop or a kill, on the same ports and data.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn restart(&mut self) {
        assert!(self.child.is_none(), "still running");
        self.spawn();
        assert!(self.answers_or_exits().await, "etcd did not come back");
    }

    /// Kills it and loses its data; [`Etcd::restart`] then starts an empty one.
    ///
    /// # Panics
    /// If the data can't be removed.
    pub async fn wipe(&mut self) {
        self.kill().await;
        self.data = TempDir::new().expect("a temporary directory");
    }

    fn prepare(args: Vec<OsString>, tls: Option<EtcdTls>) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [client_port, peer_port] =
            free.map(|listener| listener.local_addr().expect("an address").port());
        Self { data, client_port, peer_port, child: None, args, tls }
    }

    fn spawn(&mut self) {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let child = Command::new("etcd")
            .arg("--data-dir")
            .arg(self.data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}")])
            // A single member needs no patience with others; it also makes leases of 1 s possible.
            .args(["--heartbeat-interval", "10", "--election-timeout", "100"])
            .args(["--log-level", "fatal"])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("etcd on the path");
        self.child = Some(child);
    }

    async fn answers_or_exits(&mut self) -> bool {
        let config = self.config();
        let child = self.child.as_mut().expect("spawned");
        tokio::select! {
            () = wait_until("etcd", async || answers(&config).await) => true,
            _ = child.wait() => false,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().and_then(Child::id).expect("etcd is running");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id"));
        kill(pid, signal).expect("etcd is ours to signal");
    }

    async fn reap(&mut self) {
        let mut child = self.child.take().expect("etcd is running");
        timeout(DEADLINE, child.wait()).await.expect("etcd ends").expect("etcd is our child");
    }
}

/// Whether it answers at all, if only to ask who we are.
async fn answers(config: &EtcdConfig) -> bool {
    let ask = async {
        let mut client =
            Client::connect(&config.endpoints, Some(config.options().expect("certificates")))
                .await?;
        client.get("baton-probe", None).await
    };
    match timeout(Duration::from_secs(1), ask).await {
        Ok(Ok(_)) => true,
        Ok(Err(Error::GRpcStatus(status))) => status.code() == Code::InvalidArgument,
        Ok(Err(_)) | Err(_) => false,
    }
}
