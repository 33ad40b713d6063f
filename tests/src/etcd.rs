//! A real etcd, which can be stopped and brought back.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::process::Process;
use crate::wait::wait_until;

/// Ports to look for a free one in: below those that the system gives to outgoing connections, so
/// that none is taken while etcd is stopped and has to come back to the same place.
const PORTS: std::ops::Range<u16> = 20_000..30_000;
const START_PATIENCE: Duration = Duration::from_secs(20);

/// One etcd member of its own cluster.
#[derive(Debug)]
pub struct Etcd {
    process: Option<Process>,
    folder: PathBuf,
    client_port: u16,
    peer_port: u16,
}

// === impl Etcd ===

impl Etcd {
    /// Starts one with its data in `folder`, and waits until it answers.
    ///
    /// # Panics
    /// If etcd is not installed or does not come up.
    pub async fn start(folder: &Path) -> Self {
        let mut etcd = Self {
            process: None,
            folder: folder.to_owned(),
            client_port: free_port(),
            peer_port: free_port(),
        };
        etcd.resume().await;
        etcd
    }

    /// `http://host:port` for clients.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    /// Where clients find it, on this machine.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// Kills it. Its data stay.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Kills it and its data: it will come back knowing nobody.
    ///
    /// # Panics
    /// If the data cannot be removed.
    pub fn lose_everything(&mut self) {
        self.stop();
        std::fs::remove_dir_all(self.folder.join("etcd")).expect("etcd's data");
    }

    /// Starts it again, at the same address and with the same data.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn resume(&mut self) {
        self.process = Some(self.spawn());
        let url = format!("{}/health", self.endpoint());
        let http = reqwest::Client::new();
        wait_until("etcd", START_PATIENCE, || async {
            if let Some(process) = &self.process
                && process.log_text().contains("address already in use")
            {
                panic!("somebody took etcd's port:\n{}", process.tail());
            }
            let answer = http.get(&url).send().await.map_err(|error| error.to_string())?;
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if text.contains(r#""health":"true""#) { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// Stops it where it stands, if it is running.
    pub fn freeze(&self) {
        self.process.iter().for_each(Process::freeze);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.process.iter().for_each(Process::thaw);
    }

    /// Whether it is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn spawn(&self) -> Process {
        let (client, peer) = (self.endpoint(), format!("http://127.0.0.1:{}", self.peer_port));
        let args = [
            "--name=test".to_owned(),
            format!("--data-dir={}", self.folder.join("etcd").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=test={peer}"),
            "--logger=zap".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        Process::start("etcd", Path::new("etcd"), args, &self.folder)
    }
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = PORTS.end - PORTS.start;
    // Other test programs look elsewhere first.
    let offset = (process::id() % u32::from(span)) as u16;
    (0..span)
        .map(|_| NEXT.fetch_add(1, Ordering::Relaxed))
        .map(|step| PORTS.start + (offset + step % span) % span)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}
