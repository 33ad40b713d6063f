#![allow(clippy::disallowed_methods, reason = "a certificate's time has to run out")]

//! Handshakes over a pipe: who gets through to whom.

use std::path::Path;
use std::time::Duration;

use rstest::rstest;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::authority::{Authority, Subject};
use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn node(uri: &str) -> Identity {
    uri.parse().unwrap()
}

fn authority() -> Authority {
    Authority::create("test", DAY).unwrap().0
}

/// Writes a certificate for `uri`, and the authority's, into `dir`.
fn write(dir: &Path, authority: &Authority, uri: &str, lasting: Duration) -> CertificateFiles {
    let subject = Subject { node: Some(node(uri)), hosts: Vec::new() };
    let issued = authority.issue(&subject, lasting).unwrap();
    let files = [
        ("ca.pem", authority.cert_pem()),
        ("cert.pem", &issued.cert_pem),
        ("key.pem", &issued.key_pem),
    ];
    for (name, pem) in files {
        std::fs::write(dir.join(name), pem).unwrap();
    }
    let file = |name| dir.join(name);
    CertificateFiles { ca: Some(file("ca.pem")), cert: file("cert.pem"), key: file("key.pem") }
}

fn security(authority: &Authority, uri: &str) -> Security {
    let dir = TempDir::new().unwrap();
    Security::with_certificates(write(dir.path(), authority, uri, DAY), node(uri)).unwrap()
}

fn secret(secret: &str, uri: &str) -> Security {
    Security::with_secret(secret.as_bytes(), node(uri)).unwrap()
}

/// A node calls one that says to be decode worker `d-0`. Who the called one sees, if both agree.
async fn meet(caller: &Security, called: &Security) -> io::Result<Option<Identity>> {
    let (here, there) = tokio::io::duplex(1 << 16);
    let mut accepted = called.doorkeeper().meet(there);
    let calling = async {
        let mut stream = caller.meet(Box::new(here), &WorkerId::from("d-0"), Role::Decode).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await
    };
    let answering = async {
        accepted.read_u8().await?;
        accepted.write_all(b"!").await?;
        accepted.flush().await?;
        Ok::<_, io::Error>(accepted.shown().identity().cloned())
    };
    let (called, answered) = tokio::join!(calling, answering);
    called?;
    answered
}

#[tokio::test]
async fn nodes_of_one_authority_know_each_other() {
    let ours = authority();
    let router = security(&ours, "baton://test/router/r-0");
    let worker = security(&ours, "baton://test/decode/d-0");
    assert_eq!(meet(&router, &worker).await.unwrap(), Some(node("baton://test/router/r-0")));
    let any = security(&ours, "baton://test/decode/*");
    assert!(meet(&router, &any).await.is_ok(), "one certificate for all decode workers");
}

#[rstest]
#[case::other_id("baton://test/decode/d-1")]
#[case::other_role("baton://test/prefill/d-0")]
#[case::router("baton://test/router/d-0")]
#[case::other_cluster("baton://prod/decode/d-0")]
#[tokio::test]
async fn nothing_is_said_to_whom_was_not_called(#[case] answers: &str) {
    let ours = authority();
    let router = security(&ours, "baton://test/router/r-0");
    assert!(meet(&router, &security(&ours, answers)).await.is_err());
}

#[tokio::test]
async fn another_authority_is_believed_by_neither_side() {
    let router = security(&authority(), "baton://test/router/r-0");
    let worker = security(&authority(), "baton://test/decode/d-0");
    assert!(meet(&router, &worker).await.is_err());
}

#[tokio::test]
async fn strangers_without_a_certificate_do_not_get_in() {
    let worker = security(&authority(), "baton://test/decode/d-0");
    assert!(meet(&Security::open(), &worker).await.is_err());
}

#[tokio::test]
async fn a_secret_makes_nodes_know_each_other() {
    let (ours, theirs) = ("a secret of many bytes", "another one of many bytes");
    let router = secret(ours, "baton://test/router/r-0");
    let worker = secret(&format!("{ours}\n"), "baton://test/decode/d-0");
    assert_eq!(meet(&router, &worker).await.unwrap(), Some(node("baton://test/router/r-0")));
    assert!(meet(&secret(theirs, "baton://test/router/r-0"), &worker).await.is_err());
    let elsewhere = secret(ours, "baton://prod/decode/d-0");
    assert!(meet(&router, &elsewhere).await.is_err(), "another cluster with the same secret");
    assert!(meet(&Security::open(), &worker).await.is_err());
}

