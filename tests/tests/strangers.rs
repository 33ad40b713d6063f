//! Strangers on the network: what they were once able to do, and what becomes of it where
//! certificates or a secret keep them out.

#![allow(clippy::disallowed_methods, reason = "a test's tasks end with the test")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use baton_tests::client::http::chat_body;
use baton_tests::cluster::Folder;
use baton_tests::etcd::Etcd;
use baton_tests::node::{Node, NodeSpec};
use baton_tests::process::{Process, baton};
use baton_tests::security::{CLUSTER, Keyring, Lock};
use baton_tests::wait::wait_until;
use baton_tests::{Cluster, TestModel};
use cluster::membership::entry;
use cluster::rpc::Channels;
use cluster::security::{CertificateFiles, Identity, NodeRole, Security};
use proto::v1::decode_client::DecodeClient;
use proto::v1::kv_transfer_client::KvTransferClient;
use proto::v1::prefill_client::PrefillClient;
use proto::v1::worker_client::WorkerClient;
use proto::{Sealed as _, v1};
use rstest::rstest;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;
use tonic::{Code, Status};
use words::{
    Address, ClientId, Generation, Incarnation, RequestId, Role, Sampling, StopRules, Targets,
    TenantSalt, WorkerInfo,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes every connection, and keeps what it is told.
struct Canary {
    uri: String,
    heard: Arc<parking_lot::Mutex<Vec<Vec<u8>>>>,
}

// === impl Canary ===

impl Canary {
    async fn listen(scheme: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("{scheme}://{}", listener.local_addr().unwrap());
        let heard: Arc<parking_lot::Mutex<Vec<Vec<u8>>>> = Arc::default();
        let ears = heard.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (ears, mut bytes) = (ears.clone(), vec![0; 1 << 16]);
                tokio::spawn(async move {
                    let read = stream.read(&mut bytes).await.unwrap_or_default();
                    ears.lock().push(bytes[..read].to_vec());
                });
            }
        });
        Self { uri, heard }
    }

    fn address(&self, id: &str) -> v1::Address {
        v1::Address { worker_id: id.to_owned(), incarnation: 1, uri: self.uri.clone() }
    }

    fn assert_silence(&self) {
        let heard = self.heard.lock();
        assert!(heard.is_empty(), "{} connections came", heard.len());
    }

    /// Nothing but the beginning of handshakes, which name nobody and hold nothing.
    fn assert_no_secrets(&self) {
        for bytes in self.heard.lock().iter() {
            assert!(bytes.first().is_none_or(|first| *first == 0x16), "{bytes:?}");
        }
    }
}

// === Who calls. ===

/// A member of the cluster with this role, as its own certificate or the secret says.
fn member(cluster: &Cluster, role: NodeRole, id: &str) -> Security {
    let node = Identity::new(CLUSTER, role, id);
    match cluster.keyring.lock() {
        Lock::Certificates => {
            cluster.keyring.issue(role.name(), id, 2);
            let file = |name: String| cluster.keyring.dir().join(name);
            let files = CertificateFiles {
                ca: Some(file("ca.pem".to_owned())),
                cert: file(format!("{role}-{id}.pem")),
                key: file(format!("{role}-{id}.key")),
            };
            Security::with_certificates(files, node).unwrap()
        }
        Lock::Secret => {
            let secret = std::fs::read(cluster.keyring.secret_file()).unwrap();
            Security::with_secret(&secret, node).unwrap()
        }
        Lock::Open => Security::open(),
    }
}

/// One who has made himself an authority, or a secret.
fn outsider(cluster: &Cluster, role: NodeRole) -> Security {
    let node = Identity::new(CLUSTER, role, "x");
    match cluster.keyring.lock() {
        Lock::Certificates => {
            let keyring =
                Keyring::new(Lock::Certificates, &cluster.folder().join(format!("outside-{role}")));
            keyring.issue(role.name(), "x", 2);
            let file = |name: String| keyring.dir().join(name);
            let files = CertificateFiles {
                ca: Some(file("ca.pem".to_owned())),
                cert: file(format!("{role}-x.pem")),
                key: file(format!("{role}-x.key")),
            };
            Security::with_certificates(files, node).unwrap()
        }
        Lock::Secret | Lock::Open => {
            Security::with_secret(b"a guess at the cluster's secret", node).unwrap()
        }
    }
}

fn channel(node: &Node, role: Role, security: &Security) -> Channel {
    let scheme = if security.is_locked() { "https" } else { "http" };
    let addr = node.ports().grpc.expect("the worker's port");
    let address = Address {
        worker: node.name().into(),
        incarnation: Incarnation(0),
        uri: format!("{scheme}://{addr}"),
    };
    Channels::new().secured(security).get(&address, role)
}

