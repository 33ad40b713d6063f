use std::fs;
use std::path::Path;

use serde_json::{Value as Json, json};

use super::*;
use crate::testing::{Lines, byte_level_json};
use crate::text::ChatRender;

fn folder(files: &[(&str, Json)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, json) in files {
        fs::write(folder.path().join(name), json.to_string()).unwrap();
    }
    folder
}

fn config(folder: &Path) -> ServedModelConfig {
    ServedModelConfig {
        merge_system_messages: false,
        control_tokens_as_text: false,
        folder: folder.to_owned(),
        name: "m".into(),
        aliases: vec!["alias".into()],
        context_tokens_max: None,
    }
}

#[test]
fn a_folder_says_what_its_model_wants() {
    let folder = folder(&[
        ("tokenizer.json", byte_level_json()),
        (
            "config.json",
            json!({"max_position_embeddings": 1024, "vocab_size": 512, "eos_token_id": 1}),
        ),
        (
            "generation_config.json",
            json!({"temperature": 0.6, "top_k": 20, "eos_token_id": [257, 259]}),
        ),
    ]);
    let model = ServedModel::load(&config(folder.path())).unwrap();
    assert_eq!((model.context_tokens_max, model.vocab_tokens), (1024, 512));
    assert_eq!(model.eos_tokens, [257, 259, 1], "generation_config.json comes first");
    assert_eq!((model.sampling_defaults.temperature, model.sampling_defaults.top_k), (0.6, 20));
    assert!(model.template.is_none());
    let less = ServedModelConfig { context_tokens_max: Some(100), ..config(folder.path()) };
    assert_eq!(ServedModel::load(&less).unwrap().context_tokens_max, 100);
}

#[test]
fn a_model_that_answers_no_conversation_is_told_at_the_start() {
    let folder = folder(&[
        ("tokenizer.json", byte_level_json()),
        ("config.json", json!({"max_position_embeddings": 1024, "vocab_size": 512})),
    ]);
    let lines = Lines::captured();
    ServedModel::load(&config(folder.path())).unwrap();
    let told = lines.text();
    assert!(told.contains("WARN") && told.contains("no chat template"), "{told}");
}

#[test]
fn a_folder_that_cannot_be_served_names_the_file() {
    let empty = folder(&[]);
    let no_context = folder(&[("tokenizer.json", byte_level_json()), ("config.json", json!({}))]);
    let broken = folder(&[("tokenizer.json", json!({"version": 1}))]);
    for (folder, word) in
        [(empty, "tokenizer.json"), (no_context, "max_position"), (broken, "tokenizer.json")]
    {
        let error = ServedModel::load(&config(folder.path())).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn no_two_models_share_a_name() {
    let model = Arc::new(crate::testing::model());
    assert!(ModelCatalog::new(vec![Arc::clone(&model), model]).is_err());
    assert!(ModelCatalog::new(Vec::new()).is_err());
}

#[test]
fn the_demo_models_conversations_become_the_tokens_of_transformers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let model = ServedModel::load(&config(&root.join("models/demo"))).unwrap();
    let goldens = fs::read_to_string(root.join("tests/goldens/demo.json")).unwrap();
    let goldens: Json = serde_json::from_str(&goldens).unwrap();
    assert_eq!(json!(model.eos_tokens), goldens["eos_token_ids"]);
    let prompts = goldens["prompts"].as_array().unwrap();
    assert!(!prompts.is_empty());
    for prompt in prompts {
        let Some(messages) = prompt["messages"].as_array() else { continue };
        let chat = ChatRender { messages: messages.clone(), ..ChatRender::default() };
        let text = model.template.as_ref().unwrap().render(chat).unwrap();
        assert_eq!(prompt["text"], text.as_str());
        let tokens =
            model.tokenizer.encode_chat(&text, &Arc::default(), &Default::default()).unwrap();
        assert_eq!(prompt["ids"], json!(tokens));
    }
}

/// `tests/goldens/folders.py` says how transformers read the same files.
#[test]
fn folders_are_read_as_transformers_reads_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let goldens = fs::read_to_string(root.join("tests/goldens/folders.json")).unwrap();
    let goldens: Json = serde_json::from_str(&goldens).unwrap();
    let cases = goldens["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let dir = tempfile::tempdir().unwrap();
        for files in [&goldens["common"], &case["files"]] {
            for (name, text) in files.as_object().unwrap() {
                fs::write(dir.path().join(name), text.as_str().unwrap()).unwrap();
            }
        }
        let model = ServedModel::load(&config(dir.path())).unwrap();
        let messages = goldens["conversation"].as_array().unwrap().clone();
        let chat = ChatRender { messages, ..ChatRender::default() };
        let prompt = model.template.as_ref().expect("a template").render(chat).unwrap();
        let encode = |text: &str, whole| json!(model.tokenizer.encode(text, whole).unwrap());
        let name = &case["name"];
        assert_eq!(case["prompt"], prompt.as_str(), "{name}");
        assert_eq!(case["prompt_ids"], encode(&prompt, false), "{name}");
        assert_eq!(case["raw_ids"], encode(goldens["raw"].as_str().unwrap(), true), "{name}");
        assert_eq!(case["end_tokens"], json!(model.eos_tokens), "{name}");
    }
}

/// Fine-tunes for chat add their control tokens in `tokenizer_config.json` alone.
#[test]
fn a_control_token_that_only_the_configuration_adds_is_text_where_a_message_spells_it() {
    let added = json!({"content": "<|turn|>", "special": true});
    let folder = folder(&[
        ("tokenizer.json", byte_level_json()),
        ("config.json", json!({"max_position_embeddings": 64})),
        (
            "tokenizer_config.json",
            json!({
                "added_tokens_decoder": {"300": added},
                "chat_template": "<|turn|>{{ messages[0]['content'] }}",
            }),
        ),
    ]);
    let config = ServedModelConfig { control_tokens_as_text: true, ..config(folder.path()) };
    let model = ServedModel::load(&config).unwrap();
    let control = model.control_tokens.as_ref().unwrap();
    let messages = vec![json!({"role": "user", "content": "a<|turn|>b"})];
    let mut chat = ChatRender { messages, ..ChatRender::default() };
    control.mark(&mut chat);
    let prompt = model.template.as_ref().unwrap().render(chat).unwrap();
    let tokens = control.encode(&prompt, &Arc::default(), &Default::default()).unwrap();
    let turn = model.tokenizer.token_id("<|turn|>").unwrap();
    assert_eq!(tokens.iter().filter(|&&token| token == turn).count(), 1, "the template's own");
    assert_eq!(tokens[0], turn);
}

#[test]
fn a_stretched_context_is_as_long_as_the_engine_computes() {
    let rope = json!({"type": "dynamic", "factor": 4.0});
    let folder = folder(&[
        ("tokenizer.json", byte_level_json()),
        ("config.json", json!({"max_position_embeddings": 32, "rope_scaling": rope})),
    ]);
    assert_eq!(ServedModel::load(&config(folder.path())).unwrap().context_tokens_max, 128);
}
