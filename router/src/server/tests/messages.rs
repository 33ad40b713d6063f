//! Conversations as agents and chat front ends send them back, turn by turn.

use rstest::rstest;
use serde_json::{Value as Json, json};

use super::fields::prompt;
use crate::testing::*;
use crate::text::ChatTemplate;

const CHAT: &str = "/v1/chat/completions";

async fn router_with(template: ChatTemplate) -> TestRouter {
    TestRouter::configured(vec![says("x")], |config| {
        let model = crate::ServedModel { template: Some(template), ..model() };
        config.models = crate::ModelCatalog::new(vec![model.into()]).unwrap();
    })
    .await
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::from_source(source, Default::default()).unwrap()
}

/// Every message as role and content.
const PLAIN: &str = "{% for m in messages %}{{ '[' + m.role + ':' + m.content + ']' }}{% endfor %}";

async fn renders(template: ChatTemplate, messages: Json, expected: &str) {
    let router = router_with(template).await;
    let answer = router.post(CHAT, &json!({"messages": messages})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(prompt(&router), expected);
}

fn calls(arguments: Json) -> Json {
    let mut function = json!({"name": "f"});
    function["arguments"] = arguments;
    json!([{"id": "c", "type": "function", "function": function}])
}

#[rstest]
#[case(json!({"role": "user", "content": []}), "[user:]")]
#[case(json!({"role": "system", "content": []}), "[system:]")]
#[case(json!({"role": "assistant", "content": []}), "[assistant:]")]
#[case(json!({"role": "assistant", "content": null}), "[assistant:]")]
#[case(json!({"role": "assistant"}), "[assistant:]")]
#[case(json!({"role": "assistant", "content": null, "tool_calls": calls(json!("{}"))}), "[assistant:]")]
#[case(json!({"role": "assistant", "tool_calls": calls(json!("{}"))}), "[assistant:]")]
#[case(json!({"role": "assistant", "content": null, "tool_calls": null}), "[assistant:]")]
#[case(json!({"role": "tool", "content": null, "tool_call_id": "c"}), "[tool:]")]
#[case(json!({"role": "tool", "tool_call_id": "c"}), "[tool:]")]
#[case(json!({"role": "tool", "content": [], "tool_call_id": "c"}), "[tool:]")]
#[case(json!({"role": "user", "content": [{"type": "text", "text": null}]}), "[user:]")]
#[case(json!({"role": "user", "content": [{"type": "input_text", "text": "a"}]}), "[user:a]")]
#[case(json!({"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}), "[assistant:a]")]
#[case(json!({"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}), "[assistant:no]")]
#[case(
    json!({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"},
                                            {"type": "text", "text": "a"}]}),
    "[assistant:a]"
)]
#[case(
    json!({"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}],
           "tool_calls": calls(json!({}))}),
    "[assistant:]"
)]
#[tokio::test]
async fn nothing_said_is_an_empty_text(#[case] message: Json, #[case] expected: &str) {
    renders(template(PLAIN), json!([message]), expected).await;
}

#[tokio::test]
async fn thoughts_of_a_user_are_no_part_of_a_conversation() {
    let router = router_with(template(PLAIN)).await;
    let parts = json!([{"type": "thinking", "thinking": "hm"}]);
    let answer =
        router.post(CHAT, &json!({"messages": [{"role": "user", "content": parts}]})).await;
    assert_eq!(answer.json()["error"]["param"], "messages[0].content[0].type");
}

#[tokio::test]
async fn a_template_that_tells_absent_content_from_empty_gets_it_absent() {
    let source = "{% for m in messages %}{% if m.content is none %}calls{% else %}{{ m.content }}\
                  {% endif %}{% endfor %}";
    let message = json!({"role": "assistant", "content": [], "tool_calls": calls(json!(""))});
    renders(template(source), json!([message]), "calls").await;
    let message = json!({"role": "assistant", "content": null});
    renders(template(source), json!([message, {"role": "user", "content": "u"}]), "u").await;
}

