//! Who is alive and how busy: one report stream per member.
//!
//! Membership says where workers are; their own streams say how they are. A worker counts as
//! healthy while its reports come, whatever etcd says: one that etcd lost stays for as long as it
//! reports, one that etcd still lists is unhealthy the moment its connection breaks, and one that
//! etcd can't tell of is found where its last life was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use scheduler::ClusterSnapshot;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::report::REPORT_INTERVAL;
use crate::rpc::Channels;
use crate::{Members, Prefixes};

mod attention;
mod member;
mod tracked;
mod watcher;

use watcher::Watcher;

/// Reports waiting for the watcher, from all members: a tenth of a second's worth of a thousand
/// workers. A member that finds it full waits, which only makes its next report newer.
const SIGHTINGS_MAX: usize = 1024;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How closely members are watched.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The cluster whose workers are watched: one of another cluster, met at an address that used to
    /// be a member's, is not taken for a member.
    pub namespace: String,
    /// The interval at which workers report.
    pub report_interval: Duration,
    /// Intervals without a report until a member is unhealthy.
    pub misses_max: u32,
    /// First wait before a broken stream is opened again; doubles up to `retry_limit`.
    pub retry_first: Duration,
    /// Longest wait before a broken stream is opened again.
    pub retry_limit: Duration,
    /// Reports are gathered for this long into one snapshot; changes of health and membership are
    /// published at once.
    pub gather: Duration,
    /// How long the address of a worker that left is remembered: while membership is away, its next
    /// life is looked for there.
    pub remember: Duration,
    /// Where it is noted what members have cached; `None`: they aren't asked.
    pub prefixes: Option<Prefixes>,
}

/// Watches every member's load. Stops when dropped.
#[derive(Debug)]
pub struct LoadWatcher {
    snapshots: watch::Receiver<Arc<ClusterSnapshot>>,
    members: watch::Receiver<Arc<Members>>,
    prefixes: Option<Prefixes>,
    tasks: TaskTracker,
    stop: DropGuard,
}

// === impl LoadConfig ===

impl Default for LoadConfig {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            report_interval: REPORT_INTERVAL,
            // A second: a garbage-collecting hypervisor or a long kernel is not a death.
            misses_max: 10,
            retry_first: Duration::from_millis(50),
            retry_limit: Duration::from_secs(1),
            gather: Duration::from_millis(5),
            // A model of hundreds of gigabytes takes minutes to load.
            remember: Duration::from_secs(15 * 60),
            prefixes: None,
        }
    }
}

impl LoadConfig {
    /// How long a member may be silent.
    fn silence(&self) -> Duration {
        self.report_interval * self.misses_max
    }
}

// === impl LoadWatcher ===

impl LoadWatcher {
    /// Starts to watch the members of `view`. Must be called within the runtime.
    #[must_use]
    pub fn start(
        view: watch::Receiver<Arc<Members>>,
        channels: Channels,
        config: LoadConfig,
    ) -> Self {
        let (publish, snapshots) = watch::channel(Arc::new(ClusterSnapshot::default()));
        let (sightings, inbox) = mpsc::channel(SIGHTINGS_MAX);
        let (stopped, tasks) = (CancellationToken::new(), TaskTracker::new());
        let prefixes = config.prefixes.clone();
        let watcher = Watcher::new(config, channels, tasks.clone(), stopped.clone(), sightings);
        let members = view.clone();
        tasks.spawn(watcher.run(view, inbox, publish));
        Self { snapshots, members, prefixes, tasks, stop: stopped.drop_guard() }
    }

    /// The cluster now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<ClusterSnapshot> {
        self.snapshots.borrow().clone()
    }

    /// The cluster; changes wake the receiver.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<ClusterSnapshot>> {
        self.snapshots.clone()
    }

    /// What the members have cached, where it is known.
    #[must_use]
    pub fn prefixes(&self) -> Option<&Prefixes> {
        self.prefixes.as_ref()
    }

    /// Since when membership can't tell who is there; `None` while it can.
    #[must_use]
    pub fn stale_since(&self) -> Option<Instant> {
        self.members.borrow().stale_since
    }

    /// Stops watching and waits for the streams to close.
    pub async fn close(self) {
        drop(self.stop);
        self.tasks.close();
        // What does not end in time ends with the runtime.
        drop(timeout(CLOSE_TIMEOUT, self.tasks.wait()).await);
    }
}
