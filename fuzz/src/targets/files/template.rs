//! A chat template from a model's folder, and the conversation that it is given.

use model_folder::SpecialTokens;
use router::text::template::TemplateLoadError;
use router::text::{Cancelled, ChatRender, ChatTemplate, TemplateError};
use serde_json::{Value as Json, json};

use crate::words::sections;
use crate::{Cost, Target};

/// What nobody could serve as a prompt.
const PROMPT_BYTES_MAX: usize = 1 << 20;

pub(in crate::targets) const TARGET: Target = Target::new("template", run).with_cost(Cost {
    cpu_max: std::time::Duration::from_secs(5),
    // A value for each of its steps.
    memory_bytes_max: 512 << 20,
    ..Cost::USUAL
});

fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut parts = sections(text);
    let source = parts.next().map_or("", |(_, source)| source);
    let messages = parts.find_map(|(_, messages)| serde_json::from_str(messages).ok());
    let names = SpecialTokens::from_config(&json!({"bos_token": "<s>", "eos_token": "</s>"}));
    match ChatTemplate::from_source(source, names) {
        Ok(template) => render(&template, messages.unwrap_or_else(conversation)),
        Err(TemplateLoadError::Syntax { reason, .. }) => assert!(!reason.is_empty()),
        Err(error) => panic!("{error}"),
    }
}

fn render(template: &ChatTemplate, messages: Vec<Json>) {
    let chat = ChatRender { messages, ..ChatRender::default() };
    match template.render_within(chat, PROMPT_BYTES_MAX, &Cancelled::default()) {
        // One write may go over it.
        Ok(prompt) => assert!(prompt.len() <= 2 * PROMPT_BYTES_MAX, "{} bytes", prompt.len()),
        Err(TemplateError::TooLong(most)) => assert_eq!(most, PROMPT_BYTES_MAX),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn conversation() -> Vec<Json> {
    let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5]}}});
    vec![
        json!({"role": "system", "content": "Be short."}),
        json!({"role": "user", "content": "Hello!"}),
        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
        json!({"role": "tool", "content": "7", "tool_call_id": "c"}),
        json!({"role": "user", "content": [{"type": "text", "text": "And?"}]}),
    ]
}