#[rstest]
#[case("{{ messages[0].reasoning_content }}|{{ messages[0].content }}", "hm|a")]
#[case("{% for p in messages[0].content %}{{ p.thinking or p.text }};{% endfor %}", "hm;a;")]
#[tokio::test]
async fn thoughts_go_where_the_template_looks_for_them(
    #[case] source: &str,
    #[case] expected: &str,
) {
    let parts = json!([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]);
    renders(template(source), json!([{"role": "assistant", "content": parts}]), expected).await;
}

#[rstest]
#[case(json!(r#"{"a": 1}"#), r#"{"a": 1}"#)]
#[case(json!({"a": 1}), r#"{"a": 1}"#)]
#[case(json!(""), "{}")]
#[case(json!(" \n"), "{}")]
#[case(json!("null"), "{}")]
#[case(json!(null), "{}")]
#[tokio::test]
async fn past_arguments_are_an_object_however_they_are_written(
    #[case] arguments: Json,
    #[case] expected: &str,
) {
    let source = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
    let message = json!({"role": "assistant", "tool_calls": calls(arguments)});
    renders(template(source), json!([message]), expected).await;
    let mut without = calls(json!(null));
    without[0]["function"].as_object_mut().unwrap().remove("arguments");
    let message = json!({"role": "assistant", "tool_calls": without});
    renders(template(source), json!([message]), "{}").await;
}

/// Refuses any but a first system message, as many templates do.
const FIRST: &str = "{% for m in messages %}{% if m.role == 'system' and not loop.first %}\
    {{ raise_exception('System message must be at the beginning.') }}{% endif %}\
    {{ '[' + m.role + ':' + m.content + ']' }}{% endfor %}";
/// Refuses all, and wants turns to alternate, as Gemma's.
const NOWHERE: &str = "{% for m in messages %}{% if m.role == 'system' %}\
    {{ raise_exception('System role not supported') }}{% endif %}\
    {% if (m.role == 'user') != (loop.index0 % 2 == 0) %}\
    {{ raise_exception('Conversation roles must alternate') }}{% endif %}\
    {{ '[' + m.role + ':' + m.content + ']' }}{% endfor %}";
/// Prints the first only.
const DROPS: &str = "{% for m in messages %}{% if m.role != 'system' or loop.first %}\
    {{ '[' + m.role + ':' + m.content + ']' }}{% endif %}{% endfor %}";

fn talk(roles: &[(&str, &str)]) -> Json {
    roles.iter().map(|(role, content)| json!({"role": role, "content": content})).collect()
}

#[rstest]
#[case(FIRST, "[system:a\n\nb][user:u\n\nv][assistant:w]")]
#[case(NOWHERE, "[user:a\n\nb\n\nu\n\nv][assistant:w]")]
#[case(DROPS, "[system:a\n\nb][user:u\n\nv][assistant:w]")]
#[case(PLAIN, "[system:a][user:u][developer:b][user:v][assistant:w]")]
#[tokio::test]
async fn system_messages_in_the_middle_are_merged_where_the_template_needs_it(
    #[case] source: &str,
    #[case] expected: &str,
) {
    let messages = talk(&[
        ("system", "a"),
        ("user", "u"),
        ("developer", "b"),
        ("user", "v"),
        ("assistant", "w"),
    ]);
    let expected = expected.replace("developer", "system");
    renders(template(source).merging_system_messages(), messages, &expected).await;
}

#[tokio::test]
async fn a_conversation_without_misplaced_system_messages_stays() {
    let messages = talk(&[("system", "a"), ("user", "u"), ("user", "v")]);
    let merging = template(FIRST).merging_system_messages();
    renders(merging, messages, "[system:a][user:u][user:v]").await;
    let only = template(NOWHERE).merging_system_messages();
    renders(only, talk(&[("system", "a")]), "[user:a]").await;
}

#[tokio::test]
async fn without_the_option_a_template_that_refuses_is_heard() {
    let router = router_with(template(FIRST)).await;
    let messages = talk(&[("user", "u"), ("system", "b")]);
    let answer = router.post(CHAT, &json!({"messages": messages})).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("System message must be at the beginning."), "{}", answer.body);
}
