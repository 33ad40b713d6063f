//! Where a request would go, told to those who may know.

use rstest::rstest;
use serde_json::{Value as Json, json};

use super::strangers::with_keys;
use crate::testing::*;

const EXPLAIN: &str = "/v1/route/explain";

async fn explain(router: &TestRouter, body: &Json, key: Option<&str>) -> (u16, Json) {
    let mut request = router.client.post(router.at(EXPLAIN)).json(body);
    if let Some(name) = key {
        request = request.header("x-api-key", format!("sk-{name}"));
    }
    let answer = Answer::read(request.send().await.unwrap()).await;
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

fn hello() -> Json {
    json!({"model": "test-model", "messages": [{"role": "user", "content": "hello"}]})
}

#[tokio::test]
async fn operators_see_every_worker_and_tenants_none() {
    let (router, _folder) = with_keys(&[
        ("boss", "operator = true"),
        ("tenant", "tenant = \"red\""),
        ("both", "tenant = \"red\"\noperator = true"),
    ])
    .await;
    for (key, sees_workers) in [("boss", true), ("tenant", false), ("both", true)] {
        let (status, answer) = explain(&router, &hello(), Some(key)).await;
        assert_eq!((status, &answer["object"]), (200, &json!("route.explanation")));
        let prompt = &answer["prompts"][0];
        assert!(prompt["prompt_tokens"].as_u64().unwrap() > 5, "{answer}");
        assert_eq!(prompt["refusal"], json!({"message": "as scripted", "retry_after_ms": 2500}));
        assert_eq!(answer.to_string().contains("prefill-1"), sees_workers, "{answer}");
        if sees_workers {
            let cached = json!({"device": 16, "host": 32, "disk": 32});
            assert_eq!(prompt["candidates"][0]["cached_tokens"], cached);
            assert_eq!(prompt["candidates"][0]["terms_ms"]["prefill"], 250.0);
            assert_eq!(prompt["candidates"][1]["verdict"], "unhealthy");
        }
    }
    let (status, _) = explain(&router, &hello(), None).await;
    assert_eq!(status, 401);
    let asked = router.peer.explained.lock().clone();
    assert_eq!(asked[1].salt, asked[2].salt, "a tenant asks about its own cache");
    assert_ne!(asked[0].salt, asked[1].salt);
    assert!(router.peer.requests().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn where_everyone_may_come_workers_are_named_if_the_router_says_so() {
    for names_workers in [false, true] {
        let configure = |config: &mut crate::GatewayConfig| config.debug_headers = names_workers;
        let router = TestRouter::configured(vec![says("x")], configure).await;
        let (_, answer) = explain(&router, &hello(), None).await;
        assert_eq!(answer["prompts"][0].get("candidates").is_some(), names_workers, "{answer}");
    }
}

#[tokio::test]
async fn a_completion_is_explained_prompt_by_prompt() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let body = json!({"model": "test-model", "prompt": ["one", "and another"], "max_tokens": 3});
    let (status, answer) = explain(&router, &body, None).await;
    assert_eq!((status, answer["prompts"].as_array().unwrap().len()), (200, 2), "{answer}");
}

#[rstest]
#[case::neither(json!({"model": "test-model"}), 400, "messages")]
#[case::wrong(json!({"model": "test-model", "messages": 7}), 400, "messages")]
#[case::unknown_model(json!({"model": "x", "prompt": "a"}), 404, "model")]
#[tokio::test]
async fn what_could_not_be_answered_is_not_explained(
    #[case] body: Json,
    #[case] status: u16,
    #[case] param: &str,
) {
    let router = TestRouter::playing(vec![says("x")]).await;
    let (got, answer) = explain(&router, &body, None).await;
    assert_eq!((got, &answer["error"]["param"]), (status, &json!(param)), "{answer}");
}
