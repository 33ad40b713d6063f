//! One running `baton` process: its ports, its readiness, its metrics.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;

use crate::client::grpc::Grpc;
use crate::client::http::Client;
use crate::process::{self, Process};
use crate::wait::wait_until;
use crate::watch::metrics::Metrics;

/// From the start of a process to bound ports and a loaded model, on a slow machine.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The ports that a process has bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Listening {
    /// The OpenAI gateway (routers).
    pub http: Option<SocketAddr>,
    /// The gRPC service.
    pub grpc: Option<SocketAddr>,
    /// `/health`, `/ready`, `/metrics`, for operators.
    pub admin: Option<SocketAddr>,
    /// The same of the prefill worker in `baton up`.
    pub prefill_admin: Option<SocketAddr>,
    /// The same of the decode worker in `baton up`.
    pub decode_admin: Option<SocketAddr>,
}

/// How to start a process; a restart starts the same again.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Names the log, and the worker.
    pub name: String,
    /// Subcommand and options, without `--ports-file`.
    pub args: Vec<OsString>,
    /// Its log and its ports file.
    pub folder: PathBuf,
    /// As `ulimit -n` would have it.
    pub descriptors_max: Option<u32>,
}

/// A `baton` process.
#[derive(Debug)]
pub struct Node {
    spec: NodeSpec,
    process: Process,
    ports: Listening,
}

/// What a process announces.
#[derive(Deserialize)]
struct Announcement {
    listening: Listening,
}

// === impl NodeSpec ===

impl NodeSpec {
    /// A process called `name` with these arguments, keeping its files in `folder`.
    pub fn new<S: Into<OsString>>(
        name: &str,
        folder: &Path,
        args: impl IntoIterator<Item = S>,
    ) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        Self { name: name.to_owned(), args, folder: folder.to_owned(), descriptors_max: None }
    }

    fn ports_file(&self) -> PathBuf {
        self.folder.join(format!("{}.ports.json", self.name))
    }

    fn spawn(&self) -> Process {
        // What an earlier life wrote must not be taken for this one's.
        let _ = fs::remove_file(self.ports_file());
        let mut args = self.args.clone();
        args.extend(["--ports-file".into(), self.ports_file().into_os_string()]);
        let (program, args) = match self.descriptors_max {
            None => (process::baton(), args),
            Some(most) => limited(most, args),
        };
        Process::start(&self.name, &program, args, &self.folder)
    }
}

// === impl Node ===

impl Node {
    /// Starts a process and waits until its ports are bound; it may still be loading.
    ///
    /// # Panics
    /// If it ends, or binds nothing in time.
    pub async fn start(spec: NodeSpec) -> Self {
        let mut process = spec.spawn();
        let ports = bound_ports(&spec, &mut process).await;
        Self { spec, process, ports }
    }

    /// Starts it again after its end: same name, same arguments, other ports.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart(&mut self) {
        self.restart_as(self.spec.clone()).await;
    }

    /// Starts another life of it.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn restart_as(&mut self, spec: NodeSpec) {
        self.process.kill();
        self.process = spec.spawn();
        self.spec = spec;
        self.ports = bound_ports(&self.spec, &mut self.process).await;
    }

    /// Waits until it says that it takes work.
    ///
    /// # Panics
    /// If it ends, or is not ready in time.
    pub async fn ready(&mut self) {
        let url = format!("http://{}/ready", self.status_addr());
        let (name, http) = (self.spec.name.clone(), reqwest::Client::new());
        let process = Mutex::new(&mut self.process);
        wait_until(&format!("{name} to be ready"), START_PATIENCE, || async {
            process.lock().assert_running();
            let answer = http.get(&url).send().await.map_err(|error| error.to_string())?;
            if answer.status().is_success() {
                return Ok(());
            }
            Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()))
        })
        .await;
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> Listening {
        self.ports
    }

    /// An OpenAI client of this router.
    ///
    /// # Panics
    /// If it has no HTTP port.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.ports.http.expect("the router's HTTP port"))
    }

    /// A gRPC client of this router.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub async fn grpc(&self) -> Grpc {
        Grpc::connect(self.ports.grpc.expect("the router's gRPC port")).await
    }

    /// The process itself: kill, freeze, read its log.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Asks it to leave (SIGTERM) and waits for its end.
    ///
    /// # Panics
    /// If it is still there after `patience`.
    pub async fn leave(&mut self, patience: Duration) -> ExitStatus {
        self.process.terminate();
        self.process.exited(patience).await
    }

    /// What `/metrics` says now.
    ///
    /// # Panics
    /// If it does not answer.
    pub async fn metrics(&self) -> Metrics {
        Metrics::scrape(self.name(), self.status_addr()).await
    }

    /// Where `/ready` and `/metrics` are.
    ///
    /// # Panics
    /// If it has no such port.
    #[must_use]
    pub fn status_addr(&self) -> SocketAddr {
        self.ports.admin.or(self.ports.http).expect("a port for /ready and /metrics")
    }
}

/// The program behind a shell that lowers its limit, and becomes it.
fn limited(descriptors_max: u32, args: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
    let script = format!("ulimit -n {descriptors_max}; exec \"$0\" \"$@\"");
    let shell = ["-c".into(), script.into(), process::baton().into_os_string()];
    ("/bin/sh".into(), shell.into_iter().chain(args).collect())
}

async fn bound_ports(spec: &NodeSpec, process: &mut Process) -> Listening {
    let (file, process) = (spec.ports_file(), Mutex::new(process));
    wait_until(&format!("{} to bind its ports", spec.name), START_PATIENCE, || async {
        process.lock().assert_running();
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        // Written atomically: a file that is there is whole.
        let announced: Announcement =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        Ok(announced.listening)
    })
    .await
}
