use std::path::Path;
use std::time::Duration;

use rstest::rstest;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::testing::CHATML;

fn template(source: &str) -> ChatTemplate {
    let special = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}});
    ChatTemplate::from_source(source, SpecialTokens::from_config(&special)).unwrap()
}

fn chat(messages: &Json) -> ChatRender {
    ChatRender { messages: messages.as_array().unwrap().clone(), ..ChatRender::default() }
}

fn render(source: &str, messages: &Json) -> String {
    template(source).render(chat(messages)).unwrap()
}

#[test]
fn a_conversation_becomes_a_prompt() {
    let messages = json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]);
    let expected =
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(render(CHATML, &messages), expected);
}

#[rstest]
#[case::ends_share_a_character("{%}")]
#[case::and_more_behind("{%}{% if true %}{% endif %}")]
#[case::without_an_end("{% generation")]
fn a_broken_tag_is_a_syntax_error(#[case] source: &str) {
    let error = ChatTemplate::from_source(source, SpecialTokens::default()).unwrap_err();
    assert!(matches!(error, TemplateLoadError::Syntax { .. }), "{error}");
}

#[rstest]
#[case("{{ bos_token }}|{{ eos_token }}|{{ pad_token }}", "<s>|</s>|")]
#[case("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb")]
#[case("{%- generation -%}\n a {%- endgeneration %}", "a")]
#[case("{{ messages[0].content.split('h')[1] }}", "i")]
#[case("{{ 'a-b-c'.rsplit('-', 1)[0] }}", "a-b")]
#[case("{{ 'prefix-x'.removeprefix('prefix-') }}", "x")]
#[case("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}x{% endfor %}", "x")]
#[case(
    "{{ {'a': [1, 2.5, true, none], 'é': '\"<&'} | tojson }}",
    r#"{"a": [1, 2.5, true, null], "é": "\"<&"}"#
)]
#[case("{{ {'b': 1, 'a': [2]} | tojson(indent=2) }}", "{\n  \"b\": 1,\n  \"a\": [\n    2\n  ]\n}")]
#[case(
    "{{ {'b': 1, 'a': []} | tojson(separators=(',', ':'), sort_keys=true) }}",
    r#"{"a":[],"b":1}"#
)]
#[case("{{ 'é' | tojson(ensure_ascii=true) }}", r#""\u00e9""#)]
#[case(
    "{{ true }} {{ none }} {{ 1.0 }} {{ ['a', {'b': 'c'}] }}",
    "True None 1.0 ['a', {'b': 'c'}]"
)]
#[case(
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "1"
)]
#[case("{{ messages[::-1][0]['content'] }}", "hi")]
#[case("{{ tools is none }} {{ tools is defined }} {{ nothing is defined }}", "True True False")]
fn templates_see_what_transformers_shows_them(#[case] source: &str, #[case] expected: &str) {
    assert_eq!(render(source, &json!([{"role": "user", "content": "hi"}])), expected);
}

#[test]
fn the_date_is_the_requests() {
    let mut chat = chat(&json!([{"role": "user", "content": "hi"}]));
    chat.now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_721_779_200);
    let template = template("{{ strftime_now('%d %B %Y') }}");
    assert_eq!(template.render(chat).unwrap(), "24 July 2024");
}

#[test]
fn a_template_that_raises_refuses_in_its_own_words() {
    let source =
        "{% if messages[0].role != 'user' %}{{ raise_exception('user first!') }}{% endif %}";
    let refused = template(source).render(chat(&json!([{"role": "system", "content": "x"}])));
    assert_eq!(refused, Err(TemplateError::Refused("user first!".into())));
}

#[test]
fn a_template_that_breaks_says_where() {
    let broken = template("a\n{{ messages[0].nope.deeper }}")
        .render(chat(&json!([{"role": "user", "content": "x"}])));
    assert!(
        matches!(&broken, Err(TemplateError::Failed(why)) if why.contains("line 2")),
        "{broken:?}"
    );
}

#[test]
fn contents_take_the_form_the_template_reads() {
    let parts = json!([{"role": "user", "content": [
        {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}]);
    let text = json!([{"role": "user", "content": "one"}]);
    let lists = "{% for part in messages[0].content %}<{{ part.text }}>{% endfor %}";
    let both = "{% if messages[0].content is string %}{{ messages[0].content }}{% else %}\
                {% for part in messages[0].content %}<{{ part.text }}>{% endfor %}{% endif %}";
    assert_eq!(render("{{ messages[0].content }}", &parts), "one\ntwo");
    assert_eq!(render(lists, &text), "<one>");
    assert_eq!(render(both, &text), "one");
    assert_eq!(render(both, &parts), "<one><two>");
}

#[test]
fn developer_is_system_where_the_template_does_not_know_it() {
    let messages = json!([{"role": "developer", "content": "x"}]);
    assert_eq!(render("{{ messages[0].role }}", &messages), "system");
    assert_eq!(render("{# developer #}{{ messages[0].role }}", &messages), "developer");
}

#[rstest]
#[case("Sure, ", "<|im_start|>assistant\nSure, ")]
#[case("Sure", "<|im_start|>assistant\nSure")]
fn a_continued_message_stays_open(#[case] content: &str, #[case] end: &str) {
    let mut chat = chat(
        &json!([{"role": "user", "content": "Sure"}, {"role": "assistant", "content": content}]),
    );
    chat.continue_final_message = true;
    let prompt = template(CHATML).render(chat).unwrap();
    assert!(prompt.ends_with(end), "{prompt:?}");
}

#[test]
fn there_must_be_something_to_continue() {
    let mut chat = chat(&json!([{"role": "assistant", "content": null}]));
    chat.continue_final_message = true;
    assert!(matches!(template(CHATML).render(chat), Err(TemplateError::NothingToContinue(_))));
}

fn opened(folder: &tempfile::TempDir) -> ModelFolder {
    std::fs::write(folder.path().join("config.json"), "{}").unwrap();
    ModelFolder::open(folder.path()).unwrap()
}

#[test]
fn requests_with_tools_use_the_template_for_tools() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"bos_token": "<s>", "chat_template": [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools[0].function.name }}"}]});
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let template = ChatTemplate::from_folder(&opened(&folder)).unwrap().unwrap();
    let mut chat = chat(&json!([{"role": "user", "content": "x"}]));
    assert_eq!(template.render(chat.clone()).unwrap(), "plain");
    chat.tools = Some(vec![json!({"type": "function", "function": {"name": "f"}})]);
    assert_eq!(template.render(chat).unwrap(), "f");
}

