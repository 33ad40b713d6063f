//! The `openai` Python client against the real server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use baton_tests::Single;
use baton_tests::model::NAME;
use tokio::process::Command;

/// The whole script, interpreter and imports included, on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_python_client_gets_what_it_expects() {
    let python = python();
    let single = Single::start(&[]).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/openai_client.py");

    let run = Command::new(python)
        .arg(script)
        .arg(format!("{}/v1", single.node.client().base()))
        .arg(NAME)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("an end").expect("a start");

    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}:\n{out}\n{err}", output.status);
    assert!(out.contains("all checks passed"), "{out}");
    single.assert_clean().await;
}

/// The environment that `cargo xtask test` makes, beside the build's output.
fn python() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let target = test.ancestors().nth(3).expect("target/{profile}/deps");
    let python = target.join("python/bin/python");
    assert!(
        python.exists(),
        "{} is missing: `cargo xtask test --setup-only` makes it",
        python.display()
    );
    python
}
