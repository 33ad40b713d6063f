//! The cluster: two routers, two workers of each kind, etcd, and a wire to each.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::ledger::{Ledger, Nature};
use super::plan::{Event, Fault, SEATS, Target};
use super::tally::Tally;
use super::vitals::Vitals;
use super::wire::{Weather, Wire};
use crate::cluster::{Folder, assert_clean, sees_workers};
use crate::etcd::{Etcd, free_port};
use crate::model::TestModel;
use crate::node::{Node, NodeSpec};
use crate::security::{Keyring, Lock};

/// Where nodes listen, and where the others see them: in between is a wire.
const NODES: Ipv4Addr = Ipv4Addr::LOCALHOST;
const WIRES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const LEASE_TTL_S: u32 = 3;
/// Small enough for caches to evict and for sequences to wait.
const KV_BLOCKS: u32 = 224;
/// Longer than a node may take to leave.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);
/// Threads that are kept for blocking work end after ten idle seconds.
const IDLE_PATIENCE: Duration = Duration::from_secs(20);

/// All of it, at the mercy of a plan.
pub(super) struct House {
    seats: BTreeMap<Target, Seat>,
    etcd: tokio::sync::Mutex<Etcd>,
    etcd_wire: Wire,
    pub(super) model: TestModel,
    pub(super) ledger: Arc<Ledger>,
    tally: Arc<Tally>,
    recipe: Recipe,
    folder: Folder,
}

/// A node's place: its lives come and go.
struct Seat {
    node: tokio::sync::Mutex<Node>,
    ports: Mutex<Vec<u16>>,
    wires: Mutex<Vec<Wire>>,
}

/// How nodes are started.
struct Recipe {
    seed: u64,
    keyring: Keyring,
    shared: Vec<String>,
    folder: std::path::PathBuf,
}

// === impl Recipe ===

impl Recipe {
    fn spec(&self, target: Target, ports: &[u16]) -> NodeSpec {
        let at = |port: &u16| format!("{NODES}:{port}");
        let mut args: Vec<String> = match (target, ports) {
            (Target::Router(_), [http, grpc]) => {
                let (http, grpc) = (at(http), at(grpc));
                let patience = ["--ttft-target-ms", "600000", "--tpot-target-ms", "600000"];
                let mut args = vec!["router".into(), "--http".into(), http, "--grpc".into(), grpc];
                args.extend(patience.map(str::to_owned));
                // One hands over whatever it costs, the other where it pays.
                let handoff = if target == Target::Router(0) { "always" } else { "auto" };
                args.extend(["--handoff", handoff, "--gateway-tls", "false"].map(str::to_owned));
                args
            }
            (_, [port, ..]) => self.worker(target, &at(port)),
            (_, []) => panic!("{target:?} has no port"),
        };
        args.extend(["--admin".to_owned(), format!("{NODES}:0")]);
        args.extend(self.keyring.flags(target.role(), &target.name()));
        args.extend(self.shared.iter().cloned());
        NodeSpec::new(&target.name(), &self.folder, args)
    }

    fn worker(&self, target: Target, listen: &str) -> Vec<String> {
        let role = format!("{}-worker", target.role());
        let (name, seen) = (target.name(), WIRES.to_string());
        let blocks = KV_BLOCKS.to_string();
        [&role, "--id", &name, "--listen", listen, "--advertise-host", &seen]
            .into_iter()
            // Several engines share the machine's cores.
            .chain(["--threads", "1", "--kv-blocks", &blocks])
            .map(str::to_owned)
            .collect()
    }

    async fn wires(&self, ports: &[u16]) -> Vec<Wire> {
        let mut wires = Vec::new();
        for &port in ports {
            let (near, far) = (SocketAddr::from((WIRES, port)), SocketAddr::from((NODES, port)));
            wires.push(Wire::start(near, far, self.seed ^ u64::from(port)).await);
        }
        wires
    }

    async fn seat(&self, target: Target) -> Seat {
        let ports: Vec<u16> = if matches!(target, Target::Router(_)) {
            vec![free_port(), free_port()]
        } else {
            vec![free_port()]
        };
        if self.keyring.lock() == Lock::Certificates {
            self.keyring.issue(target.role(), &target.name(), 2);
        }
        let wires = Mutex::new(self.wires(&ports).await);
        let node = tokio::sync::Mutex::new(Node::start(self.spec(target, &ports)).await);
        Seat { node, ports: Mutex::new(ports), wires }
    }
}