#[tokio::test]
async fn an_issued_certificate_needs_no_files() {
    let ours = authority();
    let issue = |uri: &str| {
        let subject = Subject { node: Some(node(uri)), hosts: Vec::new() };
        ours.issue(&subject, DAY).unwrap()
    };
    let kept = |uri: &str| Security::with_issued(ours.cert_pem(), &issue(uri), &node(uri)).unwrap();
    let (router, worker) = (kept("baton://test/router/r-0"), kept("baton://test/decode/d-0"));
    assert_eq!(meet(&router, &worker).await.unwrap(), Some(node("baton://test/router/r-0")));
    assert!(meet(&security(&authority(), "baton://test/router/r-0"), &worker).await.is_err());
    let other = issue("baton://test/decode/d-1");
    let refused = Security::with_issued(ours.cert_pem(), &other, &node("baton://test/decode/d-0"));
    assert!(refused.unwrap_err().to_string().contains("d-1"));
}

#[test]
fn a_short_secret_is_refused() {
    let refused = Security::with_secret(b"  fifteen bytes! \n", node("baton://test/router/r-0"));
    assert!(refused.unwrap_err().to_string().contains("at least 16"));
}

#[rstest]
#[case::missing(|dir: &Path, _: &Authority| drop(std::fs::remove_file(dir.join("cert.pem"))), "cert.pem")]
#[case::empty(|dir: &Path, _: &Authority| std::fs::write(dir.join("cert.pem"), "").unwrap(), "no certificate")]
#[case::no_key(|dir: &Path, _: &Authority| std::fs::write(dir.join("key.pem"), "x").unwrap(), "no private key")]
#[case::no_authority(|dir: &Path, _: &Authority| std::fs::write(dir.join("ca.pem"), "").unwrap(), "ca.pem")]
#[case::other_key(|dir: &Path, ours: &Authority| {
    let key = ours.issue(&Subject::default(), DAY).unwrap().key_pem;
    std::fs::write(dir.join("key.pem"), key).unwrap();
}, "not the key of")]
#[case::expired(|dir: &Path, ours: &Authority| {
    write(dir, ours, "baton://test/decode/d-0", Duration::ZERO);
    std::thread::sleep(Duration::from_millis(1100));
}, "expired")]
#[case::other_role(|dir: &Path, ours: &Authority| {
    write(dir, ours, "baton://test/prefill/d-0", DAY);
}, "is for baton://test/prefill/d-0")]
#[case::other_cluster(|dir: &Path, ours: &Authority| {
    write(dir, ours, "baton://prod/decode/d-0", DAY);
}, "is for baton://prod/decode/d-0")]
#[case::nobody(|dir: &Path, ours: &Authority| {
    let hosts = vec!["example.org".to_owned()];
    let issued = ours.issue(&Subject { node: None, hosts }, DAY).unwrap();
    std::fs::write(dir.join("cert.pem"), issued.cert_pem).unwrap();
    std::fs::write(dir.join("key.pem"), issued.key_pem).unwrap();
}, "names no node")]
fn files_that_cannot_be_used_are_named(#[case] spoil: fn(&Path, &Authority), #[case] says: &str) {
    let (dir, ours, me) = (TempDir::new().unwrap(), authority(), "baton://test/decode/d-0");
    let files = write(dir.path(), &ours, me, DAY);
    spoil(dir.path(), &ours);
    let error = Security::with_certificates(files, node(me)).unwrap_err().to_string();
    assert!(error.contains(says), "{error}");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let (dir, ours, me) = (TempDir::new().unwrap(), authority(), "baton://test/decode/d-0");
    let files = write(dir.path(), &ours, me, DAY);
    let worker = Security::with_certificates(files, node(me)).unwrap();
    let certificates = worker.certificates().unwrap().clone();
    assert!(matches!(certificates.refresh(), Refreshed::Same));
    let before = certificates.validity().unwrap();

    std::fs::write(dir.path().join("cert.pem"), "half of a certif").unwrap();
    assert!(matches!(certificates.refresh(), Refreshed::Refused(_)));
    assert!(matches!(certificates.refresh(), Refreshed::Same), "said once");
    assert_eq!(certificates.validity(), Some(before), "the old one stays");

    let theirs = authority();
    write(dir.path(), &theirs, me, 2 * DAY);
    assert!(matches!(certificates.refresh(), Refreshed::Changed));
    assert!(certificates.validity().unwrap().not_after > before.not_after);
    assert!(meet(&security(&theirs, "baton://test/router/r-0"), &worker).await.is_ok());
    assert!(meet(&security(&ours, "baton://test/router/r-0"), &worker).await.is_err());
}

#[test]
fn a_certificate_is_late_when_a_fifth_is_left() {
    let at = |day: u32| std::time::UNIX_EPOCH + DAY * day;
    let validity = Validity { not_before: at(10), not_after: at(110) };
    assert_eq!(validity.left_s(at(100)), 10 * 86_400);
    assert!(!validity.is_late(at(89)) && validity.is_late(at(91)) && validity.is_late(at(120)));
}
