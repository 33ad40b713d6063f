use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::testing::*;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A field, what is wrong with its value, and what the error must name: `(fields, param, word in
/// the message)`. All are 400.
fn chat_table() -> Vec<(Json, &'static str, &'static str)> {
    let message = |message: Json| json!({"messages": [message]});
    vec![
        (json!({"messages": null}), "messages", "missing"),
        (json!({"messages": []}), "messages", "empty"),
        (json!({"messages": "hi"}), "messages", "a string"),
        (json!({"messages": {}}), "messages", "an object"),
        (message(json!("hi")), "messages[0]", "a string"),
        (message(json!({"content": "x"})), "messages[0].role", "no `role`"),
        (message(json!({"role": 1, "content": "x"})), "messages[0].role", "a number"),
        (message(json!({"role": "wizard", "content": "x"})), "messages[0].role", "wizard"),
        (message(json!({"role": "user"})), "messages[0].content", "missing"),
        (message(json!({"role": "user", "content": null})), "messages[0].content", "missing"),
        (message(json!({"role": "user", "content": 7})), "messages[0].content", "a number"),
        (
            message(json!({"role": "user", "content": ["x"]})),
            "messages[0].content[0].type",
            "no `type`",
        ),
        (
            message(json!({"role": "user", "content": [{"type": "text"}]})),
            "messages[0].content[0].text",
            "no text",
        ),
        (
            message(
                json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}),
            ),
            "messages[0].content[0].type",
            "text only",
        ),
        (
            message(json!({"role": "tool", "content": "x"})),
            "messages[0].tool_call_id",
            "tool_call_id",
        ),
        (
            message(json!({"role": "user", "content": "x", "tool_calls": [{}]})),
            "messages[0].tool_calls",
            "assistant",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": [{}]})),
            "messages[0].tool_calls[0].function",
            "name",
        ),
        (
            message(called_with(json!("{\"a\": "))),
            "messages[0].tool_calls[0].function.arguments",
            "no valid JSON: EOF",
        ),
        (
            message(called_with(json!("[1]"))),
            "messages[0].tool_calls[0].function.arguments",
            "an array, not a JSON object",
        ),
        (
            message(called_with(json!(7))),
            "messages[0].tool_calls[0].function.arguments",
            "a number",
        ),
        (
            message(json!({"role": "assistant", "tool_calls": 1})),
            "messages[0].tool_calls",
            "a number",
        ),
        (json!({"temperature": 2.1}), "temperature", "outside of 0 to 2"),
        (json!({"temperature": -0.1}), "temperature", "outside"),
        (json!({"temperature": "hot"}), "temperature", "expected f64"),
        (json!({"top_p": 1.5}), "top_p", "outside of 0 to 1"),
        (json!({"top_k": -2}), "top_k", "less than the minimum"),
        (json!({"top_k": 1.5}), "top_k", "expected an integer"),
        (json!({"min_p": -1}), "min_p", "outside"),
        (json!({"repetition_penalty": 0}), "repetition_penalty", "above 0"),
        (json!({"frequency_penalty": 2.5}), "frequency_penalty", "outside of -2 to 2"),
        (json!({"presence_penalty": -3}), "presence_penalty", "outside of -2 to 2"),
        (json!({"max_tokens": 0}), "max_tokens", "minimum of 1"),
        (json!({"max_tokens": -1}), "max_tokens", "minimum of 0"),
        (json!({"max_tokens": 1.5}), "max_tokens", "expected an integer"),
        (json!({"max_tokens": 1e30}), "max_tokens", "expected an integer"),
        (json!({"max_completion_tokens": -5}), "max_completion_tokens", "minimum"),
        (json!({"max_tokens": 5, "min_tokens": 6}), "min_tokens", "more than"),
        (json!({"max_tokens": 10_000}), "max_tokens", "maximum context length is 256 tokens"),
        (json!({"min_tokens": 10_000}), "min_tokens", "maximum context length is 256 tokens"),
        (json!({"min_tokens": u32::MAX}), "min_tokens", "maximum context length is 256 tokens"),
        (
            json!({"max_tokens": 10_000}),
            "max_tokens",
            "limit that `max_tokens` leaves: it is 10000;",
        ),
        (json!({"max_tokens": 256}), "max_tokens", "give at most 2"),
        (
            json!({"max_completion_tokens": 10_000}),
            "max_completion_tokens",
            "maximum context length is 256 tokens",
        ),
        (
            json!({"messages": [{"role": "user", "content": "x".repeat(300)}]}),
            "messages",
            "configured limit of 256 tokens",
        ),
        (json!({"n": 0}), "n", "minimum of 1"),
        (json!({"n": 100_000}), "n", "maximum of 128"),
        (json!({"n": "two"}), "n", "expected an integer"),
        (json!({"seed": 1.5}), "seed", "expected an integer"),
        (json!({"stop": ""}), "stop", "empty"),
        (json!({"stop": ["a", ""]}), "stop", "empty"),
        (json!({"stop": 7}), "stop", "a string or a list"),
        (json!({"stop": ["a", 7]}), "stop", "a string or a list"),
        (json!({"stop": vec!["x"; 257]}), "stop", "at most 256"),
        (json!({"stop": vec!["x".repeat(1000); 17]}), "stop", "16384 bytes together"),
        (json!({"stop": "x".repeat(2000)}), "stop", "1024 bytes"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids", "outside"),
        (json!({"stop_token_ids": [1_000_000]}), "stop_token_ids", "outside"),
        (json!({"stop_token_ids": "x"}), "stop_token_ids", "expected a sequence"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias", "no token id"),
        (json!({"logit_bias": {"-1": 1}}), "logit_bias", "no token id"),
        (json!({"logit_bias": {"99999": 1}}), "logit_bias", "outside"),
        (json!({"logit_bias": {"65": 101}}), "logit_bias", "-100 to 100"),
        (json!({"logit_bias": {"65": "much"}}), "logit_bias.65", "expected f64"),
        (json!({"logit_bias": [1]}), "logit_bias", "expected a map"),
        (json!({"logprobs": 5}), "logprobs", "expected a boolean"),
        (json!({"top_logprobs": 5}), "top_logprobs", "goes with `logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs", "maximum of 20"),
        (json!({"logprobs": true, "top_logprobs": -1}), "top_logprobs", "minimum of 0"),
        (json!({"stream": "yes"}), "stream", "expected a boolean"),
        (json!({"stream_options": {"include_usage": true}}), "stream_options", "stream: true"),
        (
            json!({"stream": true, "stream_options": {"continuous_usage_stats": 1}}),
            "stream_options.continuous_usage_stats",
            "expected a boolean",
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            "response_format",
            "not supported yet",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {}}}),
            "response_format",
            "not supported yet",
        ),
        (json!({"tools": [{"type": "function"}]}), "tools[0]", "function"),
        (json!({"tools": "x"}), "tools", "expected a sequence"),
        (json!({"tool_choice": "required"}), "tool_choice", "not supported"),
        (
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
            "tool_choice",
            "not supported",
        ),
        (json!({"functions": [{"name": "f"}]}), "functions", "not supported"),
        (json!({"modalities": ["audio"]}), "modalities", "not supported"),
        (json!({"guided_json": {"type": "object"}}), "guided_json", "not supported"),
        (json!({"cache_salt": ""}), "cache_salt", "empty"),
        (json!({"cache_salt": 5}), "cache_salt", "expected a string"),
        (json!({"model": 7}), "model", "expected a string"),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
            "leave out",
        ),
        (json!({"chat_template_kwargs": [1]}), "chat_template_kwargs", "expected a map"),
    ]
}