// === impl House ===

impl House {
    /// Starts it and waits until every router knows every worker.
    ///
    /// # Panics
    /// If something does not come up.
    pub(super) async fn start(seed: u64, tally: Arc<Tally>) -> Self {
        let folder = Folder::new().await;
        let model = TestModel::random(folder.path());
        let etcd = Etcd::start(folder.path()).await;
        let lock = [Lock::Open, Lock::Secret, Lock::Certificates][(seed % 3) as usize];
        let etcd_at = SocketAddr::from((WIRES, etcd.port()));
        let etcd_wire = Wire::start(etcd_at, (NODES, etcd.port()).into(), seed).await;
        let mut shared = vec!["--etcd".to_owned(), format!("http://{etcd_at}")];
        shared.extend(["--namespace", "test", "--lease-ttl-s"].map(str::to_owned));
        shared.push(LEASE_TTL_S.to_string());
        shared.extend(model.args());
        let keyring = Keyring::new(lock, folder.path());
        let recipe = Recipe { seed, keyring, shared, folder: folder.path().to_owned() };
        let mut seats = BTreeMap::new();
        for index in 0..SEATS {
            for target in [Target::Prefill(index), Target::Decode(index), Target::Router(index)] {
                seats.insert(target, recipe.seat(target).await);
            }
        }
        for seat in seats.values() {
            seat.node.lock().await.ready().await;
        }
        let etcd = tokio::sync::Mutex::new(etcd);
        let ledger = Arc::default();
        let house = Self { seats, etcd, etcd_wire, model, ledger, tally, recipe, folder };
        house.routers_see_all().await;
        house
    }

    /// Each router, and where clients find its HTTP and its gRPC.
    pub(super) fn doors(&self) -> Vec<(Target, SocketAddr, SocketAddr)> {
        let routers = (0..SEATS).map(Target::Router);
        let at = |port: u16| SocketAddr::from((WIRES, port));
        routers
            .map(|router| {
                let ports = self.seats[&router].ports.lock();
                (router, at(ports[0]), at(ports[1]))
            })
            .collect()
    }

    /// Lets a fault happen, from its beginning until it is over; a fault that would take the last of a kind
    /// is left out.
    pub(super) async fn suffer(&self, event: Event) {
        let Event { target, fault, .. } = event;
        if let Fault::Rude(mischief) = fault {
            self.tally.hit(target.name(), fault.kind());
            let ports = self.seats[&target].ports.lock().clone();
            let [http, grpc] = [ports[0], ports[1]].map(|port| SocketAddr::from((NODES, port)));
            if let Err(what) = mischief.play(http, grpc).await {
                self.tally.found(format!("{mischief:?}: {what}"));
            }
            return;
        }
        let parts = !matches!(fault, Fault::Freeze(_) | Fault::Weather(..));
        if !self.ledger.begin(target, Nature { parts, takes_all: event.takes_all }) {
            self.tally.spare();
            return;
        }
        let hits = [(target, fault), (target.other(), fault.beside())];
        let hits = hits.into_iter().take(if event.takes_all { 2 } else { 1 });
        join_all(hits.map(|(target, fault)| self.recovers(target, fault))).await;
        self.ledger.end(target);
    }

    async fn recovers(&self, target: Target, fault: Fault) {
        self.tally.hit(target.name(), fault.kind());
        let done = AssertUnwindSafe(self.strike(target, fault)).catch_unwind().await;
        if done.is_err() {
            self.tally.found(format!("{} did not recover from being {fault}", target.name()));
        }
    }

