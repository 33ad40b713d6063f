//! Starts and ends that go wrong, as whoever starts a node meets them.

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use baton_tests::client::http::Client;
use baton_tests::node::{Node, NodeSpec};
use baton_tests::process::Process;
use baton_tests::wait::wait_until;
use baton_tests::{Etcd, TestModel, process};
use etcd_client::{AlarmAction, AlarmType, GetOptions};
use rstest::rstest;
use tokio::sync::OnceCell;

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than leaving takes on a busy machine, shorter than any of the waits that it used to sit out.
const AT_ONCE: Duration = Duration::from_secs(4);

/// A random model, small enough to be there in a moment.
fn args(role: &str, model: &TestModel, etcd: Option<&str>) -> Vec<String> {
    let mut args = vec![role.to_owned()];
    args.extend(["--model".to_owned(), model.dir.display().to_string()]);
    args.extend(["--load-format", "dummy", "--admin", ":0"].map(str::to_owned));
    args.extend(etcd.into_iter().flat_map(|etcd| ["--etcd".to_owned(), etcd.to_owned()]));
    if matches!(role, "router" | "up") {
        args.extend(["--http", ":0", "--grpc", ":0"].map(str::to_owned));
    }
    args
}

fn start(name: &str, folder: &Path, args: Vec<String>) -> Process {
    Process::start(name, &process::baton(), args, folder)
}

/// An address at which nobody answers: not this machine's usual one, where the next test may be given the port.
fn nobody() -> String {
    let address = TcpListener::bind("127.66.6.6:0").unwrap().local_addr().unwrap();
    format!("http://{address}")
}