// === What they say. ===

fn generation(max_tokens: u32) -> v1::Generation {
    let stop =
        StopRules { max_tokens, min_tokens: 0, stop_token_ids: Vec::new(), ignore_eos: true };
    let generation = Generation {
        id: RequestId("stranger".into()),
        prompt: (1..200).collect::<Vec<_>>().into(),
        generated: Arc::default(),
        choices: vec![0],
        sampling: Sampling::greedy(),
        stop,
        prompt_logprobs: None,
        salt: TenantSalt::default(),
        client: ClientId::default(),
        targets: Targets::default(),
    };
    (&generation).into()
}

async fn life(channel: &Channel) -> Result<u64, Status> {
    let request = v1::ReportRequest::default();
    let mut reports = WorkerClient::new(channel.clone()).report(request).await?.into_inner();
    let report = reports.message().await?;
    Ok(report.map(|report| report.incarnation).unwrap_or_default())
}

/// Has a decode worker generate; how many tokens came.
async fn generate(
    channel: &Channel,
    incarnation: u64,
    deadline_ms: u64,
    prefill_peers: Vec<v1::Address>,
    max_tokens: u32,
) -> Result<usize, Status> {
    let generation = Some(generation(max_tokens));
    let request = v1::GenerateRequest {
        generation,
        deadline_ms,
        incarnation,
        prefill_peers,
        ..v1::GenerateRequest::default()
    }
    .sealed(0);
    let mut stream = DecodeClient::new(channel.clone()).generate(request).await?.into_inner();
    let mut tokens = 0;
    while let Some(message) = stream.message().await? {
        if let Some(v1::generate_response::Event::Tokens(some)) = message.event {
            tokens += some.tokens.len();
        }
    }
    Ok(tokens)
}

async fn prefill(
    channel: &Channel,
    incarnation: u64,
    target: v1::Address,
    kv_layout: &str,
) -> Result<(), Status> {
    let target = v1::HandoffTarget {
        handoff_id: vec![7; 16],
        address: Some(target),
        transports: vec!["grpc".to_owned()],
        held_blocks: 0,
        kv_layout: kv_layout.to_owned(),
    };
    let request = v1::PrefillRequest {
        generation: Some(generation(4)),
        deadline_ms: 10_000,
        incarnation,
        target: Some(target),
        ..v1::PrefillRequest::default()
    }
    .sealed(0);
    let mut stream = PrefillClient::new(channel.clone()).prefill(request).await?.into_inner();
    while stream.message().await?.is_some() {}
    Ok(())
}

async fn push(channel: &Channel, incarnation: u64) -> Result<(), Status> {
    let open = v1::Open { handoff_id: vec![7; 16], incarnation, epoch: 1, ..v1::Open::default() };
    let message = Some(v1::push_request::Message::Open(open));
    let open = v1::PushRequest { message, ..v1::PushRequest::default() }.sealed(0);
    let stream = KvTransferClient::new(channel.clone()).push(tokio_stream::once(open)).await?;
    stream.into_inner().message().await.map(drop)
}

/// Everything that a worker's port offers, one after the other: all of it refused.
async fn assert_refused(prefill_worker: &Channel, decode_worker: &Channel, canary: &Canary) {
    let fake = vec![canary.address("p0")];
    let refused = [
        ("report", life(decode_worker).await.err()),
        ("report", life(prefill_worker).await.err()),
        ("generate", generate(decode_worker, 0, 10_000, Vec::new(), 4).await.err()),
        ("generate with a fake peer", generate(decode_worker, 0, 10_000, fake, 4).await.err()),
        (
            "generate on a prefill worker",
            generate(prefill_worker, 0, 9_000, Vec::new(), 4).await.err(),
        ),
        ("prefill", prefill(prefill_worker, 0, canary.address("d0"), "").await.err()),
        ("push", push(decode_worker, 0).await.err()),
    ];
    for (what, status) in refused {
        let status = status.unwrap_or_else(|| panic!("{what} was let in"));
        // Turned away by the guard, or not even connected.
        let known = [
            Code::PermissionDenied,
            Code::Unavailable,
            Code::Cancelled,
            Code::Unknown,
            Code::Internal,
        ];
        assert!(known.contains(&status.code()), "{what}: {status:?}");
    }
    canary.assert_silence();
}

// --- Attacks, each under certificates and under a secret. ---