/// An assistant's message that called a tool.
fn called_with(arguments: Json) -> Json {
    let mut function = json!({"name": "f"});
    function["arguments"] = arguments;
    json!({"role": "assistant", "tool_calls": [{"function": function}]})
}

fn completions_table() -> Vec<(Json, &'static str, &'static str)> {
    vec![
        (json!({"prompt": null}), "prompt", "missing"),
        (json!({"prompt": []}), "prompt", "empty array"),
        (json!({"prompt": {}}), "prompt", "an object"),
        (json!({"prompt": true}), "prompt", "a boolean"),
        (json!({"prompt": [[]]}), "prompt[0]", "empty array"),
        (json!({"prompt": ["a", 1]}), "prompt[1]", "among texts"),
        (json!({"prompt": [1, "a"]}), "prompt[1]", "among token ids"),
        (json!({"prompt": [[1], "a"]}), "prompt[1]", "among token ids"),
        (json!({"prompt": [1, 2.5]}), "prompt[1]", "among token ids"),
        (json!({"prompt": [-1]}), "prompt[0]", "outside of this model's 0 to 265"),
        (json!({"prompt": [[1], [266]]}), "prompt[1][0]", "outside"),
        (json!({"prompt": vec!["x"; 65]}), "prompt", "at most 64"),
        (json!({"prompt": vec!["x"; 60], "n": 3}), "n", "more than 128 choices"),
        (json!({"prompt": "x".repeat(256)}), "prompt", "configured limit of 256"),
        (json!({"prompt": "x".repeat(250)}), "max_tokens", "configured limit of 240"),
        (json!({"suffix": "end"}), "suffix", "not supported"),
        (json!({"best_of": 5}), "best_of", "not supported"),
        (json!({"logprobs": 21}), "logprobs", "maximum of 20"),
        (json!({"logprobs": true}), "logprobs", "expected an integer"),
        (json!({"echo": "x"}), "echo", "expected a boolean"),
        (json!({"max_tokens": 0}), "max_tokens", "echo"),
    ]
}

