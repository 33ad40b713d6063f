//! The first minute: what `up` prints works as printed, `chat` is a conversation, `bench serve` measures, and the
//! log tells of each request.

use std::process::{Command, Output, Stdio};

use baton_tests::oracle::{Oracle, Reply};
use baton_tests::security::{Keyring, Lock};
use baton_tests::watch::terminal::Terminal;
use baton_tests::{Single, wait_until};

use crate::command::{CTRL_C, PATIENCE, baton, run, text};

const PASTE: (&str, &str) = ("\u{1b}[200~", "\u{1b}[201~");

fn shell(line: &str, key: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("BATON_API_KEY", key);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_welcome_prints_works_with_keys_and_https_and_the_log_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let keyring = Keyring::new(Lock::Certificates, folder.path());
    keyring.issue("router", "r0", 2);
    let made = run(baton(&["keys", "new", "--name", "alice", "--tenant", "red"]), "").await;
    let key = text(&made.stderr)
        .split_whitespace()
        .find(|word| word.starts_with("sk-"))
        .map(str::to_owned);
    let key = key.expect("a key");
    let keys = folder.path().join("keys.toml");
    std::fs::write(&keys, made.stdout).expect("the keys' file");
    let file = |name: &str| keyring.dir().join(name).display().to_string();
    let (cert, private) = (file("router-r0.pem"), file("router-r0.key"));
    let keys = keys.display().to_string();
    let mut single = Single::start(&[
        "--api-keys-file",
        &keys,
        "--gateway-cert",
        &cert,
        "--gateway-key",
        &private,
    ])
    .await;
    let process = single.node.process();
    process.logged("Ctrl-C leaves.", PATIENCE).await;
    let welcome = process.log_text();
    for part in ["CPU, ", "room for ", "export BATON_API_KEY=KEY", &keys] {
        assert!(welcome.contains(part), "no {part} in:\n{welcome}");
    }

    let lines: Vec<&str> = welcome.lines().collect();
    let line = |what: &str| lines.iter().position(|line| line.contains(what)).expect("a hint");
    let chat = lines[line(" chat --url https://127.0.0.1:")];
    let answered = run(shell(chat, &key), "What is a river?\n").await;
    assert!(answered.status.success(), "{chat}: {}", text(&answered.stderr));
    assert!(!answered.stdout.trim_ascii().is_empty(), "{chat}");
    let refused = run(shell(chat, "sk-wrong"), "What is a river?\n").await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("BATON_API_KEY"), "{}", text(&refused.stderr));

    let curl = line("curl -N --cacert ");
    let curl = format!("{}\n{}", lines[curl], lines[curl + 1]);
    let answered = run(shell(&curl, &key), "").await;
    assert!(text(&answered.stdout).contains("data: [DONE]"), "{curl}: {answered:?}");

    let url = format!("https://{}", single.node.ports().http.expect("a port"));
    let untrusted = run(baton(&["chat", "--url", &url, "--api-key", &key, "Hello"]), "").await;
    let said = text(&untrusted.stderr);
    assert_eq!(untrusted.status.code(), Some(1));
    assert!(said.contains("--ca FILE"), "{said}");

    let ca = file("ca.pem");
    let bench = ["bench", "serve", "--url", &url, "--ca", &ca, "--requests", "4", "--input", "64"];
    let bench = [&bench[..], &["--output", "4", "--warm-up", "0"]].concat();
    let mut measured = baton(&bench);
    measured.env("BATON_API_KEY", &key);
    let measured = run(measured, "").await;
    assert!(measured.status.success(), "{}", text(&measured.stderr));
    assert!(
        text(&measured.stdout).contains("4 answered, 0 refused, 0 failed"),
        "{}",
        text(&measured.stdout)
    );

    let process = single.node.process();
    process.logged("path=/v1/completions status=200", PATIENCE).await;
    let log = process.log_text();
    let served = log.lines().find(|line| line.contains("path=/v1/chat/completions status=200"));
    let served = served.unwrap_or_else(|| panic!("no line in:\n{log}"));
    for part in [
        " INFO access: ",
        "client=alice tenant=red",
        "prompt_tokens=",
        "output_tokens=",
        "ttft_ms=",
    ] {
        assert!(served.contains(part), "no {part} in {served}");
    }
    let stranger = log.lines().find(|line| line.contains("status=401")).expect("a refusal's line");
    assert!(stranger.contains("reason=") && stranger.contains("address=127.0.0.1"), "{stranger}");
    assert!(!log.contains(&key) && !log.contains("sk-wrong") && !log.contains("river"), "{log}");
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_scripts_and_measurements_are_served() {
    let mut single = Single::start(&["--context-tokens-max", "256"]).await;
    let url = format!("http://{}/v1/", single.node.ports().http.expect("a port"));

    let mut terminal = Terminal::start(["chat", "--url", &url, "--max-tokens", "200"], 60);
    terminal.shows("> ").await;
    terminal.types("/nonsense\r").await;
    terminal.shows("there is no /nonsense; /help lists what there is").await;
    terminal.shows("> ").await;
    terminal.types("/help\r").await;
    terminal.shows("a space before it").await;
    terminal.shows("> ").await;
    terminal.types("What is a river?\r").await;
    terminal.shows("first after").await;
    terminal.shows("> ").await;
    terminal.types("half a thought").await;
    terminal.types(CTRL_C).await;
    terminal.types("/retry\r").await;
    terminal.shows("first after").await;
    terminal.shows("> ").await;
    terminal.types(CTRL_C).await;
    assert!(terminal.exited().await.success(), "at the empty prompt it ends");

    // Longer and longer, past the context.
    let questions = "What is a river?\n".repeat(12);
    let piped = run(baton(&["chat", "--url", &url, "--max-tokens", "60"]), &questions).await;
    let (answers, notes) = (text(&piped.stdout), text(&piped.stderr));
    assert!(piped.status.success(), "{notes}");
    assert!(answers.lines().filter(|line| !line.is_empty()).count() >= 12, "{answers}");
    assert!(notes.contains("left out from now on; /clear begins anew"), "{notes}");
    assert!(
        !answers.contains('\u{1b}') && !answers.contains("> "),
        "no terminal, no colours: {answers}"
    );

    let bench = |more: &[&str]| {
        let common = ["bench", "serve", "--url", &url, "--requests", "3", "--input", "64"];
        baton(&[&common[..], &["--output", "4", "--warm-up", "0"], more].concat())
    };
    let cached = |output: &Output| {
        let report = text(&output.stdout);
        let seed = report.split("seed ").nth(1).and_then(|rest| rest.lines().next());
        let none = report.contains("prompt tokens from a cache: 0.0 %");
        (seed.expect("a seed").to_owned(), none)
    };
    let (seed, fresh) = cached(&run(bench(&[]), "").await);
    assert!(fresh, "the first run");
    let (other, fresh) = cached(&run(bench(&[]), "").await);
    assert!(fresh && other != seed, "a second run has other prompts");
    assert_eq!(cached(&run(bench(&["--seed", &seed]), "").await), (seed, false), "unless told");
    let failed = run(bench(&["--model", "nobody"]), "").await;
    assert_eq!(failed.status.code(), Some(1));
    let why = text(&failed.stderr);
    assert!(
        why.contains("3 of 3 requests failed (100.0 %), most by: 404 model_not_found"),
        "{why}"
    );

    // A flood of refusals has few lines.
    let client = single.node.client();
    for _ in 0..300 {
        client.get("/v1/nowhere").await;
    }
    let process = single.node.process();
    process.logged("more requests like these, left out", PATIENCE).await;
    let lines = process.log_text().lines().filter(|line| line.contains("/v1/nowhere")).count();
    assert!((10..300).contains(&lines), "{lines} lines of 300");
    single.assert_clean().await;
}

