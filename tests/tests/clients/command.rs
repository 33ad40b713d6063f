//! The command, as a shell starts it.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use baton_tests::process;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CTRL_C: &str = "\u{3}";

/// Runs a command with `input` on its standard input.
pub(crate) async fn run(mut command: Command, input: &str) -> Output {
    let input = input.to_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("its input");
        // It may leave without reading.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        child.wait_with_output().expect("it ends")
    });
    tokio::time::timeout(PATIENCE, run).await.expect("an end").expect("no panic")
}

/// `baton` with these arguments, and no key from outside.
pub(crate) fn baton(args: &[&str]) -> Command {
    let mut command = Command::new(process::baton());
    command.args(args).env_remove("BATON_API_KEY");
    command
}

/// What it said.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