#[tokio::test]
async fn every_wrong_field_is_named() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let chats = chat_table().into_iter().map(|row| (CHAT, chat as fn(Json) -> Json, row));
    let completions = completions_table()
        .into_iter()
        .map(|row| (COMPLETIONS, completion as fn(Json) -> Json, row));
    for (path, body, (fields, param, word)) in chats.chain(completions) {
        let answer = router.post(path, &body(fields.clone())).await;
        let error = answer.json()["error"].clone();
        assert_eq!(answer.status, 400, "{fields}: {error}");
        assert_eq!(error["param"], param, "{fields}: {error}");
        assert_eq!(error["type"], "invalid_request_error", "{fields}");
        assert!(error["message"].as_str().unwrap().contains(word), "{fields}: {error}");
        assert!(error.as_object().unwrap().contains_key("code"), "{fields}");
    }
    assert!(router.peer.requests().is_empty(), "nothing wrong reaches the workers");
}

#[tokio::test]
async fn mistakes_with_a_name_of_their_own_have_it() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for (fields, code) in [
        (json!({"max_tokens": 10_000}), "context_length_exceeded"),
        (json!({"functions": [{}]}), "unsupported_parameter"),
    ] {
        assert_eq!(router.post(CHAT, &chat(fields)).await.json()["error"]["code"], code);
    }
    let unknown = router.post(CHAT, &chat(json!({"model": "gpt-9"}))).await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "model_not_found");
    assert_eq!(unknown.json()["error"]["param"], "model");
}

