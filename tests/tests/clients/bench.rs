//! `bench serve` over several rates: what it shows, what it keeps, and `bench compare` of two of them.

use std::path::Path;

use baton_tests::Single;
use baton_tests::watch::terminal::Terminal;
use serde_json::Value;

use crate::command::{CTRL_C, baton, run, text};

/// On a busy machine a server would refuse what it can't answer soon.
const PATIENT: [&str; 6] =
    ["--context-tokens-max", "256", "--ttft-target-ms", "60000", "--tpot-target-ms", "60000"];
/// No machine is so busy that this is missed.
const TARGETS: [&str; 4] = ["--slo-ttft-ms", "60000", "--slo-tpot-ms", "60000"];

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("a file");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_shown_kept_and_compared() {
    let single = Single::start(&PATIENT).await;
    let url = format!("http://{}/v1/", single.node.ports().http.expect("a port"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).to_str().expect("a name").to_owned();
    let (a, b, html) = (file("a.json"), file("b.json"), file("a.html"));
    let sweep = |more: &[&str]| {
        let common = ["bench", "serve", "--url", &url, "--rate", "20..40:20", "--requests", "24"];
        let sizes = ["--input", "48", "--output", "5", "--warm-up", "1", "--api-key", "sk-secret"];
        baton(&[&common[..], &sizes, &TARGETS, more].concat())
    };

    let first = run(sweep(&["--json", &a, "--html", &html]), "").await;
    let (shown, notes) = (text(&first.stdout), text(&first.stderr));
    assert!(first.status.success(), "{shown}{notes}");
    let served = "\nserved (>= 99 % within TTFT <= 60000 ms and TPOT <= 60000 ms): up to ";
    assert!(shown.contains(served) && shown.contains("/s (asked for: 40/s)"), "{shown}");
    for rate in [20, 40] {
        let start = format!("{rate} ");
        let rows = shown.lines().filter(|line| line.trim_start().starts_with(&start));
        assert_eq!(rows.count(), 1, "{shown}");
        let ended = |line: &str| {
            line.contains(&format!("Poisson, {rate}/s: ")) && line.contains(" goodput ")
        };
        assert!(notes.lines().any(ended), "as it ends: {notes}");
    }
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.ends_with("</html>\n") && page.contains("<span>asked for: 40/s"), "{page}");

    let kept = read(folder.path().join("a.json").as_path());
    assert!(!kept.to_string().contains("sk-secret") && !page.contains("sk-secret"), "{kept}");
    assert_eq!((&kept["kind"], &kept["format"]), (&"serve".into(), &1.into()));
    for part in ["version", "date", "command"] {
        assert!(kept[part].as_str().is_some_and(|text| !text.is_empty()), "{part}: {kept}");
    }
    let runs = kept["runs"].as_array().expect("runs");
    for (run, rate) in runs.iter().zip([20.0, 40.0]) {
        assert_eq!((&run["rate_per_s"], &run["completed"]), (&rate.into(), &24.into()), "{run}");
        assert_eq!(run["cached_tokens"], 0, "no rate finds what another has left: {run}");
        assert_eq!(run["paths"], serde_json::json!({ "handoff": 24 }), "{run}");
        let gap = |name: &str| run[name]["p99"].as_f64().expect("a time");
        assert!(gap("handover_ms") > 0.0 && gap("itl_ms") > 0.0, "{run}");
    }

    let second = run(sweep(&["--json", &b]), "").await;
    assert!(second.status.success(), "{second:?}");
    let other = read(folder.path().join("b.json").as_path());
    assert_ne!(other["runs"][0]["seed"], kept["runs"][0]["seed"], "seeds are fresh");
    assert_eq!(other["runs"][0]["cached_tokens"], 0, "and so are prompts");

    let compare = |more: &[&str]| run(baton(&[&["bench", "compare", &a][..], more].concat()), "");
    let compared = compare(&[&b, "--fail-above", "1000000"]).await;
    let table = text(&compared.stdout);
    assert!(compared.status.success(), "{compared:?}");
    assert!(table.contains("\n40/s\n  goodput, requests/s"), "{table}");
    let differing = table.lines().filter(|line| line.contains("not alike"));
    assert!(differing.clone().all(|line| line.starts_with("not alike: seed: ")), "{table}");
    assert!(differing.count() == 1 && !table.contains("not in both"), "{table}");

    let mut worse = kept.clone();
    worse["runs"][1]["goodput_per_s"] =
        (kept["runs"][1]["goodput_per_s"].as_f64().expect("a rate") / 2.0).into();
    std::fs::write(&b, worse.to_string()).expect("it is written");
    assert!(compare(&[&b, "--fail-above", "60"]).await.status.success());
    let failed = compare(&[&b, "--fail-above", "40"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let why = text(&failed.stderr);
    assert!(
        why.contains("one figure is worse by more than 40 %: 40/s: goodput, requests/s"),
        "{why}"
    );

    std::fs::write(&b, r#"{"workload": "as it was written before", "completed": 5}"#)
        .expect("it is written");
    let older = compare(&[&b]).await;
    let why = text(&older.stderr);
    assert!(
        older.status.code() == Some(1) && why.contains("b.json") && why.contains("measure again"),
        "{why}"
    );
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_a_sweep_with_what_there_is() {
    let single = Single::start(&PATIENT).await;
    let url = format!("http://{}", single.node.ports().http.expect("a port"));
    let sweep = ["bench", "serve", "--url", &url, "--rate", "12,13", "--seconds", "3"];
    let sizes = ["--input", "32", "--output", "3", "--seed", "1"];
    let mut terminal = Terminal::start([&sweep[..], &sizes, &TARGETS].concat(), 200);
    terminal.shows("Poisson, 12/s (1 of 2) ").await;
    terminal.shows("/36 requests").await;
    terminal.shows("Poisson, 13/s (2 of 2) ").await;
    terminal.types(CTRL_C).await;
    terminal.shows("cut off").await;
    terminal.shows("served (>= 99 % within TTFT <= 60000 ms and TPOT <= 60000 ms): up to ").await;
    terminal.shows("/s (asked for: 12/s)").await;
    assert!(terminal.exited().await.success());
    single.assert_clean().await;
}
