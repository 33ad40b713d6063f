//! What a command says: its result on standard output, the rest on standard error.
//!
//! `println!` panics where nobody reads. A command whose reader has seen enough (`| head`) ends quietly.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// Nobody reads standard output any more: no failure, but a reason to end.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads standard output")]
pub(crate) struct Unread;

/// Writes a line to standard output.
///
/// # Errors
/// [`Unread`], or why it can't be written.
pub(crate) fn line(line: impl Display) -> Result<()> {
    write(format_args!("{line}\n"))
}

/// Writes to standard output, at once.
///
/// # Errors
/// [`Unread`], or why it can't be written.
pub(crate) fn write(text: impl Display) -> Result<()> {
    let mut out = io::stdout();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Unread.into()),
        written => written.context("can't write to standard output"),
    }
}

/// Writes a line to standard error, for whoever may read it.
pub(crate) fn note(line: impl Display) {
    // Where that can't be said, nothing can.
    let _ = writeln!(io::stderr(), "{line}");
}
