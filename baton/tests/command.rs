//! The command as its users meet it: what it says when asked, and when something is wrong.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
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
#[case::no_address(&["chat", "--url", "ftp://127.0.0.1", "Hello"], "want HOST:PORT, http://HOST:PORT")]
#[case::no_authority(&["chat", "--url", "https://127.0.0.1:1", "--ca", "/no/ca.pem", "Hello"], "/no/ca.pem")]
#[case::no_folder(&["bench", "serve", "--json", "/no/such/report.json"], "--json: there is no folder")]
#[case::nobody_to_measure(&["bench", "serve", "--url", "127.0.0.1:1"], "http://127.0.0.1:1")]
fn what_is_wrong_is_said_and_the_status_tells(#[case] args: &[&str], #[case] said: &str) {
    let output = baton(args);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(said), "no {said:?} in:\n{error}");
}

#[rstest]
#[case::port(&["up", "--port", "abc"], "--port <PORT>': want a whole number from 0 to 65535")]
#[case::large_port(&["up", "--port", "70000"], "want a whole number from 0 to 65535")]
#[case::negative(&["up", "--port", "-1"], "'-1' for '--port <PORT>'")]
#[case::count(&["decode-worker", "--kv-blocks", "1e3"], "want a whole number from 0 to 4294967295")]
#[case::temperature(&["bench", "serve", "--temperature", "warm"], "want a number from 0 to 2")]
#[case::no_share(&["up", "--gpu-memory-utilization", "half"], "want a number")]
#[case::of_a_client(&["bench", "serve", "--clients", "x"], "want a whole number")]
#[case::share(&["bench", "serve", "--failures-max", "101"], "want a number from 0 to 100")]
fn what_is_no_number_is_told_with_what_is(#[case] args: &[&str], #[case] said: &str) {
    let output = baton(args);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains(said), "no {said:?} in:\n{error}");
}

