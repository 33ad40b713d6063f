//! Clients that read nothing of their answers, or little at a time.

use std::net::SocketAddr;
use std::time::Duration;

use baton_tests::client::grpc::token_request;
use baton_tests::client::http::chat_body;
use baton_tests::client::raw;
use baton_tests::{Metrics, Single, wait_until};
use prost::Message as _;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinSet;

const READER_TIMEOUT_S: &str = "3";
/// Until a worker has generated more than all the buffers on the way hold, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_nothing_is_cut_and_who_reads_slowly_is_not() {
    let mut single = Single::start(&["--reader-timeout-s", READER_TIMEOUT_S]).await;
    let ports = single.node.ports();
    let (http, grpc) = (ports.http.expect("a port"), ports.grpc.expect("a port"));
    let long = long_chat(1900).to_string();
    let mut slow = JoinSet::new();
    slow.spawn(slow_but_steady(http));
    let mut unread = raw::post_http1(http, "/v1/chat/completions", &long).await;
    let mut first = [0];
    unread.read_exact(&mut first).await.expect("a first byte");
    let json = "application/json";
    let over_http2 = raw::post_http2(http, "/v1/chat/completions", json, long.into()).await;
    let mut request = token_request(&[20, 21, 22], 1900);
    request.logprobs = Some(20);
    let message = raw::grpc_message(&request.encode_to_vec());
    let path = "/baton.v1.Inference/Generate";
    let over_grpc = raw::post_http2(grpc, path, "application/grpc", message).await;

    wait_until("three readers to be cut", PATIENCE, || async {
        let cut = single.node.metrics().await.require("baton_readers_cut", &[]);
        if cut == 3.0 { Ok(()) } else { Err(format!("{cut} are cut")) }
    })
    .await;
    over_http2.is_reset(PATIENCE).await;
    over_grpc.is_reset(PATIENCE).await;
    let rest = tokio::time::timeout(PATIENCE, unread.read_to_end(&mut Vec::new())).await;
    assert!(rest.is_ok(), "its connection is open still");
    let answer = slow.join_next().await.expect("a reader").expect("its answer");
    assert!(answer.ends_with(b"data: [DONE]\n\n\r\n0\r\n\r\n"), "{} bytes", answer.len());

    single.node.process().logged("a client reads nothing of its answer", PATIENCE).await;
    single.assert_clean().await;
    let decode = Metrics::scrape("decode", ports.decode_admin.expect("a port")).await;
    let generated = decode.require("baton_sampled_tokens", &[]);
    assert!(generated < 3.0 * 1900.0, "{generated} tokens, most of them for nobody");
}

/// Much to read for each token.
fn long_chat(max_tokens: u32) -> serde_json::Value {
    let mut body = chat_body("Tell me everything.", max_tokens);
    body["stream"] = true.into();
    body["ignore_eos"] = true.into();
    body["logprobs"] = true.into();
    body["top_logprobs"] = 20.into();
    body
}

/// Reads an answer that is longer than what is buffered for it, in pieces, for several times as long as a client may
/// read nothing.
async fn slow_but_steady(http: SocketAddr) -> Vec<u8> {
    const PIECE: usize = 16 << 10;
    let body = long_chat(400).to_string();
    let mut stream = raw::post_http1(http, "/v1/chat/completions", &body).await;
    let (mut answer, mut piece) = (Vec::new(), vec![0; PIECE]);
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let read = stream.read(&mut piece).await.expect("its connection stays");
        answer.extend_from_slice(&piece[..read]);
        if read == 0 || answer.ends_with(b"0\r\n\r\n") {
            return answer;
        }
    }
}