#[test]
fn a_folder_without_a_template_cannot_chat() {
    let folder = tempfile::tempdir().unwrap();
    assert!(ChatTemplate::from_folder(&opened(&folder)).unwrap().is_none());
}

/// A conversation, and what transformers made of it.
#[derive(Clone, Deserialize)]
struct Golden {
    name: String,
    template: String,
    #[serde(default)]
    messages: Vec<Json>,
    tools: Option<Vec<Json>>,
    documents: Option<Vec<Json>>,
    #[serde(default)]
    add_generation_prompt: bool,
    #[serde(default)]
    continue_final_message: bool,
    #[serde(default)]
    extra: Map<String, Json>,
    expected: Option<String>,
    expected_error: Option<GoldenError>,
}

#[derive(Clone, Debug, Deserialize)]
struct GoldenError {
    kind: String,
    message: String,
}

/// Where the template library differs from Jinja, and templates of models don't go: file, how the
/// case's name begins, why.
const DIFFERENT: &[(&str, &str, &str)] = &[
    ("set-blocks", "", "no `varargs` and `kwargs` in macros"),
    ("expr-tests", "27:", "iterating over none is allowed"),
    ("expr-rare", "6:", "no `%` on strings"),
    ("expr-rare", "38:", "no `%` on strings"),
    ("expr-rare", "31:", "no `random` filter"),
    ("expr-rare", "34:", "`truncate` takes its options by name"),
    ("expr-rare", "36:", "no bare tuples"),
    ("expr-rare", "39:", "no bytes"),
];

#[test]
fn golden_chats_render_as_in_transformers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/goldens/chat");
    let (mut count, mut wrong) = (0, Vec::new());
    for file in std::fs::read_dir(&folder).expect("the goldens are there") {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let file: Json = serde_json::from_str(&text).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(file["now"].as_u64().unwrap());
        for case in file["cases"].as_array().unwrap() {
            count += 1;
            let golden = golden(&file, case);
            let (name, case) = (file["name"].as_str().unwrap(), golden.name.clone());
            let different = |(in_file, in_case, _): &&(&str, &str, &str)| {
                *in_file == name && case.starts_with(in_case)
            };
            let different = DIFFERENT.iter().find(different);
            match (check(golden, SpecialTokens::from_config(&file), now), different) {
                (Some(what), None) => wrong.push(format!("{name}: {what}")),
                (None, Some((.., why))) => wrong.push(format!("{name}: {case}: now right: {why}")),
                _ => {}
            }
        }
    }
    assert!(count > 0);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// A case, with what its file has for all cases.
fn golden(file: &Json, case: &Json) -> Golden {
    let mut all = file["common"].as_object().cloned().unwrap_or_default();
    all.insert("template".into(), file["template"].clone());
    all.extend(case.as_object().unwrap().clone());
    serde_json::from_value(all.into()).unwrap()
}

/// What is wrong with what we render, if anything.
fn check(golden: Golden, special_tokens: SpecialTokens, now: SystemTime) -> Option<String> {
    let render = ChatRender {
        messages: golden.messages,
        tools: golden.tools,
        documents: golden.documents,
        add_generation_prompt: golden.add_generation_prompt,
        continue_final_message: golden.continue_final_message,
        variables: golden.extra,
        now,
    };
    let rendered = match ChatTemplate::from_source(&golden.template, special_tokens) {
        Ok(template) => template.render_as_is(render),
        Err(error) => Err(TemplateError::Failed(error.to_string())),
    };
    match (&rendered, &golden.expected, &golden.expected_error) {
        (Ok(text), Some(expected), _) if text == expected => None,
        (Err(TemplateError::Refused(why)), _, Some(error)) if *why == error.message => None,
        (Err(TemplateError::Failed(_)), _, Some(error)) if error.kind == "failed" => None,
        (Err(TemplateError::NothingToContinue(_)), _, Some(error)) if error.kind == "failed" => {
            None
        }
        (_, expected, error) => {
            let name = golden.name;
            Some(format!("{name}\n  ours: {rendered:?}\n  want: {expected:?} {error:?}"))
        }
    }
}

/// Dropped, it takes stack for each level; one that is built until the steps are over has the most.
#[test]
fn values_however_deep_cost_a_router_nothing_but_the_request() {
    let nest = "{% set ns = namespace(x=1) %}{% for i in range(9999) %}{% for j in range(9999) %}\
                {% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    for source in [nest.to_owned(), nest.replace("[ns.x]", "{'a': ns.x}")] {
        let template = ChatTemplate::from_source(&source, SpecialTokens::default()).unwrap();
        let error = template.render(ChatRender::default()).unwrap_err().to_string();
        assert!(error.contains("fuel"), "{error}");
    }
}
