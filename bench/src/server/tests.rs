//! Against a server of a few lines, that says what it is told to.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::*;

/// Answers every connection with `answer`; gives its address, and then what it was asked.
async fn saying(answer: &'static str) -> (Server, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("{}/v1/", listener.local_addr().expect("an address"));
    let mut asked = JoinSet::new();
    asked.spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("a client");
        let mut request = vec![0; 4096];
        let read = socket.read(&mut request).await.expect("a request");
        socket.write_all(answer.as_bytes()).await.expect("an answer");
        String::from_utf8_lossy(&request[..read]).into_owned()
    });
    let options = ServerOptions { url, api_key: Some("my-key".into()), ca: None };
    (Server::new(&options).expect("a server"), asked)
}

#[tokio::test]
async fn models_are_listed_and_the_key_is_sent() {
    let body = r#"{"data": [{"id": "one", "max_model_len": 64}, {"id": "two"}]}"#;
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let (server, mut asked) = saying(Box::leak(format!("{head}{body}").into_boxed_str())).await;
    let models = server.models().await.expect("models");
    assert_eq!(models[0], Model { id: "one".into(), context_tokens: Some(64) });
    assert_eq!(models[1], Model { id: "two".into(), context_tokens: None });
    let asked = asked.join_next().await.expect("a request").expect("no panic");
    assert!(asked.starts_with("GET /v1/models HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: Bearer my-key\r\n"), "{asked}");
    assert!(!format!("{server:?}").contains("my-key"), "keys stay out of logs");
}

#[tokio::test]
async fn a_refusal_says_why_and_when_to_come_back() {
    let (server, _asked) = saying(
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 3\r\nretry-after-ms: 2500\r\n\
         connection: close\r\n\r\n{\"error\": {\"message\": \"full\", \"code\": \"rate_limit_exceeded\"}}",
    )
    .await;
    let error = server.stream("/v1/completions", &Value::Null).await.expect_err("a refusal");
    assert_eq!(error.kind(), "429 rate_limit_exceeded");
    let ServerError::Refused(refusal) = error else { panic!("{error}") };
    assert_eq!(refusal.retry_after, Some(Duration::from_millis(2500)));
    assert_eq!((refusal.status, refusal.message.as_str()), (429, "full"));
}

#[tokio::test]
async fn a_refusal_without_words_has_its_status() {
    let (server, _asked) =
        saying("HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n<html>").await;
    let error = server.models().await.expect_err("a refusal");
    assert_eq!(error.to_string(), "Bad Gateway (502)");
}

#[tokio::test]
async fn who_is_not_there_is_named() {
    let url = "127.0.0.1:1".to_owned();
    let server = Server::new(&ServerOptions { url, ..ServerOptions::default() }).expect("a server");
    let error = server.models().await.expect_err("nobody");
    assert!(matches!(&error, ServerError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("http://127.0.0.1:1: Connection refused"), "{error}");
}

#[tokio::test]
async fn events_that_are_cut_off_are_an_error() {
    let (server, _asked) =
        saying("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\ndata: 1\n\n: alive\n\ndata: {\"half")
            .await;
    let mut events = server.stream("/v1/completions", &Value::Null).await.expect("an answer");
    assert_eq!(events.next().await.expect("an event").as_deref(), Some(&b"1"[..]));
    assert!(matches!(events.next().await, Err(ServerError::Broken(_))));
}
