//! What goes wrong in a world, from its beginning to its end.

use super::World;
use crate::network::{HostId, Network, Quality};
use crate::plan::What;

// === impl World ===

impl World {
    pub(super) fn begin(&mut self, what: &What) {
        self.note(what);
        match *what {
            What::Kill(host, clock_ms) => {
                self.kill(host);
                self.machine(host).clock_ms += clock_ms;
            }
            What::Dark(host) => {
                self.network.set_powered(host, false);
                self.kill(host);
            }
            What::Stop(host) => {
                if let Some(process) = &mut self.machine(host).process {
                    process.stop();
                }
            }
            What::Clock(host, clock_ms) => self.machine(host).clock_ms += clock_ms,
            What::Leave(host) => self.machine(host).leave.cancel(),
            What::Update(host) => {
                let machine = self.machine(host);
                machine.part = machine.part.updated();
                machine.leave.cancel();
            }
            What::Cut(from, to) => self.network.cut(from, to),
            What::Isolate(host) => self.ways_of(host, Network::cut),
            What::Bad(from, to, quality) => self.network.set_quality(from, to, quality),
            What::Wipe(etcd) => {
                self.kill(etcd);
                self.disk.wipe();
            }
            What::Restore(etcd) => {
                self.kill(etcd);
                self.disk.restore(&self.backup);
            }
        }
    }

    pub(super) fn end(&mut self, what: &What) {
        match *what {
            What::Kill(host, _) | What::Wipe(host) | What::Restore(host) => self.start(host),
            What::Dark(host) => {
                self.network.set_powered(host, true);
                self.start(host);
            }
            What::Stop(host) => {
                let now = self.now;
                if let Some(process) = &mut self.machine(host).process {
                    process.go_on(now);
                }
            }
            What::Clock(..) | What::Leave(_) | What::Update(_) => {}
            What::Cut(from, to) => self.network.mend(from, to),
            What::Isolate(host) => self.ways_of(host, Network::mend),
            What::Bad(from, to, _) => self.network.set_quality(from, to, Quality::default()),
        }
    }

    /// Does something to each way from and to a host.
    fn ways_of(&self, host: HostId, change: impl Fn(&Network, HostId, HostId)) {
        for other in self.machines.iter().map(|machine| machine.host).filter(|it| *it != host) {
            change(&self.network, host, other);
            change(&self.network, other, host);
        }
    }

    /// Notes what happens to whom.
    fn note(&mut self, what: &What) {
        for host in what.hosts() {
            let part = self.machine(host).part.name();
            self.coverage.reached(format!("{}: {part}", what.name()));
        }
    }
}