/// The API key was bypassed on workers' ports; pages of zeros from a fake prefill worker were
/// "verified".
#[rstest]
#[case(Lock::Certificates)]
#[case(Lock::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_nothing_from_a_workers_port(#[case] lock: Lock) {
    let mut cluster =
        Cluster::builder().lock(lock).router_args(&["--api-key", "sesame"]).start().await;
    let canary = Canary::listen("https").await;
    let (status, ..) = cluster.client().post("/v1/chat/completions", &chat_body("Hello", 2)).await;
    assert_eq!(status, 401, "the key is asked for in front");
    for stranger in [
        Security::open(),
        outsider(&cluster, NodeRole::Router),
        outsider(&cluster, NodeRole::Decode),
        outsider(&cluster, NodeRole::Prefill),
    ] {
        let prefill = channel(&cluster.prefill[0], Role::Prefill, &stranger);
        let decode = channel(&cluster.decode[0], Role::Decode, &stranger);
        assert_refused(&prefill, &decode, &canary).await;
    }
    cluster.assert_clean().await;
}

/// A node may do what its role needs, and nothing else.
#[rstest]
#[case(Lock::Certificates)]
#[case(Lock::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_let_in_to_what_it_needs(#[case] lock: Lock) {
    let cluster = Cluster::builder().lock(lock).start().await;
    let at = |security: &Security| {
        let prefill = channel(&cluster.prefill[0], Role::Prefill, security);
        (prefill, channel(&cluster.decode[0], Role::Decode, security))
    };
    let canary = Canary::listen("https").await;
    let denied = |status: Result<(), Status>| status.unwrap_err().code() == Code::PermissionDenied;

    let router = member(&cluster, NodeRole::Router, "r9");
    let (prefill_port, decode_port) = at(&router);
    let decode_life = life(&decode_port).await.unwrap();
    assert_eq!(generate(&decode_port, decode_life, 30_000, Vec::new(), 4).await.unwrap(), 4);
    assert!(denied(prefill(&prefill_port, 0, canary.address("d0"), "").await));
    assert!(denied(push(&decode_port, decode_life).await));

    let (_, decode_port) = at(&member(&cluster, NodeRole::Decode, "d9"));
    assert!(denied(generate(&decode_port, decode_life, 9_000, Vec::new(), 4).await.map(drop)));
    assert!(denied(push(&decode_port, decode_life).await));

    let (prefill_port, decode_port) = at(&member(&cluster, NodeRole::Prefill, "p9"));
    assert!(denied(generate(&decode_port, decode_life, 9_000, Vec::new(), 4).await.map(drop)));
    assert!(denied(prefill(&prefill_port, 0, canary.address("d0"), "").await));
    // There is no such hand-off, but that is another matter.
    let pushed = push(&decode_port, decode_life).await;
    assert!(pushed.as_ref().err().map(Status::code) != Some(Code::PermissionDenied), "{pushed:?}");
    canary.assert_silence();
}

/// `prefill_peers` and `target` were dialled wherever they led, the prompt was sent there, and each
/// made-up peer left a connection behind.
#[rstest]
#[case(Lock::Open)]
#[case(Lock::Certificates)]
#[case(Lock::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_dialled_who_is_no_member(#[case] lock: Lock) {
    let mut cluster = Cluster::builder().lock(lock).start().await;
    let scheme = if lock == Lock::Open { "http" } else { "https" };
    let canary = Canary::listen(scheme).await;
    let router = member(&cluster, NodeRole::Router, "r9");
    let decode_port = channel(&cluster.decode[0], Role::Decode, &router);
    let decode_life = life(&decode_port).await.unwrap();

    // A stranger's address under a member's name, and under names of his own.
    for id in ["p0", "x0", "x1", "x2", "x3"] {
        let made_up = vec![canary.address(id)];
        let answered = generate(&decode_port, decode_life, 30_000, made_up, 3).await;
        assert_eq!(answered.unwrap(), 3, "computed here instead");
    }
    let held = cluster.decode[0].metrics().await.require("baton_rpc_channels", &[]);
    assert!(held <= 2.0, "{held} connections kept to made-up peers");

    // A decode worker has its blocks sent to itself, not to whom it likes.
    let decode = member(&cluster, NodeRole::Decode, "d9");
    let prefill_life = life(&channel(&cluster.prefill[0], Role::Prefill, &router)).await.unwrap();
    let prefill_port = channel(&cluster.prefill[0], Role::Prefill, &decode);
    let layout =
        entries(&cluster.etcd, "prefill").await.remove(0).1.fingerprint.kv_layout.to_string();
    for id in ["d0", "d9"] {
        let target = canary.address(id);
        let refused = prefill(&prefill_port, prefill_life, target, &layout).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
        assert!(refused.message().contains("no member"), "{refused:?}");
    }
    canary.assert_silence();
    cluster.assert_clean().await;
}