#[rstest]
#[case("router")]
#[case("prefill-worker")]
#[case("decode-worker")]
#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_not_there_is_named_and_leaving_does_not_wait_for_it(#[case] role: &str) {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = nobody();
    let mut node = start("node", folder.path(), args(role, &model, Some(&etcd)));
    node.logged("no etcd yet", PATIENCE).await;
    let log = node.log_text();
    let line = log.lines().find(|line| line.contains("no etcd yet")).unwrap();
    assert!(line.contains(&etcd) && line.contains("refused") && line.contains("--etcd"), "{line}");
    node.logged("state=Serving", PATIENCE).await;

    node.terminate();
    let status = node.exited(AT_ONCE).await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_is_full_is_told_as_full_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = Etcd::start(folder.path()).await;
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    // As etcd does itself when its quota is used up.
    client.alarm(AlarmAction::Activate, AlarmType::Nospace, None).await.unwrap();
    let node = start("node", folder.path(), args("decode-worker", &model, Some(&etcd.endpoint())));
    node.logged("etcd is full", PATIENCE).await;
    let log = node.log_text();
    let line = log.lines().find(|line| line.contains("etcd is full")).unwrap();
    assert!(line.contains("space exceeded") && line.contains("alarm disarm"), "{line}");
    assert!(!log.contains("etcd is away"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_whose_workers_serve_another_model_is_not_ready_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = Etcd::start(folder.path()).await;
    let named = |role: &str, name: &str| {
        let mut args = args(role, &model, Some(&etcd.endpoint()));
        args.extend(["--served-model-name".to_owned(), name.to_owned()]);
        args
    };
    let spec = |name: &str, args: Vec<String>| NodeSpec::new(name, folder.path(), args);
    let _worker = Node::start(spec("worker", named("decode-worker", "theirs"))).await;
    let router = Node::start(spec("router", named("router", "ours"))).await;
    let client = Client::new(router.status_addr());
    wait_until("the reason", PATIENCE, || async {
        let (status, text) = client.get("/ready").await;
        assert_eq!(status.as_u16(), 503, "{text}");
        let is_told = text.contains("1 workers serve theirs and this router ours");
        if is_told { Ok(()) } else { Err(text) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_report_is_named_by_the_router() {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = Etcd::start(folder.path()).await;
    let spec = |name: &str, role: &str| {
        let mut args = args(role, &model, Some(&etcd.endpoint()));
        let id = ["--id", name].map(str::to_owned);
        args.extend(id.into_iter().filter(|_| role != "router"));
        NodeSpec::new(name, folder.path(), args)
    };
    let mut worker = Node::start(spec("mute", "decode-worker")).await;
    let mut router = Node::start(spec("router", "router")).await;
    router.ready().await;
    let client = Client::new(router.status_addr());
    worker.process().freeze();
    wait_until("its name", PATIENCE, || async {
        let (_, text) = client.get("/ready").await;
        let is_told = text.contains("no reports come from mute at http://");
        if is_told { Ok(()) } else { Err(text) }
    })
    .await;
    worker.process().thaw();
    router.ready().await;
    assert!(!client.get("/ready").await.1.contains("no reports"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_listens_everywhere_is_published_where_it_can_be_called() {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = Etcd::start(folder.path()).await;
    let mut args = args("decode-worker", &model, Some(&etcd.endpoint()));
    args.extend(["--listen", "0.0.0.0:0", "--insecure"].map(str::to_owned));
    let mut node = start("node", folder.path(), args);
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let start = Instant::now();
    let entry = loop {
        let all = GetOptions::new().with_prefix();
        let found = client.get("/baton/default/workers/", Some(all)).await.unwrap();
        if let Some(kv) = found.kvs().first() {
            break kv.value_str().unwrap().to_owned();
        }
        if let Some(status) = node.exit_status() {
            // A machine without a network has no such address, and the worker says so.
            assert!(!status.success() && node.log_text().contains("--advertise-host"));
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{}", node.tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(entry.contains("http://") && !entry.contains("0.0.0.0"), "{entry}");
}

/// Without an address of its gRPC service; the usual one is another program's.
async fn args_beside_another(role: &str, model: &TestModel) -> Vec<String> {
    /// Held to the end of this program: another test that lets go of it would leave it to the node.
    static TAKEN: OnceCell<Option<TcpListener>> = OnceCell::const_new();
    let take = || async {
        let start = Instant::now();
        loop {
            let taken = TcpListener::bind("127.0.0.1:50051").ok();
            // Where another program has it for good, it needs no taking.
            if taken.is_some() || start.elapsed() > AT_ONCE {
                return taken;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    TAKEN.get_or_init(take).await;
    let etcd = (role == "router").then(nobody);
    let mut args = args(role, model, etcd.as_deref());
    args.truncate(args.len() - 2);
    args
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_cluster_on_a_machine_takes_another_grpc_port_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let args = args_beside_another("up", &model).await;
    let mut node = Node::start(NodeSpec::new("up", folder.path(), args)).await;
    assert_ne!(node.ports().grpc.unwrap().port(), 50051);
    // Log lines are written beside the work.
    node.process().logged("taking a free one; --grpc names it", PATIENCE).await;
}

#[rstest]
#[case::of_a_cluster("router", &[])]
#[case::named("up", &["--grpc", ":50051"])]
#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_port_that_clients_know_is_not_exchanged(#[case] role: &str, #[case] more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let mut args = args_beside_another(role, &model).await;
    args.extend(more.iter().map(ToString::to_string));
    let mut node = start("node", folder.path(), args);
    assert_eq!(node.exited(PATIENCE).await.code(), Some(1));
    let log = node.log_text();
    assert!(log.contains("--grpc: cannot listen on 127.0.0.1:50051"), "{log}");
}

#[rstest]
#[case("up")]
#[case("router")]
#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_ends_no_node_and_is_told(#[case] role: &str) {
    let folder = tempfile::tempdir().unwrap();
    let model = TestModel::random(folder.path());
    let etcd = (role == "router").then(nobody);
    let spec = NodeSpec::new("node", folder.path(), args(role, &model, etcd.as_deref()));
    let mut node = Node::start(spec).await;
    node.process().hang_up();
    node.process().logged("SIGHUP: going on", PATIENCE).await;
    let status = node.leave(PATIENCE).await;
    assert!(status.success(), "{status}");
}

#[rstest]
#[case("up")]
#[case("decode-worker")]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_to_leave_while_it_loads_leaves_at_once(#[case] role: &str) {
    let folder = tempfile::tempdir().unwrap();
    let model = slow(TestModel::random(folder.path()));
    let etcd = (role != "up").then(nobody);
    let spec = NodeSpec::new("node", folder.path(), args(role, &model, etcd.as_deref()));
    let mut node = Node::start(spec).await;
    let status = node.leave(AT_ONCE).await;
    assert!(status.success(), "{status}");
}

/// The same model, made so large that loading it takes many seconds.
fn slow(model: TestModel) -> TestModel {
    let file = model.dir.join("config.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let larger = text
        .replace("\"hidden_size\": 128", "\"hidden_size\": 2048")
        .replace("\"intermediate_size\": 256", "\"intermediate_size\": 4096")
        .replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 8");
    assert_ne!(text, larger);
    std::fs::write(&file, larger).unwrap();
    model
}
