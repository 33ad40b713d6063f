//! Scores of texts as lm-eval asks for them, against what the model said token by token.

use baton_tests::Single;
use baton_tests::client::grpc::token_request;
use proto::v1;
use serde_json::{Value, json};

/// What is generated after a prompt, to be scored again as part of it.
const ANSWER_TOKENS: u32 = 24;
/// Between two ways of computing the same in 32 bits.
const TOLERANCE: f64 = 1e-3;

/// A text's tokens, their scores, and the best score at each place.
struct Scored {
    scores: Vec<Option<f64>>,
    best: Vec<Option<f64>>,
    offsets: Vec<u64>,
}

// === impl Scored ===

impl Scored {
    fn of(choice: &Value) -> Self {
        let logprobs = &choice["logprobs"];
        let list = |field: &str| logprobs[field].as_array().expect("a list").clone();
        let best = |top: &Value| {
            let top = top.as_object()?.values().filter_map(Value::as_f64);
            Some(top.fold(f64::NEG_INFINITY, f64::max))
        };
        Self {
            scores: list("token_logprobs").iter().map(Value::as_f64).collect(),
            best: list("top_logprobs").iter().map(best).collect(),
            offsets: list("text_offset").iter().filter_map(Value::as_u64).collect(),
        }
    }
}

async fn complete(single: &Single, body: Value) -> Value {
    let client = single.node.client();
    let kind = "application/json";
    let (status, _, text) = client.post_bytes("/v1/completions", kind, body.to_string()).await;
    assert_eq!(status.as_u16(), 200, "{text}");
    serde_json::from_str(&text).expect("JSON")
}

/// As lm-eval scores a batch of texts.
async fn score(single: &Single, prompts: &Value) -> Value {
    let body = json!({"prompt": prompts, "max_tokens": 1, "temperature": 0, "logprobs": 1,
                      "seed": 1234, "echo": true});
    complete(single, body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_score_what_the_model_gave_them_token_by_token() {
    // Small steps: the scores of one text come in several parts.
    let single = Single::start(&["--batch-tokens-max", "32", "--sequences-max", "4"]).await;
    let prompt: Vec<u32> = (300..360).collect();
    let request =
        v1::InferenceRequest { logprobs: Some(0), ..token_request(&prompt, ANSWER_TOKENS) };
    let said = single.node.grpc().await.generate(request).await.expect("an answer");
    assert_eq!(said.logprobs[&0].len(), said.tokens().len());

    let text = [&prompt, said.tokens()].concat();
    let whole = score(&single, &json!([text, [300]])).await;
    let scored = Scored::of(&whole["choices"][0]);
    let other = Scored::of(&whole["choices"][1]);
    let usage = whole["usage"]["total_tokens"].as_u64().expect("a count") as usize;
    assert_eq!(scored.scores.len() + other.scores.len(), usage, "an entry for each token");
    assert_eq!(scored.scores.len(), text.len() + 1);
    assert_eq!(scored.scores[0], None);
    assert!(scored.scores[1..].iter().all(Option::is_some), "{:?}", scored.scores);
    assert!(scored.offsets.is_sorted());

    // lm-eval's own slice: what follows the context, without the one token that was generated.
    let end = scored.scores.len() - 1;
    let of_answer = &scored.scores[prompt.len()..end];
    for (index, (again, first)) in of_answer.iter().zip(&said.logprobs[&0]).enumerate() {
        let (again, first) = (again.expect("a score"), f64::from(first.logprob));
        assert!((again - first).abs() < TOLERANCE, "{index}: {again} {first}");
    }
    assert_eq!(of_answer, &scored.best[prompt.len()..end], "what is greedy is seen to be");
    single.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_ids_of_any_length_are_scored_in_one_batch() {
    let single = Single::start(&[]).await;
    let whole = score(&single, &json!([[40], [40, 41], [40, 41, 42, 43]])).await;
    let lengths: Vec<usize> = whole["choices"]
        .as_array()
        .expect("choices")
        .iter()
        .map(|choice| Scored::of(choice).scores.len())
        .collect();
    assert_eq!(lengths, [2, 3, 5]);
    // The same text scores the same wherever its context ends.
    let again = score(&single, &json!([[40, 41, 42, 43]])).await;
    let (first, again) = (Scored::of(&whole["choices"][2]), Scored::of(&again["choices"][0]));
    assert_eq!(first.scores, again.scores);
    single.assert_clean().await;
}
