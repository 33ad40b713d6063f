use cluster::ErrorCode;
use rstest::rstest;
use scheduler::{FinishReason, PromptLogprob, TokenLogprob};
use serde_json::{Value as Json, json};

use crate::dispatch::GenerationEvent;
use crate::testing::*;

#[tokio::test]
async fn an_answer_has_openais_shape() {
    let router = TestRouter::playing(vec![says("ok")]).await;
    let answer = router.post("/v1/completions", &completion(json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let body = answer.json();
    assert!(body["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(body["object"], "text_completion");
    let choice = json!({"text": "ok", "index": 0, "logprobs": null, "finish_reason": "length"});
    assert_eq!(body["choices"], json!([choice]));
    let generation = &router.peer.requests()[0].generation;
    assert_eq!(generation.prompt[..], [BOS, 104, 105], "a raw prompt begins with a BOS");
    assert_eq!(generation.stop.max_tokens, 16, "OpenAI's default");
}

#[rstest]
#[case(json!("hello"), vec![vec![BOS, HELLO]])]
#[case(json!(["a", "b"]), vec![vec![BOS, 97], vec![BOS, 98]])]
#[case(json!([97, 98]), vec![vec![97, 98]])]
#[case(json!([[97], [98, 99]]), vec![vec![97], vec![98, 99]])]
#[tokio::test]
async fn a_prompt_has_four_forms(#[case] prompt: Json, #[case] expected: Vec<Vec<u32>>) {
    let router = TestRouter::playing(vec![says("x")]).await;
    let answer = router.post("/v1/completions", &completion(json!({"prompt": prompt}))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let requests = router.peer.requests();
    let prompts: Vec<&[u32]> = requests.iter().map(|r| &r.generation.prompt[..]).collect();
    assert_eq!(prompts, expected);
    assert_eq!(answer.json()["choices"].as_array().unwrap().len(), expected.len());
}

#[tokio::test]
async fn choices_of_several_prompts_are_numbered_through() {
    let script = |words: [&str; 2]| {
        let ends = [finished(0, FinishReason::Length), finished(1, FinishReason::Length)];
        [vec![started()], text(0, words[0]), text(1, words[1]), ends.to_vec()].concat()
    };
    let scripts = vec![script(["p0c0", "p0c1"]), script(["p1c0", "p1c1"])];
    let router = TestRouter::playing(scripts).await;
    let body = completion(json!({"prompt": ["a", "b"], "n": 2}));
    let answer = router.post("/v1/completions", &body).await.json();
    let choices = answer["choices"].as_array().unwrap().clone();
    let texts: Vec<&str> = choices.iter().map(|c| c["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["p0c0", "p0c1", "p1c0", "p1c1"]);
    assert_eq!(answer["usage"]["prompt_tokens"], 4);
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    let ids: Vec<String> =
        router.peer.requests().iter().map(|r| r.generation.id.to_string()).collect();
    assert_ne!(ids[0], ids[1], "each dispatch has its own name");
}

#[tokio::test]
async fn one_prompt_that_is_refused_refuses_the_request() {
    let scripts = vec![says("x"), vec![Step::Refuse(failure(ErrorCode::Busy))]];
    let router = TestRouter::playing(scripts).await;
    let body = completion(json!({"prompt": ["a", "b"]}));
    assert_eq!(router.post("/v1/completions", &body).await.status, 429);
}

#[tokio::test]
async fn echo_begins_with_the_prompt() {
    let router = TestRouter::playing(vec![says(" there")]).await;
    for prompt in [json!("hi é"), json!([104, 105, 32, 0xC3, 0xA9])] {
        let body = completion(json!({"prompt": prompt, "echo": true}));
        let answer = router.post("/v1/completions", &body).await.json();
        assert_eq!(answer["choices"][0]["text"], "hi é there");
    }
}

#[tokio::test]
async fn a_prompt_alone_can_be_echoed_without_an_answer() {
    let router = TestRouter::playing(vec![vec![started(), Step::Hang]]).await;
    let body = completion(json!({"echo": true, "max_tokens": 0}));
    let answer = router.post("/v1/completions", &body).await.json();
    assert_eq!(answer["choices"][0]["text"], "hi");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    router.peer.cancelled(1).await;
}

#[tokio::test]
async fn logprobs_have_offsets_in_the_text() {
    let script = [
        vec![started(), token(0, 0, HELLO), token(0, 1, 0xC3), token(0, 2, 0xA9)],
        vec![token(0, 3, 33), finished(0, FinishReason::Length)],
    ]
    .concat();
    let router = TestRouter::playing(vec![script]).await;
    let answer = router.post("/v1/completions", &completion(json!({"logprobs": 2}))).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(answer["choices"][0]["text"], "helloé!");
    assert_eq!(logprobs["tokens"], json!(["hello", "\u{FFFD}", "\u{FFFD}", "!"]));
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5, -0.5, -0.5]));
    assert_eq!(logprobs["top_logprobs"][0], json!({"hello": -0.5, "A": -1.5}));
    assert_eq!(logprobs["text_offset"], json!([0, 5, 5, 6]));
}

#[tokio::test]
async fn an_echoed_prompt_is_scored_before_the_answer() {
    let score = |index, logprob| PromptLogprob {
        index,
        logprob: TokenLogprob { logprob, top: vec![(65, -0.125)] },
    };
    let scores = Step::Send(GenerationEvent::PromptLogprobs(vec![score(1, -1.0), score(2, -2.0)]));
    // Tokens may overtake the scores.
    let script = vec![started(), token(0, 0, 33), scores, finished(0, FinishReason::Length)];
    let router = TestRouter::playing(vec![script]).await;
    let body = completion(json!({"prompt": "hi", "echo": true, "logprobs": 1, "max_tokens": 1}));
    let answer = router.post("/v1/completions", &body).await.json();
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(answer["choices"][0]["text"], "hi!");
    assert_eq!(logprobs["tokens"], json!(["<|bos|>", "h", "i", "!"]));
    assert_eq!(logprobs["token_logprobs"], json!([null, -1.0, -2.0, -0.5]));
    assert_eq!(logprobs["top_logprobs"][1], json!({"A": -0.125, "h": -1.0}));
    assert_eq!(logprobs["top_logprobs"][0], Json::Null);
    assert_eq!(logprobs["text_offset"], json!([0, 0, 1, 2]));
    assert_eq!(router.peer.requests()[0].generation.prompt_logprobs, Some(1));
}

#[tokio::test]
async fn impossible_tokens_have_a_finite_logprob() {
    let step = Step::Send(GenerationEvent::Tokens(vec![scheduler::SampledToken {
        choice: 0,
        index: 0,
        token: 65,
        logprob: Some(TokenLogprob { logprob: f32::NEG_INFINITY, top: vec![] }),
    }]));
    let script = vec![started(), step, finished(0, FinishReason::Length)];
    let router = TestRouter::playing(vec![script]).await;
    let answer = router.post("/v1/completions", &completion(json!({"logprobs": 0}))).await.json();
    assert_eq!(answer["choices"][0]["logprobs"]["token_logprobs"], json!([-9999.0]));
}
