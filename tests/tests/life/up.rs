//! `baton up`: a whole cluster in one process, as on somebody's first day.

use std::process::Command;
use std::time::Duration;

use baton_tests::client::http::chat_body;
use baton_tests::cluster::Folder;
use baton_tests::{Single, TestModel, process};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn it_needs_no_etcd_and_hands_over_in_the_process() {
    let single = Single::start(&["--handoff", "always"]).await;
    let answer = single.node.client().chat("What is a river?", 24).await.expect("an answer");
    assert_eq!(answer.flaw(), None);
    assert_eq!(answer.header("x-baton-path"), "handoff");
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn asked_to_leave_it_finishes_what_it_has() {
    let mut single = Single::start(&[]).await;
    let mut body = chat_body("Tell me a long story.", 150);
    body["ignore_eos"] = true.into();
    let client = single.node.client();
    let mut stream = client.open("/v1/chat/completions", &body).await.expect("a stream");
    assert!(stream.next().await.expect("an event").is_some());

    single.node.process().terminate();
    let answer = stream.finish().await.expect("the rest of the stream");

    assert_eq!(answer.flaw(), None);
    assert_eq!(answer.completion_tokens(), 150);
    let status = single.node.process().exited(PATIENCE).await;
    assert!(status.success(), "it ended with {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_named() {
    let folder = Folder::new().await;
    let model = TestModel::demo_or_random(folder.path());
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("its address").to_string();
    let mut command = Command::new(process::baton());
    command.env("BATON_ENGINE__DEVICE", "cpu");
    command.args(["up", "--http", &taken, "--grpc", "127.0.0.1:0"]).args(model.args());

    let output = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(PATIENCE, output).await.expect("an end");
    let output = output.expect("a thread").expect("a start");

    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&taken), "{said}");
}
