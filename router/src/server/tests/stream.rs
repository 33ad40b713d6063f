use cluster::ErrorCode;
use futures::StreamExt as _;
use serde_json::{Value as Json, json};
use words::FinishReason;

use crate::testing::*;

#[tokio::test]
async fn chunks_have_openais_shape_from_role_to_done() {
    let script = [
        vec![started()],
        text(0, "Hé"),
        vec![token(0, 3, EOS), finished(0, FinishReason::Stop(EOS))],
    ];
    let router = TestRouter::playing(vec![script.concat()]).await;
    let answer = router.post("/v1/chat/completions", &chat(json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), "no");
    assert_eq!(answer.header("cache-control"), "no-cache");
    assert_eq!(answer.header("x-baton-decode-worker"), "decode-2");
    let mut events = answer.events();
    assert_eq!(events.pop(), Some(json!("[DONE]")));
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!((&event["model"], &event["id"]), (&json!("test-model"), &events[0]["id"]));
        assert_eq!(event["system_fingerprint"], "fp_test");
        assert!(event.get("usage").is_none());
    }
    let choices: Vec<Json> = events.iter().map(|event| event["choices"][0].clone()).collect();
    let piece = |delta: Json, finish: Json| json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
    let expected = [
        piece(json!({"role": "assistant", "content": ""}), Json::Null),
        piece(json!({"content": "H"}), Json::Null),
        piece(json!({"content": "é"}), Json::Null),
        piece(json!({}), json!("stop")),
    ];
    assert_eq!(choices, expected);
}

#[tokio::test]
async fn usage_comes_last_and_is_null_before() {
    let router = TestRouter::playing(vec![says("ab")]).await;
    for (path, body) in
        [("/v1/chat/completions", chat(json!({}))), ("/v1/completions", completion(json!({})))]
    {
        let mut body = body;
        body["stream"] = true.into();
        body["stream_options"] = json!({"include_usage": true});
        let mut events = router.post(path, &body).await.events();
        assert_eq!(events.pop(), Some(json!("[DONE]")));
        let last = events.pop().unwrap();
        assert_eq!(last["choices"], json!([]));
        assert_eq!(last["usage"]["completion_tokens"], 2);
        assert_eq!(last["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
        assert!(
            events.iter().all(|event| event["usage"].is_null() && event.get("usage").is_some())
        );
    }
}

#[tokio::test]
async fn completion_chunks_have_their_own_shape() {
    let router = TestRouter::playing(vec![says("ab")]).await;
    let body = completion(json!({"stream": true, "logprobs": 1}));
    let events = router.post("/v1/completions", &body).await.events();
    assert_eq!(events[0]["object"], "text_completion");
    assert_eq!(events[0]["choices"][0]["text"], "a");
    assert_eq!(events[1]["choices"][0]["logprobs"]["text_offset"], json!([1]));
    let end = json!({"text": "", "index": 0, "logprobs": null, "finish_reason": "length"});
    assert_eq!(events[2]["choices"][0], end);
}

#[tokio::test]
async fn each_choice_opens_with_its_own_role() {
    let ends = [finished(0, FinishReason::Length), finished(1, FinishReason::Length)];
    let script = [vec![started()], text(1, "b"), text(0, "a"), ends.to_vec()].concat();
    let router = TestRouter::playing(vec![script]).await;
    let body = chat(json!({"stream": true, "n": 2}));
    let events = router.post("/v1/chat/completions", &body).await.events();
    let roles: Vec<u64> = events
        .iter()
        .filter(|event| event["choices"][0]["delta"]["role"] == "assistant")
        .map(|event| event["choices"][0]["index"].as_u64().unwrap())
        .collect();
    assert_eq!(roles, [1, 0]);
}

#[tokio::test]
async fn a_failure_after_the_first_token_is_an_event_and_there_is_no_done() {
    let script =
        [vec![started()], text(0, "half"), vec![Step::Fail(failure(ErrorCode::Unavailable))]]
            .concat();
    let router = TestRouter::playing(vec![script]).await;
    let answer = router.post("/v1/chat/completions", &chat(json!({"stream": true}))).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("\nevent: error\ndata: "), "{}", answer.body);
    assert!(!answer.body.contains("[DONE]"));
    let events = answer.events();
    let error = json!({"message": "as scripted", "type": "server_error", "param": null, "code": "unavailable"});
    assert_eq!(events.last().unwrap()["error"], error);
}

#[tokio::test]
async fn held_back_text_is_given_out_once_it_is_no_stop_string() {
    let router = TestRouter::playing(vec![says("a STOX")]).await;
    let body = chat(json!({"stream": true, "stop": ["STOP"], "logprobs": true}));
    let events = router.post("/v1/chat/completions", &body).await.events();
    let deltas: Vec<&str> =
        events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(deltas.concat(), "a STOX");
    assert!(!deltas.contains(&"S"), "{deltas:?}");
    let tokens: usize = events
        .iter()
        .filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array())
        .map(Vec::len)
        .sum();
    assert_eq!(tokens, 6, "held tokens come with their text");
}

