//! What a process takes of its machine, and whether that grows.

use std::fmt;
use std::fs;

/// At rest, a process may hold so much more than at its first rest before it counts as growing: an allocator's
/// arenas, and connections to nodes that were away then.
const RSS_GROWTH_MAX: f64 = 0.25;
const RSS_SLACK_KIB: u64 = 16 << 10;
const DESCRIPTORS_SLACK: u64 = 16;
const THREADS_SLACK: u64 = 4;
/// Over many rests, memory may rise by so much from one to the next, by least squares: what it takes to be seen beside an
/// allocator's own ups and downs of some MiB.
const RSS_SLOPE_MAX_KIB: f64 = 2048.0;
/// The first rests say what an allocator keeps for the crowds to come: each meets a larger one for the first time.
const RESTS_BEFORE_SLOPE: usize = 2;
/// Rests after those before a slope says anything.
const SLOPE_RESTS_MIN: usize = 4;

/// What one process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Memory.
    pub rss_kib: u64,
    /// Files, sockets, pipes.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// One process, at each rest since it was warm.
#[derive(Clone, Debug)]
pub struct Pulse {
    /// Whose.
    pub name: String,
    /// Its number in the system: a later life is another process.
    pub process: u32,
    /// What it held.
    pub rests: Vec<Vitals>,
}

// === impl Vitals ===

impl Vitals {
    /// Of a process that is there; `None` where the system has no `/proc`.
    #[must_use]
    pub fn of(process: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
        Some(Self { rss_kib: number("VmRSS:")?, descriptors, threads: number("Threads:")? })
    }

    /// What of it is more than a process like `first` may come to.
    #[must_use]
    pub fn excess(&self, first: &Self) -> Option<String> {
        let rss_max =
            first.rss_kib + (first.rss_kib as f64 * RSS_GROWTH_MAX) as u64 + RSS_SLACK_KIB;
        let limits = [
            ("KiB of memory", self.rss_kib, rss_max),
            ("descriptors", self.descriptors, first.descriptors + DESCRIPTORS_SLACK),
            ("threads", self.threads, first.threads + THREADS_SLACK),
        ];
        let over = limits.into_iter().find(|(_, now, max)| now > max);
        over.map(|(what, now, max)| format!("{now} {what}, at most {max} were allowed"))
    }
}

impl fmt::Display for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.rss_kib as f64 / 1024.0;
        write!(f, "{mib:7.1} MiB {:4} fds {:3} threads", self.descriptors, self.threads)
    }
}

// === impl Pulse ===

impl Pulse {
    /// Why it is not flat, if it isn't.
    #[must_use]
    pub fn growth(&self) -> Option<String> {
        let (first, last) = (self.rests.first()?, self.rests.last()?);
        let excess = last.excess(first);
        excess.or_else(|| {
            let slope = self.rss_slope_kib().filter(|slope| *slope > RSS_SLOPE_MAX_KIB)?;
            Some(format!("{slope:.0} KiB more memory at each rest"))
        })
    }

    /// Of memory, from one rest to the next.
    fn rss_slope_kib(&self) -> Option<f64> {
        let rests = self.rests.get(RESTS_BEFORE_SLOPE..)?;
        let count = rests.len();
        if count < SLOPE_RESTS_MIN {
            return None;
        }
        let middle = (count - 1) as f64 / 2.0;
        let mean = rests.iter().map(|rest| rest.rss_kib as f64).sum::<f64>() / count as f64;
        let (mut above, mut below) = (0.0, 0.0);
        for (index, rest) in rests.iter().enumerate() {
            let from_middle = index as f64 - middle;
            above += from_middle * (rest.rss_kib as f64 - mean);
            below += from_middle * from_middle;
        }
        Some(above / below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(rests: impl IntoIterator<Item = (u64, u64, u64)>) -> Pulse {
        let vitals =
            |(mib, descriptors, threads)| Vitals { rss_kib: mib << 10, descriptors, threads };
        Pulse { name: "d0".into(), process: 1, rests: rests.into_iter().map(vitals).collect() }
    }

    #[test]
    fn what_goes_up_and_down_is_flat() {
        assert_eq!(pulse([60, 70, 61, 66, 62, 65].map(|mib| (mib, 20, 9))).growth(), None);
    }

    #[test]
    fn what_an_allocator_takes_at_first_is_no_growth() {
        assert_eq!(pulse([60, 68, 70, 71, 70, 71].map(|mib| (mib, 20, 9))).growth(), None);
    }

    #[test]
    fn what_grows_is_named() {
        let growth = |last| pulse([(60, 20, 9), last]).growth().unwrap_or_default();
        assert!(growth((100, 20, 9)).contains("memory"));
        assert!(growth((60, 37, 9)).contains("descriptors"));
        assert!(growth((60, 20, 14)).contains("threads"));
        // Slowly, within the limits of a short run.
        let slowly = pulse([60, 63, 66, 69, 72, 75].map(|mib| (mib, 20, 9))).growth();
        assert!(slowly.is_some_and(|growth| growth.contains("each rest")));
    }

    #[test]
    fn this_process_has_vitals() {
        let Some(own) = Vitals::of(std::process::id()) else { return };
        assert!(own.rss_kib > 100 && own.descriptors > 2 && own.threads > 0, "{own}");
    }
}