    async fn strike(&self, target: Target, fault: Fault) {
        if target == Target::Etcd {
            return self.strike_etcd(fault).await;
        }
        let seat = &self.seats[&target];
        let mut node = seat.node.lock().await;
        // The pauses below are the scenario, not a way of waiting.
        match fault {
            Fault::Kill { down, moves } => {
                node.kill();
                if moves {
                    seat.move_out(&self.recipe, &self.tally).await;
                }
                sleep(down).await;
                let spec = self.recipe.spec(target, &seat.ports.lock());
                node.restart_as(spec).await;
                node.ready().await;
            }
            Fault::Flap(lives) => {
                for _ in 0..lives {
                    // Killed again as soon as its ports are bound.
                    node.restart().await;
                }
                node.ready().await;
            }
            Fault::Drain => {
                let status = node.leave(LEAVE_PATIENCE).await;
                assert!(status.success(), "{} ended with {status}", target.name());
                node.restart().await;
                node.ready().await;
            }
            Fault::Freeze(time) => {
                node.process().freeze();
                sleep(time).await;
                node.process().thaw();
            }
            Fault::Weather(weather, time) => {
                seat.weather(weather);
                sleep(time).await;
                seat.weather(Weather::Fair);
            }
            Fault::Cut { is_reset } => seat.wires.lock().iter().for_each(|wire| wire.cut(is_reset)),
            Fault::Wipe(_) | Fault::Rude(_) => unreachable!("{fault} is not for a node's process"),
        }
    }

    async fn strike_etcd(&self, fault: Fault) {
        let mut etcd = self.etcd.lock().await;
        match fault {
            Fault::Kill { down, .. } => {
                etcd.stop();
                sleep(down).await;
                etcd.resume().await;
            }
            Fault::Wipe(down) => {
                etcd.lose_everything();
                sleep(down).await;
                etcd.resume().await;
            }
            Fault::Freeze(time) => {
                etcd.freeze();
                sleep(time).await;
                etcd.thaw();
            }
            Fault::Weather(weather, time) => {
                self.etcd_wire.weather(weather);
                sleep(time).await;
                self.etcd_wire.weather(Weather::Fair);
            }
            Fault::Cut { is_reset } => self.etcd_wire.cut(is_reset),
            _ => unreachable!("{fault} is not for etcd"),
        }
    }

    /// Checks that all nodes are there, know each other and hold nothing; what isn't so is noted.
    pub(super) async fn rests(&self) {
        for (target, seat) in &self.seats {
            if let Some(status) = seat.node.lock().await.process().exit_status() {
                self.tally.found(format!("{} ended by itself: {status}", target.name()));
            }
            seat.count_flips(&self.tally);
        }
        let checks = async {
            self.routers_see_all().await;
            for (target, seat) in &self.seats {
                let node = seat.node.lock().await;
                if !matches!(target, Target::Router(_)) {
                    assert_clean(node.name(), node.status_addr()).await;
                }
            }
        };
        if AssertUnwindSafe(checks).catch_unwind().await.is_err() {
            self.tally.found("the cluster does not come to rest".to_owned());
        }
    }

    /// What each process holds, once it holds no more than it should, or has had the time.
    pub(super) async fn vitals(
        &self,
        first: impl Fn(u32) -> Option<Vitals>,
    ) -> Vec<(Target, u32, Vitals)> {
        let started = std::time::Instant::now();
        loop {
            let now = self.vitals_now().await;
            let is_over = |(_, id, vitals): &(_, u32, Vitals)| {
                first(*id).is_some_and(|first| vitals.excess(&first).is_some())
            };
            if !now.iter().any(is_over) || started.elapsed() > IDLE_PATIENCE {
                return now;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The same, as it is.
    pub(super) async fn vitals_now(&self) -> Vec<(Target, u32, Vitals)> {
        let mut all = Vec::new();
        for (target, seat) in &self.seats {
            let id = seat.node.lock().await.process().id();
            all.extend(Vitals::of(id).map(|vitals| (*target, id, vitals)));
        }
        all
    }

    /// Where logs are.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Leaves them there.
    pub(super) fn keep_logs(&mut self) {
        self.folder.keep();
    }

    async fn routers_see_all(&self) {
        for index in 0..SEATS {
            let router = self.seats[&Target::Router(index)].node.lock().await;
            sees_workers(&router, SEATS, SEATS).await;
        }
    }
}

// === impl Seat ===

impl Seat {
    /// Gives up its ports and wires for others.
    async fn move_out(&self, recipe: &Recipe, tally: &Tally) {
        self.count_flips(tally);
        let ports: Vec<u16> = self.ports.lock().iter().map(|_| free_port()).collect();
        let wires = recipe.wires(&ports).await;
        *self.ports.lock() = ports;
        *self.wires.lock() = wires;
    }

    fn weather(&self, weather: Weather) {
        self.wires.lock().iter().for_each(|wire| wire.weather(weather));
    }

    fn count_flips(&self, tally: &Tally) {
        self.wires.lock().iter().for_each(|wire| tally.flipped(wire.take_flips()));
    }
}