#[tokio::test]
async fn tokens_of_a_cut_stop_string_are_not_shown() {
    let router = TestRouter::playing(vec![says("ab##")]).await;
    let body = chat(json!({"stream": true, "stop": ["##"], "logprobs": true}));
    let events = router.post("/v1/chat/completions", &body).await.events();
    let tokens: Vec<&str> = events
        .iter()
        .filter_map(|e| e["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .map(|token| token["token"].as_str().unwrap())
        .collect();
    assert_eq!(tokens, ["a", "b"]);
}

#[tokio::test]
async fn headers_and_tokens_are_sent_as_soon_as_they_are_known() {
    let script = vec![
        started(),
        Step::Wait,
        token(0, 0, 65),
        Step::Wait,
        token(0, 1, 66),
        finished(0, FinishReason::Length),
    ];
    let router = TestRouter::playing(vec![script]).await;
    let body = chat(json!({"stream": true}));
    let response =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200, "before the first token");
    let mut chunks = response.bytes_stream();
    for letter in ["A", "B"] {
        router.peer.go_on();
        let chunk = chunks.next().await.unwrap().unwrap();
        let text = String::from_utf8(chunk.to_vec()).unwrap();
        assert!(text.contains(&format!(r#""content":"{letter}""#)), "{text}");
    }
}

/// The events of a client that takes every empty line for the end of one.
fn plain_events(body: &str) -> Vec<String> {
    let mut events = vec![String::new()];
    for line in body.lines() {
        match line.strip_prefix("data: ") {
            Some(data) => events.last_mut().unwrap().push_str(data),
            None if line.is_empty() => events.push(String::new()),
            None => assert!(line.starts_with(':'), "{line}"),
        }
    }
    assert_eq!(events.pop(), Some(String::new()), "the last event has ended");
    events
}

#[tokio::test]
async fn signs_of_life_are_no_events_even_to_plain_clients() {
    let script = [
        vec![started(), Step::Wait],
        text(0, "A"),
        vec![Step::Wait],
        text(0, "B").into_iter().map(|_| token(0, 1, 66)).collect(),
        vec![finished(0, FinishReason::Length)],
    ];
    let router = TestRouter::configured(vec![script.concat()], |config| {
        config.limits.keep_alive = std::time::Duration::from_millis(10);
    })
    .await;
    let body = chat(json!({"stream": true}));
    let response =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    let (mut chunks, mut body, mut signs) = (response.bytes_stream(), String::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = String::from_utf8(chunk.unwrap().to_vec()).unwrap();
        if chunk.starts_with(": keep-alive") {
            signs += 1;
            router.peer.go_on();
        }
        body.push_str(&chunk);
    }
    assert!(signs >= 2, "{body}");
    let events = plain_events(&body);
    let texts: String = events[..events.len() - 1]
        .iter()
        .map(|data| serde_json::from_str::<Json>(data).expect(data))
        .filter_map(|e| Some(e["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!((texts.as_str(), events.last().unwrap().as_str()), ("AB", "[DONE]"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_work() {
    let script = vec![started(), token(0, 0, 65), Step::Hang];
    let router = TestRouter::playing(vec![script]).await;
    let body = chat(json!({"stream": true}));
    let response =
        router.client.post(router.at("/v1/chat/completions")).json(&body).send().await.unwrap();
    let mut chunks = response.bytes_stream();
    chunks.next().await.unwrap().unwrap();
    drop(chunks);
    router.peer.cancelled(1).await;
    let metrics = router.metrics.encode();
    assert!(metrics.contains("outcome=\"cancelled\",endpoint=\"chat\"} 1"), "{metrics}");
    assert!(metrics.contains("baton_requests_running 0"));
}

#[tokio::test]
async fn a_client_that_leaves_before_the_first_token_cancels_the_work() {
    for stream in [true, false] {
        let router = TestRouter::playing(vec![vec![Step::Hang]]).await;
        let body = chat(json!({"stream": stream}));
        let sent = router.client.post(router.at("/v1/chat/completions")).json(&body).send();
        let arrives = async {
            while router.peer.requests().is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            answer = sent => panic!("{answer:?} before the first token"),
            () = arrives => {}
        }
        router.peer.cancelled(1).await;
    }
}

#[tokio::test]
async fn the_deadline_ends_a_stream_and_its_work() {
    let script = vec![started(), token(0, 0, 65), Step::Hang];
    let router = TestRouter::playing(vec![script, vec![Step::Hang]]).await;
    let send = || {
        router
            .client
            .post(router.at("/v1/chat/completions"))
            .header("x-baton-timeout-ms", "100")
            .json(&chat(json!({"stream": true})))
            .send()
    };
    let started = Answer::read(send().await.unwrap()).await;
    assert_eq!(started.events().last().unwrap()["error"]["code"], "timeout");
    let never_started = Answer::read(send().await.unwrap()).await;
    assert_eq!(never_started.status, 504);
    assert_eq!(
        never_started.json()["error"]["message"],
        "the request was not finished within 100 ms"
    );
    router.peer.cancelled(2).await;
}