/// 45 calls with a deadline of 10^15 ms reserved 4,625 of 4,681 blocks, for ever.
#[rstest]
#[case(Lock::Certificates)]
#[case(Lock::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn no_call_holds_blocks_longer_than_any_may(#[case] lock: Lock) {
    let mut cluster =
        Cluster::builder().lock(lock).worker_args(&["--deadline-max-s", "3"]).start().await;
    let router = member(&cluster, NodeRole::Router, "r9");
    let decode_port = channel(&cluster.decode[0], Role::Decode, &router);
    let decode_life = life(&decode_port).await.unwrap();
    let peers: Vec<v1::Address> = entries(&cluster.etcd, "prefill")
        .await
        .iter()
        .map(|(_, info)| (&info.address).into())
        .collect();
    // It takes the calls and never answers.
    cluster.prefill[0].process().freeze();
    let calls = (0..45).map(|_| {
        let (port, peers) = (decode_port.clone(), peers.clone());
        tokio::spawn(async move {
            generate(&port, decode_life, 1_000_000_000_000_000, peers, 400).await
        })
    });
    let calls: Vec<_> = calls.collect();
    let ended = tokio::time::timeout(PATIENCE, futures::future::join_all(calls)).await;
    let late = |ended: &Result<Result<usize, Status>, _>| matches!(ended, Ok(Err(status)) if status.code() == Code::DeadlineExceeded);
    let ended = ended.expect("they end");
    assert!(ended.iter().any(late), "some had to be cut: {ended:?}");
    cluster.prefill[0].process().thaw();
    cluster.assert_clean().await;
}

/// A fake entry in etcd got five of six prompts.
#[rstest]
#[case(Lock::Certificates)]
#[case(Lock::Secret)]
#[tokio::test(flavor = "multi_thread")]
async fn a_fake_entry_in_etcd_gets_no_prompt(#[case] lock: Lock) {
    let mut cluster = Cluster::builder().lock(lock).start().await;
    let mut canaries = Vec::new();
    for (role, scheme) in
        [("prefill", "https"), ("decode", "https"), ("prefill", "http"), ("decode", "http")]
    {
        let canary = Canary::listen(scheme).await;
        let (key, mut fake) = entries(&cluster.etcd, role).await.remove(0);
        let id = format!("fake-{role}-{scheme}");
        let key = key.replace(&*fake.address.worker.0, &id);
        fake.address.worker = id.as_str().into();
        fake.address.uri.clone_from(&canary.uri);
        put(&cluster.etcd, &key, &fake).await;
        canaries.push(canary);
    }
    for n in 0..6 {
        let answer = cluster.client().chat(&format!("What is {n} plus 5?"), 8).await.unwrap();
        assert!(answer.is_done, "{answer:?}");
    }
    for canary in &canaries {
        canary.assert_no_secrets();
    }
    cluster.assert_clean().await;
}

