use cluster::ErrorCode;
use rstest::rstest;
use serde_json::{Value as Json, json};
use words::{FinishReason, PromptLogprob, TokenLogprob};

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
    let scores = |scores| Step::Send(GenerationEvent::PromptLogprobs(scores));
    // A long prompt's come in parts, and tokens may overtake them.
    let script = vec![
        started(),
        scores(vec![score(1, -1.0)]),
        token(0, 0, 33),
        scores(vec![score(2, -2.0)]),
        finished(0, FinishReason::Length),
    ];
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

/// What lm-eval does with an answer: `token_logprobs[context:-1]`, the last being the one token that
/// was generated.
#[rstest]
#[case(33, FinishReason::Length)]
#[case(EOS, FinishReason::Stop(EOS))]
#[tokio::test]
async fn scores_have_an_entry_for_each_token_of_the_usage(
    #[case] last: u32,
    #[case] reason: FinishReason,
    #[values(true, false)] stream: bool,
) {
    let score = |index: u32| PromptLogprob {
        index,
        logprob: TokenLogprob { logprob: -f32::from(index as u16), top: vec![(65, -0.125)] },
    };
    let scores = Step::Send(GenerationEvent::PromptLogprobs(vec![score(1), score(2)]));
    let script = vec![started(), scores, token(0, 0, last), finished(0, reason)];
    let router = TestRouter::playing(vec![script]).await;
    let body = completion(json!({"prompt": [[97, 98, 99]], "echo": true, "logprobs": 1,
                                 "max_tokens": 1, "temperature": 0, "stream": stream,
                                 "stream_options": stream.then(|| json!({"include_usage": true}))}));
    let answer = router.post("/v1/completions", &body).await;
    let events = if stream { answer.events() } else { vec![answer.json()] };
    let lists = |field: &str| -> Vec<Json> {
        let of_event = |event: &Json| event["choices"][0]["logprobs"][field].as_array().cloned();
        events.iter().filter_map(of_event).flatten().collect()
    };
    assert_eq!(lists("token_logprobs"), [json!(null), json!(-1.0), json!(-2.0), json!(-0.5)]);
    assert_eq!(lists("text_offset"), [json!(0), json!(1), json!(2), json!(3)]);
    assert_eq!((lists("tokens").len(), lists("top_logprobs").len()), (4, 4));
    let usage = events.iter().find_map(|e| e["usage"].as_object()).unwrap();
    assert_eq!(usage["total_tokens"], 4);
}

#[rstest]
#[case(json!({"max_tokens": 1}), json!([null, -0.5]), "a!")]
#[case(json!({"max_tokens": 0}), json!([null]), "a")]
#[tokio::test]
async fn a_prompt_of_one_token_has_no_scores_to_wait_for(
    #[case] fields: Json,
    #[case] expected: Json,
    #[case] text: &str,
) {
    let script = vec![started(), token(0, 0, 33), finished(0, FinishReason::Length)];
    let router = TestRouter::playing(vec![script]).await;
    let mut body = completion(json!({"prompt": [97], "echo": true, "logprobs": 1}));
    fields.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
    let answer = router.post("/v1/completions", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let choice = &answer.json()["choices"][0];
    assert_eq!(
        (choice["text"].as_str(), &choice["logprobs"]["token_logprobs"]),
        (Some(text), &expected)
    );
    assert_eq!(choice["logprobs"]["text_offset"][0], 0);
}

#[tokio::test]
async fn a_prompt_of_one_token_does_not_fail_its_batch() {
    let score = PromptLogprob { index: 1, logprob: TokenLogprob { logprob: -1.0, top: vec![] } };
    let end = [token(0, 0, 33), finished(0, FinishReason::Length)];
    let scores = Step::Send(GenerationEvent::PromptLogprobs(vec![score]));
    let scripts =
        vec![[&[started()], &end[..]].concat(), [&[started(), scores], &end[..]].concat()];
    let router = TestRouter::playing(scripts).await;
    let fields = json!({"prompt": [[97], [97, 98]], "echo": true, "logprobs": 0, "max_tokens": 1});
    let answer = router.post("/v1/completions", &completion(fields)).await.json();
    let scores = |index: usize| answer["choices"][index]["logprobs"]["token_logprobs"].clone();
    assert_eq!((scores(0), scores(1)), (json!([null, -0.5]), json!([null, -1.0, -0.5])));
}

#[tokio::test]
async fn of_alternatives_that_read_the_same_the_likeliest_counts() {
    // Two bytes that are no characters: both read U+FFFD.
    let top = vec![(0xC3, -0.25), (0xA9, -3.0)];
    let step = Step::Send(GenerationEvent::Tokens(vec![words::SampledToken {
        choice: 0,
        index: 0,
        token: 0xA9,
        logprob: Some(TokenLogprob { logprob: -3.0, top }),
    }]));
    let script = vec![started(), step, finished(0, FinishReason::Length)];
    let router = TestRouter::playing(vec![script]).await;
    let answer = router.post("/v1/completions", &completion(json!({"logprobs": 2}))).await.json();
    let top = &answer["choices"][0]["logprobs"]["top_logprobs"][0];
    assert_eq!(*top, json!({"\u{FFFD}": -0.25}), "not greedy, and seen to be");
}

#[tokio::test]
async fn impossible_tokens_have_a_finite_logprob() {
    let step = Step::Send(GenerationEvent::Tokens(vec![words::SampledToken {
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
