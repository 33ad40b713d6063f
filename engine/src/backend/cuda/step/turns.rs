//! Turns on a GPU, where engines of several processes work on it.
//!
//! The driver lets processes have the GPU in slices of time. Where two engines are always at work, a
//! step of either lasts as long as both together, and a tenth of the time is lost in between (H100:
//! decode steps of 8.5 ms took 18 to 25). Engines that take turns, a step each, have steps of their
//! usual length, and a wait that is known: one step of the other's.
//!
//! A turn is a lock on a file, and so is the place at the door: who wants a turn first takes that, and
//! waits there. So nobody has two turns in a row while another waits, and the locks of a process that
//! dies are free. Turns are a courtesy: who has waited for long goes ahead without.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::backend::cuda::driver::device::Device;
use crate::backend::cuda::options::CudaOptions;
use crate::neighbours::Neighbours;

/// How long a turn is waited for: the other may hang. Steps of engines that share take far less.
const PATIENCE: Duration = Duration::from_millis(500);

/// For how long nothing is waited for once that was in vain: who hangs costs the others one wait, not
/// one a step.
const IMPATIENT_FOR: Duration = Duration::from_secs(10);

/// How often a lock is tried.
const LOOK_EVERY: Duration = Duration::from_micros(30);

/// A step may spend this much on asking whether others wait: local file systems take some microseconds.
const LOCK_TIME_MAX: Duration = Duration::from_micros(200);

/// One engine's turns.
#[derive(Debug)]
pub(crate) struct Turns {
    door: File,
    turn: File,
    is_mine: bool,
    neighbours: Neighbours,
    /// When a turn was last waited for in vain.
    gave_up: Option<Instant>,
}

// === impl Turns ===

impl Turns {
    /// Turns with other processes' engines that take theirs in the same folder. None where MPS
    /// lets them work at the same time, and none with engines of this process, which have a partition.
    pub(crate) fn with_others(device: &Device, options: &CudaOptions) -> Option<Self> {
        let folder = options.turns.as_ref().filter(|_| options.partition.is_none())?;
        if device.is_shared_by_mps() {
            return None;
        }
        let turns = device.uuid().ok().map(|gpu| Self::open(folder, &gpu))?;
        turns.inspect_err(|why| tracing::debug!(%why, "no turns with other processes")).ok()
    }

    /// Turns on the GPU of this name, with all that use the same folder.
    ///
    /// # Errors
    /// If the files can't be made, or locks cost what turns would save: over a network they do.
    fn open(folder: &Path, gpu: &str) -> std::io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |what: &str| {
            let file = folder.join(format!("gpu-{gpu}.{what}"));
            File::options().create(true).truncate(false).write(true).open(file)
        };
        let (door, turn) = (open("door")?, open("turn")?);
        let neighbours = Neighbours::default();
        let turns = Self { door, turn, is_mine: false, neighbours, gave_up: None };
        let took = turns.lock_time();
        if took > LOCK_TIME_MAX {
            return Err(std::io::Error::other(format!("a lock takes {took:?} there")));
        }
        Ok(turns)
    }

    /// What a lock and its release take, the best of a few.
    fn lock_time(&self) -> Duration {
        let once = |_| {
            let since = Instant::now();
            if try_lock(&self.door) {
                unlock(&self.door);
            }
            since.elapsed()
        };
        (0..5).map(once).min().unwrap_or_default()
    }

    /// Whom they are taken with.
    pub(crate) fn neighbours(&self) -> Neighbours {
        self.neighbours.clone()
    }

    /// Waits for a turn, or looks whether others wait for this engine's to end.
    pub(crate) fn begin(&mut self) {
        let since = Instant::now();
        let is_patient = self.gave_up.is_none_or(|when| when.elapsed() >= IMPATIENT_FOR);
        let mut are_others = false;
        let mut lock = |file, waits: bool| {
            let is_free = try_lock(file);
            are_others |= !is_free;
            is_free || waits && is_patient && lock_within(file, since)
        };
        let at_door = lock(&self.door, !self.is_mine);
        self.is_mine = self.is_mine || at_door && lock(&self.turn, true);
        if at_door {
            unlock(&self.door);
        }
        if !self.is_mine && is_patient {
            self.gave_up = Some(Instant::now());
        }
        if are_others && self.neighbours.saw_one() {
            tracing::info!("another process works on this GPU: steps take turns, and are short");
        }
    }

    /// Lets others have their turn.
    pub(crate) fn end(&mut self) {
        if std::mem::take(&mut self.is_mine) {
            unlock(&self.turn);
        }
    }
}

/// A file system without locks has nobody wait.
fn try_lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock))
}

fn lock_within(file: &File, since: Instant) -> bool {
    while since.elapsed() < PATIENCE {
        // Nobody wakes a thread that waits for a file's lock for a limited time.
        std::thread::park_timeout(LOOK_EVERY);
        if try_lock(file) {
            return true;
        }
    }
    false
}

fn unlock(file: &File) {
    // What isn't locked needs no unlocking.
    let _ = file.unlock();
}

#[cfg(test)]
mod tests {
    use std::sync::{Barrier, Mutex};
    use std::thread;

    use super::*;

    fn open(folder: &Path) -> Turns {
        Turns::open(folder, "test").expect("a temporary folder")
    }

    #[test]
    fn who_is_alone_keeps_its_turn_and_knows_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut turns = open(folder.path());
        for _ in 0..3 {
            turns.begin();
            turns.begin();
            turns.end();
        }
        assert!(!turns.neighbours.are_at_work());
    }

    #[test]
    fn engines_that_always_want_a_turn_alternate() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (taken, both) = (Mutex::new(Vec::new()), Barrier::new(2));
        thread::scope(|scope| {
            for engine in 0..2 {
                let mut turns = open(folder.path());
                let (taken, both) = (&taken, &both);
                scope.spawn(move || {
                    both.wait();
                    for _ in 0..30 {
                        turns.begin();
                        assert!(turns.is_mine);
                        taken.lock().expect("no panic").push(engine);
                        thread::park_timeout(Duration::from_millis(2));
                        turns.end();
                    }
                    assert!(turns.neighbours.are_at_work());
                });
            }
        });
        let taken = taken.into_inner().expect("no panic");
        let in_a_row = taken.windows(2).filter(|pair| pair[0] == pair[1]).count();
        // All but where one was kept from the door by the machine's other work.
        assert!(in_a_row < 15, "{in_a_row} of {} follow their own: {taken:?}", taken.len());
    }

    #[test]
    fn one_that_works_without_a_pause_learns_that_others_wait() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut busy, mut other) = (open(folder.path()), open(folder.path()));
        busy.begin();
        let waiting = thread::spawn(move || {
            other.begin();
            other.is_mine
        });
        let deadline = Instant::now() + PATIENCE / 2;
        while !busy.neighbours.are_at_work() && Instant::now() < deadline {
            busy.begin();
            thread::park_timeout(Duration::from_millis(1));
        }
        assert!(busy.neighbours.are_at_work());
        busy.end();
        assert!(waiting.join().expect("no panic"), "it got its turn");
    }

    #[test]
    fn patience_ends_and_the_dead_hold_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut hangs, mut other) = (open(folder.path()), open(folder.path()));
        hangs.begin();
        let since = Instant::now();
        other.begin();
        assert!(since.elapsed() >= PATIENCE && !other.is_mine);
        let since = Instant::now();
        other.begin();
        assert!(since.elapsed() < PATIENCE / 2 && !other.is_mine, "it waits once, not each time");
        drop(hangs);
        other.begin();
        assert!(other.is_mine);
    }
}