#[test]
fn wrong_keys_are_told_before_anything_listens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys.toml");
    std::fs::write(&file, "[[key]]\nname = \"alice\"\nsha256 = \"\"\n").unwrap();
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo");
    let keys = ["--api-keys-file", file.to_str().unwrap()];
    let output =
        baton(&[&["router", "--model", demo, "--port", "0", "--grpc", ":0"], &keys[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let (said, error) = (text(&output.stdout), text(&output.stderr));
    assert!(!said.contains("listening") && error.contains("keys.toml"), "{said}{error}");
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

/// The command with a setting among its variables.
fn baton_with(variable: (&str, &str), args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env(variable.0, variable.1).args(args).output().expect("the baton program runs")
}

#[rstest]
#[case::address("--http", "BATON_GATEWAY__HTTP", "gateway.http")]
#[case::model("--model", "BATON_MODEL__SOURCE", "model.source")]
#[case::port("--port", "BATON_GATEWAY__PORT", "gateway.port")]
fn help_says_the_variable_and_the_key_of_a_flag(
    #[case] flag: &str,
    #[case] variable: &str,
    #[case] key: &str,
) {
    let help = text(&baton(&["up", "--help"]).stdout);
    let from = help.find(&format!("{flag} ")).unwrap_or_else(|| panic!("no {flag}"));
    let words = help[from..].split_whitespace().take(60).collect::<Vec<_>>().join(" ");
    assert!(words.contains(&format!("env: {variable}, file: {key}]")), "{words}");
}

#[test]
fn a_workers_admin_is_the_workers_and_a_routers_the_gateways() {
    let worker = text(&baton(&["decode-worker", "--help"]).stdout);
    assert!(worker.contains("BATON_WORKER__ADMIN"), "{worker}");
    let router = text(&baton(&["router", "--help"]).stdout);
    assert!(router.contains("BATON_GATEWAY__ADMIN"), "{router}");
    assert!(router.contains("BATON_ENGINE__CONTEXT_TOKENS_MAX"), "{router}");
}

#[test]
fn serve_is_up_and_takes_the_model_without_a_flag() {
    let output = baton(&["serve", "/no/such/folder", "--port", "0"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("/no/such/folder"), "{error}");
}

#[test]
fn a_variable_that_is_nearly_a_setting_is_told_with_the_one_meant() {
    let output = baton_with(("BATON_ENGINE__KV_BLOKS", "7"), &["up", "--model", "/no/such"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("did you mean BATON_ENGINE__KV_BLOCKS?"));
    let output = baton_with(("BATON_MODEL", "x"), &["up", "--model", "/no/such"]);
    let error = text(&output.stderr);
    let told = "error: BATON_MODEL is no setting: did you mean BATON_MODEL__SOURCE?";
    assert!(error.starts_with(told), "{error}");
    let output = baton_with(("BATON_PORT", "8000"), &["up", "--model", "/no/such"]);
    let error = text(&output.stderr);
    assert!(error.contains("BATON_PORT is no setting: did you mean"), "{error}");
    assert!(error.contains("/no/such"), "and it goes on: {error}");
}

#[test]
fn a_program_that_was_moved_lists_where_it_looked_for_the_demo_model() {
    let dir = tempfile::tempdir().unwrap();
    let moved = dir.path().join("baton");
    std::fs::copy(env!("CARGO_BIN_EXE_baton"), &moved).unwrap();
    let output = Command::new(&moved).arg("up").current_dir(dir.path()).output().unwrap();
    let error = text(&output.stderr);
    let beside = dir.path().canonicalize().unwrap().join("models/demo");
    assert!(error.contains(&beside.display().to_string()) && error.contains("--model"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

#[test]
fn a_pool_larger_than_the_memory_is_an_error_and_no_abort() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo");
    let args = ["up", "--model", model, "--device", "cpu", "--port", "0", "--grpc", ":0"];
    let output = baton(&[&args[..], &["--kv-memory-mib", "100000000"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("GiB of memory are free: --kv-blocks"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
}

/// The command, whose reader has seen enough before it begins.
fn baton_unread(args: &[&str]) -> Output {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(args).stdout(writer).output().expect("the baton program runs")
}

#[rstest]
#[case::help(&["up", "--help"])]
#[case::secret(&["certs", "secret"])]
#[case::key(&["keys", "new", "--name", "alice"])]
#[case::doctor(&["doctor"])]
fn whose_reader_has_left_ends_quietly(#[case] args: &[&str]) {
    let output = baton_unread(args);
    let error = text(&output.stderr);
    assert!(output.status.success() && !error.contains("panicked"), "{}: {error}", output.status);
}

#[test]
fn certificates_are_made_whoever_reads_what_is_said_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    for args in [&["certs", "init", "--dir", dir][..], &["certs", "issue", "router", "--dir", dir]]
    {
        let output = baton_unread(args);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let output = baton(&["certs", "issue", "etcd", "--dir", dir, "--hosts", "etcd.example.org"]);
    let said = text(&output.stdout);
    assert!(said.contains("--etcd https://etcd.example.org:2379"), "{said}");
}

#[rstest]
#[case::gateway(&["gateway"], "certs issue router --hosts HOST")]
#[case::role(&["prefil"], "want router, prefill, decode or etcd")]
#[case::many_days(&["decode", "--days", "4000000000"], "want at most 36500")]
#[case::etcd_of_no_host(&["etcd"], "--hosts HOST")]
fn a_certificate_that_can_not_be_is_refused(#[case] args: &[&str], #[case] said: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().to_str().unwrap();
    assert!(baton(&["certs", "init", "--dir", dir]).status.success());
    let output = baton(&[&["certs", "issue", "--dir", dir], args].concat());
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains(said), "no {said:?} in:\n{error}");
    assert!(baton(&["certs", "issue", "decode-worker", "--dir", dir]).status.success());
}

/// A server whose answers end after the first words; its address.
fn one_that_goes_away() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut request = [0; 4096];
            let read = client.read(&mut request).unwrap();
            let body = match request[..read].starts_with(b"GET /v1/models") {
                true => "{\"data\": [{\"id\": \"m\"}]}",
                false => "data: {\"choices\": [{\"delta\": {\"content\": \"Once upon\"}}]}\n\n",
            };
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
            // A client may leave sooner.
            let _ = client.write_all(answer.as_bytes());
        }
    });
    addr.to_string()
}

#[test]
fn a_server_that_goes_away_in_the_middle_of_an_answer_is_told() {
    let url = one_that_goes_away();
    let output = baton(&["chat", "--url", &url, "Hello"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "Once upon\n");
    let error = text(&output.stderr);
    assert!(error.contains("went away before its answer was whole"), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    let unread = baton_unread(&["chat", "--url", &url, "Hello"]);
    assert!(unread.status.success(), "{}", text(&unread.stderr));
}