#[tokio::test]
async fn harmless_and_neutral_fields_are_let_through() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for fields in [
        json!({"user": "u", "store": true, "service_tier": "auto", "metadata": {"k": "v"}}),
        json!({"functions": null, "guided_json": null, "modalities": ["text"], "use_beam_search": false}),
        json!({"response_format": {"type": "text"}, "tools": [], "tool_choice": "none", "logit_bias": {}}),
        json!({"stop": null, "logprobs": false, "seed": u64::MAX, "stop_token_ids": []}),
    ] {
        let answer = router.post(CHAT, &chat(fields.clone())).await;
        assert_eq!(answer.status, 200, "{fields}: {}", answer.body);
    }
    let fields = json!({"best_of": 1, "suffix": "", "stop": [], "top_k": -1});
    assert_eq!(router.post(COMPLETIONS, &completion(fields)).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_no_json_object_say_what_they_are() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for (body, word) in [
        (&b""[..], "empty"),
        (b"  \n", "empty"),
        (b"{\"model\": \"test-model\",\n \"messages\": [}", "line 2 column"),
        (b"{\"a\": NaN}", "line 1 column"),
        (b"{\"temperature\": 1e999}", "line 1"),
        (b"{'a': 1}", "line 1"),
        (b"[1, 2]", "an array"),
        (b"\"text\"", "a string"),
        (b"null", "null"),
        (b"{} trailing", "trailing"),
        (b"{\"a\": \"\xff\"}", "not valid UTF-8, from byte 7"),
    ] {
        for path in [CHAT, COMPLETIONS] {
            let request =
                router.client.post(router.at(path)).header("content-type", "application/json");
            let answer = Answer::read(request.body(body.to_vec()).send().await.unwrap()).await;
            let error = answer.json()["error"].clone();
            assert_eq!(answer.status, 400, "{error}");
            assert!(error["message"].as_str().unwrap().contains(word), "{word}: {error}");
        }
    }
    let deep = "[".repeat(10_000);
    let answer =
        Answer::read(router.client.post(router.at(CHAT)).body(deep).send().await.unwrap()).await;
    assert_eq!(answer.status, 400, "nesting is bounded");
}

#[tokio::test]
async fn other_media_types_are_refused() {
    let router = TestRouter::playing(vec![says("x")]).await;
    let send = |headers: Vec<(&'static str, &'static str)>| {
        let mut request = router.client.post(router.at(CHAT)).body(chat(json!({})).to_string());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        async move { Answer::read(request.send().await.unwrap()).await }
    };
    for (headers, status) in [
        (vec![], 200),
        (vec![("content-type", "application/json; charset=UTF-8")], 200),
        (vec![("content-type", "application/vnd.api+json")], 200),
        (vec![("content-type", "text/plain")], 415),
        (vec![("content-type", "multipart/form-data; boundary=x")], 415),
        (vec![("content-type", "application/json; charset=latin1")], 415),
        (vec![("content-type", "application/json"), ("content-encoding", "gzip")], 415),
    ] {
        let answer = send(headers.clone()).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.body);
        if status == 415 {
            assert_eq!(answer.json()["error"]["code"], "unsupported_media_type");
        }
    }
}

#[tokio::test]
async fn routes_methods_and_sizes_have_their_own_statuses() {
    let router =
        TestRouter::configured(vec![says("x")], |config| config.limits.body_bytes = 1000).await;
    let unknown = router.get("/v1/nothing").await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (404, &json!("unknown_url")));
    for (method, path, allow) in [
        (Method::GET, CHAT, "POST"),
        (Method::DELETE, COMPLETIONS, "POST"),
        (Method::POST, "/v1/models", "GET,HEAD"),
        (Method::PUT, "/ready", "GET,HEAD"),
    ] {
        let request = router.client.request(method.clone(), router.at(path));
        let answer = Answer::read(request.send().await.unwrap()).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert_eq!(answer.header("allow"), allow);
        assert_eq!(answer.json()["error"]["code"], "method_not_allowed");
    }
    let large = chat(json!({"user": "x".repeat(2000)}));
    let announced = router.post(CHAT, &large).await;
    assert_eq!(
        (announced.status, &announced.json()["error"]["code"]),
        (413, &json!("body_too_large"))
    );
    let chunks = futures::stream::iter([Ok::<_, std::io::Error>(large.to_string())]);
    let body = reqwest::Body::wrap_stream(chunks);
    let chunked = router.client.post(router.at(CHAT)).body(body).send().await.unwrap();
    assert_eq!(chunked.status(), 413);
}

