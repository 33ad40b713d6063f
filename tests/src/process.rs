//! A child process with a log, that does not outlive its test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// How much of a log a failed test shows.
const TAIL_LINES: usize = 40;

/// A running program. Dropping it kills it, and shows the end of its log if the test is failing.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

// === impl Process ===

impl Process {
    /// Starts `program`; stdout and stderr go to `{folder}/{name}.log`, appended.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        args: impl IntoIterator<Item = S>,
        folder: &Path,
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("a log file");
        let err = out.try_clone().expect("a second handle on the log");
        let child = Command::new(program)
            .args(args)
            // The reference backend, also where there is a GPU: tokens are compared bit for bit.
            .env("BATON_ENGINE__DEVICE", "cpu")
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Self { name: name.to_owned(), child, log }
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to leave.
    ///
    /// # Panics
    /// If it is not there any more.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends what daemons take for the wish to read their files again.
    pub fn hang_up(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// Stops it where it stands, as a frozen machine would, until [`Process::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Its number in the system.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it is still there after `patience`.
    pub async fn exited(&mut self, patience: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.exit_status() {
                return status;
            }
            assert!(start.elapsed() < patience, "{} is still there after {patience:?}", self.name);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Fails the test if it has ended.
    ///
    /// # Panics
    /// If it has; the message shows the end of its log.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.exit_status() {
            panic!("{} ended by itself ({status}):\n{}", self.name, self.tail());
        }
    }

    /// The last lines of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log_text();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// All that it has written.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until its log holds `text`.
    ///
    /// # Panics
    /// If it does not within `patience`.
    pub async fn logged(&self, text: &str, patience: Duration) {
        let what = format!("{text:?} in the log of {}", self.name);
        wait_until(&what, patience, || async {
            self.log_text().contains(text).then_some(()).ok_or_else(|| self.tail())
        })
        .await;
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- end of {} ---\n{}\n", self.log.display(), self.tail());
        }
    }
}

/// The `baton` program: `$BATON_BIN`, or the one beside the test programs.
///
/// # Panics
/// If it is not there; the message says how to build it.
#[must_use]
pub fn baton() -> PathBuf {
    if let Ok(path) = std::env::var("BATON_BIN") {
        return path.into();
    }
    // Tests are at `target/{profile}/deps/{name}-{hash}`, programs one folder up.
    let test = std::env::current_exe().expect("this test's own path");
    let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let program = folder.expect("a folder of programs").join("baton");
    assert!(
        program.is_file(),
        "{} is not built: run `cargo build -p baton` first, or `cargo xtask test`, which does it",
        program.display()
    );
    warn_if_stale(&test, &program);
    program
}

/// A test that was built long after the program it starts is probably testing yesterday's program.
fn warn_if_stale(test: &Path, program: &Path) {
    const SAME_BUILD: Duration = Duration::from_secs(30 * 60);
    let built = |path: &Path| -> Option<SystemTime> { path.metadata().ok()?.modified().ok() };
    let (Some(test), Some(built)) = (built(test), built(program)) else { return };
    if test.duration_since(built).is_ok_and(|gap| gap > SAME_BUILD) {
        eprintln!("warning: {} may be out of date: `cargo build -p baton`", program.display());
    }
}
