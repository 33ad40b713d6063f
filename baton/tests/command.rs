//! The command as its users meet it: what it says when asked, and when something is wrong.

use std::process::{Command, Output};

use rstest::rstest;

fn baton(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args).output().expect("the baton program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[rstest]
#[case::itself(&["--help"], &["up", "router", "prefill-worker", "decode-worker", "chat", "BATON_ENGINE__KV_BLOCKS"])]
#[case::up(&["up", "--help"], &["--model", "--http", "--kv-memory-mib", "[default: 127.0.0.1:8000]"])]
#[case::router(&["router", "--help"], &["--etcd", "--namespace", "--handoff", "--drain-deadline-s"])]
#[case::worker(&["decode-worker", "--help"], &["--id", "--listen", "--admin", "--kv-blocks", "--etcd"])]
#[case::bench(&["bench", "serve", "--help"], &["--rate", "--clients", "--slo-ttft-ms", "--failures-max", "--ca"])]
#[case::chat(&["chat", "--help"], &["--url", "--ca", "BATON_API_KEY", "--system"])]
fn help_teaches(#[case] args: &[&str], #[case] taught: &[&str]) {
    let output = baton(args);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in taught {
        assert!(help.contains(word), "no {word} in:\n{help}");
    }
}

#[rstest]
#[case::no_model(&["up", "--model", "/no/such/folder"], "want a folder with config.json")]
#[case::no_file(&["up", "--config", "/no/such.toml"], "/no/such.toml")]
#[case::bad_policy(&["up", "--handoff", "sometimes"], "gateway.handoff")]
#[case::small_budget(&["decode-worker", "--batch-tokens-max", "3"], "engine.batch_tokens_max")]
#[case::unreachable(&["chat", "--url", "http://127.0.0.1:1", "Hello"], "start one with `baton up`")]
#[case::no_address(&["chat", "--url", "ftp://127.0.0.1", "Hello"], "want http://HOST:PORT")]
#[case::no_authority(&["chat", "--url", "https://127.0.0.1:1", "--ca", "/no/ca.pem", "Hello"], "/no/ca.pem")]
#[case::nobody_to_measure(&["bench", "serve", "--url", "127.0.0.1:1"], "http://127.0.0.1:1")]
fn what_is_wrong_is_said_and_the_status_tells(#[case] args: &[&str], #[case] said: &str) {
    let output = baton(args);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(said), "no {said:?} in:\n{error}");
}

#[test]
fn a_broken_model_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.json"), r#"{"architectures": ["FooForCausalLM"]}"#)
        .unwrap();
    let output = baton(&["up", "--model", dir.path().to_str().unwrap(), "--http", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("config.json") && error.contains("FooForCausalLM"), "{error}");
}

#[test]
fn the_doctor_looks_at_cpu_gpu_and_model() {
    let output = baton(&["doctor"]);
    assert!(output.status.success());
    let report = text(&output.stdout);
    for part in ["CPU", "GPU", "demo model"] {
        assert!(report.contains(part), "no {part} in:\n{report}");
    }
}