#[tokio::test]
async fn a_time_that_is_no_number_is_refused() {
    let router = TestRouter::playing(vec![says("x")]).await;
    for name in ["timeout", "ttft-target", "tpot-target", "itl-target"] {
        let name = format!("x-baton-{name}-ms");
        let year = ("31536000000", 200);
        for (value, status) in
            [("0", 400), ("-1", 400), ("soon", 400), ("1000", 200), year, ("31536000001", 400)]
        {
            let request = router.client.post(router.at(CHAT)).header(&name, value);
            let answer = Answer::read(request.json(&chat(json!({}))).send().await.unwrap()).await;
            assert_eq!(answer.status, status, "{name} {value}: {}", answer.body);
            assert!(status == 200 || answer.body.contains(&name), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_template_that_refuses_is_the_clients_mistake() {
    let source = "{{ raise_exception('roles must alternate') }}";
    let template = crate::text::ChatTemplate::from_source(source, Default::default()).unwrap();
    let router = TestRouter::configured(vec![says("x")], |config| {
        let with = |name: &str, template| crate::ServedModel {
            name: name.into(),
            aliases: vec![],
            template,
            ..model()
        };
        let models = vec![with("raises", Some(template)).into(), with("base", None).into()];
        config.models = crate::ModelCatalog::new(models).unwrap();
    })
    .await;
    for (name, word) in [("raises", "roles must alternate"), ("base", "no chat template")] {
        let answer = router.post(CHAT, &chat(json!({"model": name}))).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["param"]), (400, &json!("messages")));
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let unnamed = router.post(CHAT, &json!({"messages": [{"role": "user", "content": "x"}]})).await;
    assert_eq!((unnamed.status, &unnamed.json()["error"]["param"]), (400, &json!("model")));
}

/// Heads that a proxy and a server could read in two ways: what is written after `POST ... HTTP/1.1`, and what is
/// wrong with it.
#[tokio::test]
async fn heads_that_could_mean_two_things_are_refused() {
    let router = TestRouter::playing(vec![says("x"); 3]).await;
    let body = completion(json!({})).to_string();
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = format!("content-length: {}\r\n", body.len());
    let (chunks, whole) = (
        |head: &str| format!("{head}\r\n{chunked}"),
        |head: &str| format!("{head}{length}\r\n{body}"),
    );
    for (request, problem) in [
        (whole("host: x\r\n"), ""),
        (whole("host:\r\n"), ""),
        (chunks("host: x\r\ntransfer-encoding: chunked\r\n"), ""),
        (whole(""), "Host header is missing"),
        (whole("host: x\r\nhost: x\r\n"), "more than one Host"),
        (whole("host: x, y\r\n"), "no host"),
        (whole("host: a@x\r\n"), "no host"),
        (chunks("host: x\r\ntransfer-encoding: gzip, chunked\r\n"), "can only be `chunked`"),
        (chunks("host: x\r\ntransfer-encoding: chunked, chunked\r\n"), "can only be `chunked`"),
        (
            chunks("host: x\r\ntransfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n"),
            "can only be `chunked`",
        ),
    ] {
        let answer = router.exchange(&format!("POST {COMPLETIONS} HTTP/1.1\r\n{request}")).await;
        let (status, fault) =
            if problem.is_empty() { ("200 OK", "x") } else { ("400 Bad", problem) };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {answer}");
        assert!(answer.contains(fault), "{request}: {answer}");
        assert_eq!(answer.contains("connection: close"), !problem.is_empty(), "{answer}");
    }
}

/// The largest number has 309 digits.
#[tokio::test]
async fn an_error_gives_back_numbers_in_few_digits() {
    let router = TestRouter::playing(vec![]).await;
    for fields in [
        json!({"temperature": 1e308}),
        json!({"temperature": -1e-300}),
        json!({"top_k": 1e308}),
        json!({"max_tokens": 1e308}),
        json!({"stop_token_ids": [1e308]}),
        json!({"logit_bias": {"1": 1e308}}),
        json!({"cache_salt": 1e308}),
        json!({"tool_choice": {"name": "x".repeat(5000)}}),
    ] {
        let answer = router.post(CHAT, &chat(fields.clone())).await;
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 400, "{fields}: {message}");
        assert!(message.len() < 260, "{message}");
    }
    let answer = router.post(CHAT, &chat(json!({"temperature": 1e308}))).await;
    let message = "`temperature` is 1e308, outside of 0 to 2";
    assert_eq!(answer.json()["error"]["message"], message);
}
