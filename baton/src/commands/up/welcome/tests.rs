use rstest::rstest;

use super::*;

fn capacity(kv_blocks: u32) -> Capacity {
    Capacity {
        kv_blocks,
        block_tokens: 16,
        sequences_max: 64,
        queue_max: 10,
        context_tokens_max: 2048,
    }
}

fn welcome(door: Door) -> Welcome {
    let http = Some("0.0.0.0:8000".parse().unwrap());
    Welcome {
        model: "my-model".into(),
        device: "CPU, 2 threads".into(),
        ports: Ports { http, ..Ports::default() },
        door,
        admin_tls: false,
        chats: true,
        program: "baton".into(),
    }
}

fn said(door: Door) -> String {
    let welcome = welcome(door);
    welcome.text(&capacity(2048), welcome.ports.http.unwrap())
}

#[test]
fn it_shows_what_runs_and_what_fits() {
    let text = said(Door::default());
    for part in [
        "CPU, 2 threads",
        "2,048 tokens\n",
        "32,768 tokens: room for 16 requests of a full context at a time, 64 of 512 tokens",
        "http://127.0.0.1:8000/v1\n",
        "  baton chat --url http://127.0.0.1:8000/v1\n",
        "curl -N http://127.0.0.1:8000/v1/chat/completions ",
    ] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    assert!(!text.contains("BATON_API_KEY") && !text.contains("--ca"), "{text}");
}

#[test]
fn a_model_without_a_template_is_shown_with_what_it_can() {
    let welcome = Welcome { chats: false, ..welcome(Door::default()) };
    let text = welcome.text(&capacity(2048), welcome.ports.http.unwrap());
    assert!(!text.contains("baton chat") && !text.contains("chat/completions"), "{text}");
    assert!(text.contains("curl -N http://127.0.0.1:8000/v1/completions "), "{text}");
    assert!(text.contains("\"prompt\":\""), "{text}");
}

#[rstest]
#[case(2048, "room for 16 requests of a full context at a time, 64 of 512")]
#[case(128, "room for 1 request of a full context at a time, 4 of 512")]
#[case(64, "room for no request of a full context, 2 of 512")]
#[case(1_000_000, "16,000,000 tokens: room for 64 requests")]
fn what_fits_is_counted_in_whole_requests(#[case] blocks: u32, #[case] expected: &str) {
    let text = room(&capacity(blocks)).to_string();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn clients_are_told_where_the_key_goes() {
    let text = said(Door { keys: Some("one of those in keys.toml".into()), ..Door::default() });
    assert!(text.contains("export BATON_API_KEY=KEY") && text.contains("in keys.toml"), "{text}");
    assert!(text.contains("-H \"authorization: Bearer $BATON_API_KEY\""), "{text}");
}

#[rstest]
#[case::its_address(&["example.org", "127.0.0.1"], "https://127.0.0.1:8000/v1")]
#[case::by_name(&["example.org", "localhost"], "https://localhost:8000/v1")]
#[case::elsewhere(&["example.org"], "https://example.org:8000/v1")]
#[case::nowhere(&[], "https://127.0.0.1:8000/v1")]
fn with_a_certificate_the_host_is_one_that_it_names(#[case] hosts: &[&str], #[case] url: &str) {
    let hosts = Some(hosts.iter().map(ToString::to_string).collect());
    let text = said(Door { hosts, ca: Some("/my certs/ca.pem".into()), keys: None });
    assert!(text.contains(&format!("chat --url {url} --ca '/my certs/ca.pem'\n")), "{text}");
    assert!(text.contains("curl -N --cacert '/my certs/ca.pem' https://"), "{text}");
}

#[rstest]
#[case("baton", "baton")]
#[case("/opt/my baton", "'/opt/my baton'")]
#[case("it's", r"'it'\''s'")]
#[case("", "''")]
fn words_reach_the_shell_whole(#[case] word: &str, #[case] expected: &str) {
    assert_eq!(quoted(word), expected);
}
