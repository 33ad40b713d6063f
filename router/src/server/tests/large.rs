//! Requests as large as they get, and what becomes of the small ones beside them.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use proto::v1::inference_client::InferenceClient;
use proto::v1::inference_request::Input;
use proto::v1::{Chat, ChatMessage, InferenceRequest};
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::testing::*;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
/// On a busy machine, without optimisation; before, it was more than a minute.
const SOON: Duration = Duration::from_secs(15);
const MEGABYTES: usize = 10_000_000;

/// A router whose model takes prompts that take the tokenizer a long time.
async fn patient() -> TestRouter {
    TestRouter::configured(vec![says("x")], |config| {
        let model = crate::ServedModel { context_tokens_max: 1 << 24, ..model() };
        config.models = crate::ModelCatalog::new(vec![model.into()]).unwrap();
        config.limits.prompt_tokens = 1 << 24;
    })
    .await
}

fn talk(text: &str) -> Json {
    chat(json!({"messages": [{"role": "user", "content": text}], "max_tokens": 4}))
}

async fn gauge_is_zero(router: &TestRouter, name: &str) {
    let begin = Instant::now();
    let line = format!("{name} 0");
    while !router.metrics.encode().lines().any(|found| found == line) {
        assert!(begin.elapsed() < SOON, "{}", router.metrics.encode());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_long_is_refused_by_its_size() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for text in ["ab ".repeat(MEGABYTES / 3), "x".repeat(MEGABYTES), "\u{e9}".repeat(MEGABYTES / 2)]
    {
        let begin = Instant::now();
        for (path, body) in
            [(CHAT, talk(&text)), (COMPLETIONS, completion(json!({"prompt": text.clone()})))]
        {
            let answer = router.post(path, &body).await;
            assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
        }
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_request_does_not_wait_for_large_ones_that_hang_up() {
    let router = patient().await;
    let large = talk(&"the quick brown fox ".repeat(MEGABYTES / 20)).to_string();
    let hang_up = |large: String| {
        let request = router.client.post(router.at(CHAT)).body(large);
        tokio::time::timeout(Duration::from_millis(500), request.send())
    };
    let hung_up = join_all((0..6).map(|_| hang_up(large.clone())));
    let small = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let begin = Instant::now();
        assert_eq!(router.post(CHAT, &talk("hi")).await.status, 200);
        begin.elapsed()
    };
    let (_, took) = tokio::join!(hung_up, small);
    assert!(took < SOON, "{took:?}");
    // Nothing is left of those who have gone.
    gauge_is_zero(&router, "baton_tokenizer_queue_length").await;
    gauge_is_zero(&router, "baton_request_bytes_in_flight").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_count_from_the_first_one_on() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.limits.in_flight_bytes_per_client = 1_000_000;
    })
    .await;
    // Sends most of a body, and then nothing.
    let slow = || {
        let begun = futures::stream::iter([Ok::<_, std::io::Error>(vec![b' '; 600_000])]);
        let body = reqwest::Body::wrap_stream(begun.chain(futures::stream::pending()));
        router.client.post(router.at(CHAT)).body(body).send()
    };
    let mut first = Box::pin(slow());
    let mut second = Box::pin(slow());
    let refused = tokio::select! {
        answer = first.as_mut() => answer,
        answer = second.as_mut() => answer,
        () = tokio::time::sleep(SOON * 3) => panic!("no answer"),
    };
    let refused = Answer::read(refused.unwrap()).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.body.contains("from this client"), "{}", refused.body);
    drop((first, second));
    gauge_is_zero(&router, "baton_request_bytes_in_flight").await;
    assert_eq!(router.post(CHAT, &talk("hi")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_would_grow_when_parsed_are_refused() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let nested = format!("{{\"messages\": [{}]}}", vec!["[]"; MEGABYTES / 3].join(","));
    let deep = format!("{{\"messages\": {}", "[".repeat(MEGABYTES));
    for (body, status) in [(nested, 413), (deep, 413)] {
        let begin = Instant::now();
        let request = router.client.post(router.at(CHAT)).body(body);
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_goes_for_grpc() {
    let router = TestRouter::configured(vec![says("x")], |config| {
        config.limits.in_flight_bytes_per_client = 4_000_000;
    })
    .await;
    let mut client = InferenceClient::connect(router.grpc_url.clone()).await.unwrap();
    let chat = |text: String| {
        let messages = vec![ChatMessage { role: "user".into(), content: text }];
        let input = Some(Input::Chat(Chat { messages }));
        InferenceRequest { input, max_tokens: Some(4), ..InferenceRequest::default() }
    };
    let begin = Instant::now();
    let too_long = client.generate(chat("ab ".repeat(300_000))).await.unwrap_err();
    assert_eq!(too_long.code(), Code::InvalidArgument, "{too_long}");
    let too_much = client.generate(chat("x".repeat(2_000_000))).await.unwrap_err();
    assert_eq!(too_much.code(), Code::ResourceExhausted, "{too_much}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    drop(client.generate(chat("hi".into())).await.unwrap());
    gauge_is_zero(&router, "baton_request_bytes_in_flight").await;
}