// --- Certificates over time. ---

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_without_a_restart() {
    let cluster = Cluster::builder().lock(Lock::Certificates).start().await;
    let left = async |node: &Node| {
        let metrics = node.metrics().await;
        metrics.require("baton_certificate_expiry_seconds", &[("certificate", "node")])
    };
    let day = 86_400.0;
    assert!(left(&cluster.decode[0]).await < 3.0 * day && left(&cluster.router).await < 3.0 * day);
    // What can't be used is not.
    std::fs::write(cluster.keyring.dir().join("prefill-p0.pem"), "half a certif").unwrap();
    cluster.keyring.issue("decode", "d0", 30);
    cluster.keyring.issue("router", "r0", 30);
    wait_until("the new certificates", PATIENCE, || async {
        let left = [left(&cluster.decode[0]).await, left(&cluster.router).await];
        if left.iter().all(|left| *left > 29.0 * day) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let router = member(&cluster, NodeRole::Router, "r9");
    life(&channel(&cluster.decode[0], Role::Decode, &router)).await.expect("the new one works");
    life(&channel(&cluster.prefill[0], Role::Prefill, &router)).await.expect("the old one stays");
    assert!(cluster.client().chat("Hello", 4).await.unwrap().is_done);
}

// --- Starting. ---

/// Starts a node that must refuse, and returns what it said.
async fn refusal(folder: &Path, name: &str, args: &[&str]) -> String {
    let mut process = Process::start(name, &baton(), args, folder);
    let status = process.exited(PATIENCE).await;
    assert!(!status.success(), "{args:?} was started");
    process.tail()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_locks_listens_on_this_machine_only() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 5] = [
        ("listen", &["decode-worker", "--listen", "0.0.0.0:0"], "--listen 0.0.0.0:0"),
        ("admin", &["prefill-worker", "--admin", "0.0.0.0:0"], "--admin 0.0.0.0:0"),
        ("http", &["router", "--http", "0.0.0.0:0"], "--http 0.0.0.0:0"),
        ("grpc", &["router", "--http", "127.0.0.1:0", "--grpc", "[::]:0"], "--grpc [::]:0"),
        ("up", &["up", "--http", "0.0.0.0:0"], "--http 0.0.0.0:0"),
    ];
    for (name, args, says) in cases {
        let said = refusal(folder.path(), name, args).await;
        assert!(said.contains(says) && said.contains("--insecure"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_the_nodes_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let keyring = Keyring::new(Lock::Certificates, folder.path());
    keyring.issue("prefill", "p0", 2);
    keyring.issue("decode", "old", 0);
    keyring.issue("decode", "d0", 2);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let cases = [
        ("decode-worker", "p0", "prefill", "p0", "is for baton://test/prefill/p0"),
        ("decode-worker", "d1", "decode", "d0", "is for baton://test/decode/d0"),
        ("decode-worker", "old", "decode", "old", "expired"),
    ];
    for (command, id, role, file, says) in cases {
        let mut args = vec![command, "--id", id, "--namespace", CLUSTER];
        let flags = keyring.flags(role, file);
        args.extend(flags.iter().map(String::as_str));
        let said = refusal(folder.path(), &format!("{command}-{id}"), &args).await;
        assert!(said.contains(says), "{said}");
    }
}

// --- etcd. ---

/// The members of a role: keys and what they say.
async fn entries(etcd: &Etcd, role: &str) -> Vec<(String, WorkerInfo)> {
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let options = etcd_client::GetOptions::new().with_prefix();
    let found = client.get(format!("/baton/test/workers/{role}/"), Some(options)).await.unwrap();
    let entries = found.kvs().iter().map(|kv| {
        let info = entry::read(kv.value()).expect("a worker");
        (kv.key_str().expect("text").to_owned(), info)
    });
    entries.collect()
}

async fn put(etcd: &Etcd, key: &str, info: &WorkerInfo) {
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    client.put(key, entry::write(info).unwrap(), None).await.unwrap();
}

// --- Clients. ---

/// Shakes hands with a gateway as a client that trusts the authority and speaks `protocol`.
async fn connect(
    keyring: &Keyring,
    addr: SocketAddr,
    protocol: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(keyring.dir().join("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(addr).await?;
    let host = ServerName::try_from("localhost").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(host, stream).await
}

/// The settings with which a server of HTTP/2 begins.
async fn speaks_h2(keyring: &Keyring, addr: SocketAddr) -> bool {
    let mut stream = connect(keyring, addr, "h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    stream.write_all(hello).await.unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    head[3] == 4
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_speaks_https_and_http_2() {
    let folder = Folder::new().await;
    let keyring = Keyring::new(Lock::Certificates, folder.path());
    keyring.issue("router", "r0", 2);
    let model = TestModel::demo_or_random(folder.path());
    let file = |name: &str| keyring.dir().join(name).display().to_string();
    let mut args: Vec<String> =
        ["up", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--api-key", "sesame"]
            .map(str::to_owned)
            .to_vec();
    args.extend(["--gateway-cert".to_owned(), file("router-r0.pem")]);
    args.extend(["--gateway-key".to_owned(), file("router-r0.key")]);
    args.extend(model.args());
    let node = Node::start(NodeSpec::new("up", folder.path(), args)).await;
    let (http, grpc) = (node.ports().http.unwrap(), node.ports().grpc.unwrap());

    // The workers' own ports are locked, and with them the path around the key: both work together.
    let ask = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer sesame\r\n\
               content-type: application/json\r\nconnection: close\r\ncontent-length: ";
    let body = r#"{"model": "baton-demo", "prompt": "Hello", "max_tokens": 2}"#;
    let body = body.replace("baton-demo", baton_tests::model::NAME);
    wait_until("an answer", PATIENCE, || async {
        let mut stream = connect(&keyring, http, "http/1.1").await.map_err(|e| e.to_string())?;
        let request = format!("{ask}{}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        // Closed without a goodbye is closed.
        let _ = stream.read_to_string(&mut answer).await;
        if answer.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(answer) }
    })
    .await;
    assert!(speaks_h2(&keyring, http).await && speaks_h2(&keyring, grpc).await);
    let plain = reqwest::get(format!("http://{http}/health")).await;
    assert!(plain.is_err(), "nothing unencrypted: {plain:?}");
}
