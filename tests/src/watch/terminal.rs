//! A program in a terminal of its own, as a person would use it.

use std::ffi::OsStr;
use std::process::ExitStatus;
use std::time::Duration;

use pty_process::{Command, Pty, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::timeout;

use crate::process;

/// How long what is expected may take, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);
const ROWS: u16 = 24;

/// A terminal with `baton` in it.
pub struct Terminal {
    pty: Pty,
    child: Child,
    /// What was shown and not yet expected.
    shown: String,
}

// === impl Terminal ===

impl Terminal {
    /// Starts `baton` with these arguments in a terminal of so many columns.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>, columns: u16) -> Self {
        let (pty, pts) = pty_process::open().expect("a terminal");
        pty.resize(Size::new(ROWS, columns)).expect("a size");
        let command = Command::new(process::baton()).args(args).env("TERM", "xterm");
        let child = command.kill_on_drop(true).spawn(pts).expect("baton starts");
        Self { pty, child, shown: String::new() }
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub async fn types(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.expect("a terminal to type in");
    }

    /// Waits until it shows `text`; returns what it showed before that.
    ///
    /// # Panics
    /// If it does not; the message has what it did show.
    pub async fn shows(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.shown.find(text) {
                let before = self.shown[..at].to_owned();
                self.shown.drain(..at + text.len());
                return before;
            }
            let mut bytes = [0; 4096];
            let read = timeout(PATIENCE, self.pty.read(&mut bytes)).await;
            let read = read.ok().and_then(Result::ok).filter(|&read| read > 0);
            let read = read.unwrap_or_else(|| panic!("want {text:?}, have {:?}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Waits for the program's end.
    ///
    /// # Panics
    /// If it goes on.
    pub async fn exited(&mut self) -> ExitStatus {
        let ended = timeout(PATIENCE, self.child.wait()).await;
        ended.unwrap_or_else(|_| panic!("still there, showing {:?}", self.shown)).expect("a status")
    }
}
