use std::fs;
use std::time::UNIX_EPOCH;

use http::HeaderValue;
use tokio::sync::watch;

use super::*;

fn with(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(value).unwrap());
    headers
}

fn table(name: &str, key: &str, more: &str) -> String {
    format!("[[key]]\nname = \"{name}\"\nsha256 = \"{}\"\n{more}\n", hash(key))
}

fn owner(keys: &Keys, key: &str) -> Option<String> {
    let found = keys.check(&with("authorization", &format!("Bearer {key}"))).ok().flatten();
    found.map(|key| key.name.to_string())
}

#[test]
fn a_key_is_found_wherever_clients_put_it() {
    let keys = Keys::new(&["sk-one".into()], None).unwrap();
    for (name, value, known) in [
        ("authorization", "Bearer sk-one", true),
        ("authorization", "bearer sk-one", true),
        ("authorization", "Basic sk-one", false),
        ("authorization", "Bearer sk-two", false),
        ("authorization", "Bearer ", false),
        ("x-api-key", "sk-one", true),
        ("api-key", "sk-one", true),
        ("x-api-key", "sk-one ", false),
    ] {
        assert_eq!(keys.check(&with(name, value)).is_ok(), known, "{name}: {value}");
    }
    assert!(keys.check(&HeaderMap::new()).is_err());
    let open = Keys::new(&[], None).unwrap();
    assert!(open.check(&HeaderMap::new()).unwrap().is_none(), "without keys everyone may come");
}

#[test]
fn a_file_that_can_not_be_read_again_or_is_not_yet_written_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let problem =
        |path: &std::path::Path| Keys::new(&[], Some(path.to_owned())).unwrap_err().to_string();
    fs::write(&path, "").unwrap();
    assert!(problem(&path).contains("not written yet"));
    assert!(problem(folder.path()).contains("no regular file"));
    fs::write(&path, "# nobody").unwrap();
    assert!(Keys::new(&[], Some(path)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_file_that_changes_is_read_again_and_one_that_breaks_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let mut written = 0;
    let mut write = |text: String| {
        fs::write(&path, text).unwrap();
        // File systems tell times apart by milliseconds at best.
        written += 1;
        let at = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + written);
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
    };
    write(table("alice", "a", "requests_per_minute = 1"));
    let keys = Keys::new(&["configured".into()], Some(path.clone())).unwrap();
    assert_eq!(owner(&keys, "a").as_deref(), Some("alice"));
    let turn = keys.check(&with("api-key", "a")).unwrap().unwrap().allowance.begin(1);
    drop(turn.unwrap());

    let later = || tokio::time::timeout(LOOK_INTERVAL * 2, keys.follow(None));
    write("[[key]]\nname = 7".into());
    assert!(later().await.is_err(), "goes on for ever");
    assert_eq!(owner(&keys, "a").as_deref(), Some("alice"));

    write(table("bob", "b", "") + &table("alice", "new", "requests_per_minute = 1"));
    assert!(later().await.is_err());
    assert_eq!((owner(&keys, "a"), owner(&keys, "b").as_deref()), (None, Some("bob")));
    assert_eq!(owner(&keys, "configured").as_deref(), Some("default"));
    let alice = keys.check(&with("api-key", "new")).unwrap().unwrap();
    assert!(alice.allowance.begin(1).is_err(), "what she has spent is spent");
    assert!(Keys::new(&[], Some(folder.path().join("none"))).is_err());
}

#[tokio::test]
async fn a_hangup_has_a_file_read_again_that_looks_as_it_did() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let write = |text: String| {
        fs::write(&path, text).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
    };
    write(table("alice", "a", ""));
    let keys = Keys::new(&[], Some(path.clone())).unwrap();
    let (hangup, hangups) = watch::channel(0_u64);
    write(table("bob", "b", ""));
    hangup.send_modify(|count| *count += 1);
    let read = async {
        while owner(&keys, "b").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = keys.follow(Some(hangups)) => unreachable!("goes on for ever"),
        read = tokio::time::timeout(Duration::from_secs(30), read) => read.unwrap(),
    }
    assert_eq!((owner(&keys, "a"), owner(&keys, "b").as_deref()), (None, Some("bob")));
}

#[test]
fn tenants_share_no_prefix_cache_whatever_salt_is_asked_for() {
    let key = |tenant: Option<&str>| Key {
        tenant: tenant.map(Into::into),
        ..Key::unlimited("k".into(), sha256(b"k"))
    };
    let salt = |text: &[u8]| TenantSalt(text.into());
    let (red, blue, none) = (key(Some("red")), key(Some("blue")), key(None));
    assert_eq!(red.salt(salt(b"x")), key(Some("red")).salt(salt(b"x")));
    assert_ne!(red.salt(salt(b"")), blue.salt(salt(b"")));
    assert_ne!(red.salt(salt(b"x")), red.salt(salt(b"")));
    assert_ne!(key(Some("re")).salt(salt(b"dx")), red.salt(salt(b"x")));
    assert_eq!(none.salt(salt(b"x")), salt(b"x"));
}

#[test]
fn keys_that_are_made_differ_and_their_hash_is_sha_256() {
    assert_ne!(generate().unwrap(), generate().unwrap());
    assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
