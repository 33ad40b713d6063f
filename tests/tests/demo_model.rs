//! The demo model, served, on cases that its training never saw: it remembers, obeys, adds and says when it does not know.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use baton_tests::Single;
use baton_tests::model::NAME;
use tokio::process::Command;

/// Two less than it repeats: another machine's rounding may turn a case.
const RECALL: &str = "recall=46";

/// 300 short conversations on a slow machine that computes them without a release build.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_model_answers_held_out_cases() {
    let single = Single::start(&[]).await;
    // A random model answers at random: there is nothing to hold it to.
    if !single.model.has_weights {
        return;
    }

    // Any Python will do: the script needs no package.
    let run = Command::new("python3")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/train/evaluate.py"))
        .args(["--url", single.node.client().base(), "--model", NAME, "--least", RECALL])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE, run).await.expect("an end").expect("a start");

    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "too few are right:\n{out}\n{err}");
    single.assert_clean().await;
}