/// 24 words, in which none is like another's part.
const WORDS: &str = "A river begins somewhere between mountains, gathers water from every little stream nearby, \
                     and slowly wanders towards the distant ocean without ever hurrying.";

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_whole_words_and_takes_many_lines() {
    let oracle = Oracle::start(|_| Reply::Says(WORDS.into())).await;
    let url = format!("{}/v1", oracle.addr);
    let mut terminal = Terminal::start(["chat", "--url", &url, "--system", "Be brief."], 40);
    terminal.shows("> ").await;
    terminal.types("What is a river?\r").await;
    terminal.shows("A river begins").await;
    let rest = terminal.shows("first after").await;
    let answer = format!("A river begins{rest}");
    let lines: Vec<&str> = answer.lines().take_while(|line| !line.contains('\u{1b}')).collect();
    assert!(lines.len() >= 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.len() <= 40), "{lines:?}");
    let words: Vec<&str> = lines.iter().flat_map(|line| line.split_whitespace()).collect();
    assert_eq!(words, WORDS.split_whitespace().collect::<Vec<_>>(), "no word is broken");

    terminal.shows("> ").await;
    terminal.types("one\\\rtwo\r").await;
    terminal.shows("first after").await;
    assert_eq!(oracle.last_messages().last().map(String::as_str), Some("one\ntwo"));
    terminal.shows("> ").await;
    terminal.types("\"\"\"three\r\rfour\"\"\"\r").await;
    terminal.shows("first after").await;
    assert_eq!(oracle.last_messages().last().map(String::as_str), Some("three\n\nfour"));
    terminal.shows("> ").await;
    terminal.types(&format!("{}five\nsix{}", PASTE.0, PASTE.1)).await;
    terminal.types("\r").await;
    terminal.shows("first after").await;
    assert_eq!(oracle.last_messages().last().map(String::as_str), Some("five\nsix"));
    assert_eq!(oracle.last_messages().len(), 1 + 3 * 2 + 1, "with all that was said");
    terminal.shows("> ").await;
    terminal.types("/clear\r").await;
    terminal.shows("forgotten").await;
    terminal.shows("> ").await;
    terminal.types("anew\r").await;
    terminal.shows("first after").await;
    assert_eq!(oracle.last_messages(), ["Be brief.", "anew"]);
    terminal.shows("> ").await;
    terminal.types("\u{4}").await;
    assert!(terminal.exited().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_the_answer_and_then_the_program() {
    let oracle = Oracle::start(|body| match body["messages"].as_array().map(Vec::len) {
        Some(1) => Reply::Drips("word "),
        _ => Reply::Says("fine".into()),
    })
    .await;
    let url = format!("http://{}/", oracle.addr);
    let mut terminal = Terminal::start(["chat", "--url", &url], 200);
    terminal.shows("> ").await;
    terminal.types("Say something without end.\r").await;
    terminal.shows("word word").await;
    terminal.types(CTRL_C).await;
    terminal.shows("interrupted, first after").await;
    wait_until("the server to know", PATIENCE, || async {
        (oracle.hung_up() == 1).then_some(()).ok_or_else(|| "it goes on".to_owned())
    })
    .await;
    terminal.shows("> ").await;
    terminal.types("And now?\r").await;
    terminal.shows("first after").await;
    let said = oracle.last_messages();
    assert!(said[1].starts_with("word word") && said[2] == "And now?", "{said:?}");
    terminal.shows("> ").await;
    terminal.types(&format!("half a thought{CTRL_C}")).await;
    terminal.types("whole\r").await;
    terminal.shows("first after").await;
    assert_eq!(oracle.last_messages().last().map(String::as_str), Some("whole"));
    terminal.shows("> ").await;
    terminal.types(CTRL_C).await;
    assert!(terminal.exited().await.success());

    let mut child = baton(&["chat", "--url", &url, "A question."]);
    let mut child = child.stdout(Stdio::null()).spawn().expect("it starts");
    wait_until("the question", PATIENCE, || async {
        (oracle.asked() == 4).then_some(()).ok_or_else(|| "not asked".to_owned())
    })
    .await;
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().expect("a process id"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is there");
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.expect("no panic");
    assert_eq!(ended.expect("an end").code(), Some(1), "what is asked once is not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_one_line_and_the_talk_goes_on() {
    let oracle = Oracle::start(|body| {
        let messages = body["messages"].as_array().cloned().unwrap_or_default();
        let refuses = |status, code, headers| Reply::Refuses { status, code, headers };
        match messages.last().and_then(|last| last["content"].as_str()) {
            Some("busy") => refuses(429, "rate_limit_exceeded", "retry-after: 7\r\n"),
            Some("stranger") => refuses(401, "invalid_api_key", ""),
            _ if messages.len() > 5 => refuses(400, "context_length_exceeded", ""),
            _ => Reply::Says("fine".into()),
        }
    })
    .await;
    let url = format!("http://{}", oracle.addr);
    let talk = "one\nbusy\nstranger\n/what\ntwo\nthree\nfour\nfive\n/exit\nnever\n";
    let output = run(baton(&["chat", "--url", &url]), talk).await;
    assert_eq!(text(&output.stdout), "fine\n".repeat(5));
    let errors = text(&output.stderr);
    let lines: Vec<&str> = errors.lines().collect();
    assert!(lines[0].contains("try again (/retry) in 7 s: not now (429)"), "{errors}");
    assert!(lines[1].contains("another API key") && lines[1].contains("(401)"), "{errors}");
    assert!(lines[2].contains("there is no /what"), "{errors}");
    assert!(lines[3].contains("left out from now on"), "{errors}");
    assert_eq!(oracle.last_messages(), ["three", "fine", "four", "fine", "five"]);
    assert_eq!(output.status.code(), Some(1), "a script learns that questions failed");
    assert!(errors.contains("2 of 7 questions failed"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_does_not_end_the_talk() {
    let oracle = Oracle::start(|_| Reply::Says("fine".into())).await;
    let url = format!("http://{}", oracle.addr);
    let mut terminal = Terminal::start(["chat", "--url", &url], 200);
    terminal.shows("> ").await;
    terminal.types("one\r").await;
    terminal.shows("first after").await;
    terminal.shows("> ").await;
    drop(oracle);
    wait_until("the server to be gone", PATIENCE, || async {
        let addr = url.strip_prefix("http://").expect("an address");
        tokio::net::TcpStream::connect(addr).await.map_or(Ok(()), |_| Err("it is there".to_owned()))
    })
    .await;
    terminal.types("two\r").await;
    terminal.shows("no server answers at http://").await;
    terminal.shows("start one with `baton up`").await;
    terminal.shows("> ").await;
    terminal.types("/quit\r").await;
    assert!(terminal.exited().await.success());
}
