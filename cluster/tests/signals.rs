//! Signals, on a process of the test's own.

#![allow(clippy::disallowed_methods, reason = "a test waits for what it spawned by itself")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitStatus, Stdio};

use cluster::shutdown_signal;
use cluster::testing::{DEADLINE, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rstest::rstest;
use tokio::time::timeout;

/// Not a test of its own: what the signalled process runs.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the tests below"]
async fn child() {
    let drain = shutdown_signal().unwrap();
    say("ready");
    timeout(DEADLINE, drain.cancelled()).await.expect("a signal");
    say("draining");
    // Longer than any test waits: only a second signal ends it.
    tokio::time::sleep(DEADLINE * 2).await;
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn start() -> (Child, impl FnMut(&str)) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let hear = move |want: &str| {
        // The test harness may have put words before ours on the line.
        assert!(lines.any(|line| line.unwrap().ends_with(want)), "{want} was never said");
    };
    (child, hear)
}

async fn end(child: &mut Child) -> ExitStatus {
    let mut status = None;
    wait_until("the end", async || {
        status = child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    status.unwrap()
}

#[rstest]
#[case::term(Signal::SIGTERM, Signal::SIGTERM, 143)]
#[case::int(Signal::SIGINT, Signal::SIGINT, 130)]
#[case::impatient(Signal::SIGTERM, Signal::SIGINT, 130)]
#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_drains_and_the_second_ends_at_once(
    #[case] first: Signal,
    #[case] second: Signal,
    #[case] code: i32,
) {
    let (mut child, mut hear) = start();
    let pid = Pid::from_raw(child.id().cast_signed());
    hear("ready");
    kill(pid, first).unwrap();
    hear("draining");
    assert!(child.try_wait().unwrap().is_none(), "it drains");
    kill(pid, second).unwrap();
    assert_eq!(end(&mut child).await.code(), Some(code));
}
