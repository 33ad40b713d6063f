use cluster::security::NodeRole;
use rstest::rstest;

use super::*;

fn from_file(text: &str) -> Result<Written> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baton.toml");
    std::fs::write(&path, text).unwrap();
    Written::merge(Some(&path), &Written::default())
}

#[test]
fn the_file_speaks_where_no_flag_does() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("baton.toml");
    std::fs::write(&path, "[engine]\nkv_blocks = 7\nthreads = 3\n").unwrap();
    let mut flags = Written::default();
    flags.engine.kv_blocks = Some(9);
    let merged = Written::merge(Some(&path), &flags).unwrap();
    assert_eq!(merged.engine.kv_blocks, Some(9), "the flag wins");
    assert_eq!(merged.engine.threads, Some(3), "the file stands");
    assert_eq!(merged.engine.sequences_max, None, "nobody said");
}

#[rstest]
#[case::unknown_table("[motor]\npower = 3\n", "motor")]
#[case::unknown_key("[engine]\nkv_bloks = 3\n", "kv_bloks")]
#[case::wrong_type("[engine]\nkv_blocks = \"many\"\n", "kv_blocks")]
#[case::no_toml("[engine\n", "TOML")]
fn what_is_no_setting_is_named(#[case] text: &str, #[case] named: &str) {
    let error = format!("{:#}", from_file(text).unwrap_err());
    assert!(error.contains(named), "{error}");
}

#[rstest]
#[case::budget("[engine]\nbatch_tokens_max = 8\n", "batch_tokens_max")]
#[case::blocks("[engine]\nkv_blocks = 0\n", "kv_blocks")]
#[case::dtype("[engine]\nkv_dtype = \"int3\"\n", "kv_dtype")]
#[case::partition("[engine]\ngpu_partition = \"half\"\n", "gpu_partition")]
#[case::no_part("[engine]\ngpu_partition = 0\n", "gpu_partition")]
#[case::target("[targets]\nitl_target_ms = 0\n", "itl_target_ms")]
#[case::format("[model]\nload_format = \"pickle\"\n", "load_format")]
#[case::policy("[gateway]\nhandoff = \"sometimes\"\n", "handoff")]
#[case::logs("[telemetry]\nlog_format = \"xml\"\n", "log_format")]
#[case::ttft("[targets]\nttft_target_ms = 0\n", "ttft_target_ms")]
#[case::tpot("[targets]\ntpot_target_ms = 0\n", "tpot_target_ms")]
#[case::readers("[gateway]\nreader_timeout_s = 0\n", "reader_timeout_s")]
#[case::streams("[gateway]\nstreams_max = 0\n", "streams")]
#[case::etcd_in_the_clear("[etcd]\nca = \"ca.pem\"\n", "https://")]
#[case::etcd_ca(
    "[etcd]\nendpoints = [\"https://etcd:1\"]\nca = \"/nowhere.pem\"\n",
    "/nowhere.pem"
)]
#[case::etcd_half("[etcd]\nendpoints = [\"https://etcd:1\"]\ncert = \"cert.pem\"\n", "--etcd-key")]
fn what_makes_no_sense_is_refused_by_name(#[case] text: &str, #[case] named: &str) {
    let error = format!("{:#}", from_file(text).unwrap().validate().unwrap_err());
    assert!(error.contains(named), "{error}");
}

#[rstest]
#[case("gpu_partition = 40", Some("40"))]
#[case("gpu_partition = \"40\"", Some("40"))]
#[case("gpu_partition = \"off\"", Some("off"))]
#[case("kv_blocks = 40", None)]
fn a_partition_is_a_word_or_a_number(#[case] line: &str, #[case] expected: Option<&str>) {
    let written = from_file(&format!("[engine]\n{line}\n")).unwrap();
    assert_eq!(written.engine.gpu_partition.as_deref(), expected);
    written.validate().unwrap();
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Written::merge(Some(Path::new("/nowhere.toml")), &Written::default()).unwrap_err();
    assert!(error.to_string().contains("/nowhere.toml"), "{error}");
}

#[test]
fn nothing_written_is_a_valid_configuration() {
    Written::default().validate().unwrap();
}

#[rstest]
#[case::half("tls_cert = \"cert.pem\"\n", "--tls-key")]
#[case::nobody_trusted("tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"\n", "--tls-ca")]
#[case::no_certificate("tls_ca = \"ca.pem\"\n", "--tls-cert")]
#[case::no_file("tls_ca = \"/no/ca\"\ntls_cert = \"/no/cert\"\ntls_key = \"/no/key\"\n", "/no/")]
#[case::no_secret("cluster_secret_file = \"/no/secret\"\n", "/no/secret")]
#[case::short("cluster_secret = \"short\"\n", "at least 16")]
fn what_locks_nothing_is_refused_by_name(#[case] text: &str, #[case] named: &str) {
    let written = from_file(&format!("[security]\n{text}")).unwrap();
    let refused = written.validate().unwrap().security(NodeRole::Decode, "d").unwrap_err();
    assert!(format!("{refused:#}").contains(named), "{refused:#}");
}

#[rstest]
#[case::here("127.0.0.1:1", Lock::Cluster, "", false, true)]
#[case::here_in_v6("[::1]:1", Lock::Cluster, "", false, true)]
#[case::everywhere("0.0.0.0:1", Lock::Cluster, "", false, false)]
#[case::here_and_elsewhere("[::]:1", Lock::Keys, "", false, false)]
#[case::locked("10.0.0.1:1", Lock::Cluster, "", true, true)]
#[case::keys("0.0.0.0:1", Lock::Keys, "[gateway]\napi_key = \"k\"\n", false, true)]
#[case::keys_are_the_gateways(
    "0.0.0.0:1",
    Lock::Cluster,
    "[gateway]\napi_key = \"k\"\n",
    false,
    false
)]
#[case::as_told("0.0.0.0:1", Lock::Cluster, "[security]\ninsecure = true\n", false, true)]
fn a_port_that_nothing_locks_is_on_this_machine(
    #[case] addr: &str,
    #[case] lock: Lock,
    #[case] text: &str,
    #[case] locked: bool,
    #[case] fine: bool,
) {
    let settings = from_file(text).unwrap().validate().unwrap();
    let port = Port { flag: "--listen", addr: addr.parse().unwrap(), lock };
    let checked = settings.check_ports(&[port], locked);
    assert_eq!(checked.is_ok(), fine, "{checked:?}");
}

#[rstest]
#[case::misspelled("[gateway]\nhtpp = 1\n", "gateway.htpp is no setting: did you mean http?")]
#[case::table("[gatewy]\nhttp = 1\n", "gatewy is no setting: did you mean gateway?")]
#[case::another_table("[engine]\nnamespace = \"x\"\n", "did you mean etcd.namespace?")]
#[case::a_flags_name("[model]\nmodel = \"x\"\n", "did you mean model.source?")]
#[case::type_(
    "[engine]\nkv_blocks = \"many\"\n",
    "engine.kv_blocks is \"many\": want a whole number"
)]
#[case::sign("[engine]\nkv_blocks = -3\n", "engine.kv_blocks is -3: want a whole number")]
#[case::port("[gateway]\nport = 70000\n", "gateway.port is 70000: want a whole number up to 65535")]
#[case::list(
    "[targets]\nitl_target_ms = [5]\n",
    "targets.itl_target_ms is a list: want a whole number"
)]
#[case::no_table("engine = 3\n", "engine is 3: want a table")]
#[case::no_table_either("model = \"org/name\"\n", "model is \"org/name\": want a table")]
#[case::no_list("[etcd]\nendpoints = 3\n", "etcd.endpoints: want a text in quotes, or a list")]
#[case::syntax("[model]\n\n[engine\n", "line 3 is no TOML: ")]
fn a_wrong_file_is_told_in_one_line_with_what_was_meant(#[case] text: &str, #[case] told: &str) {
    let error = format!("{:#}", from_file(text).unwrap_err());
    assert!(error.starts_with("--config ") && error.contains("baton.toml: "), "{error}");
    assert!(error.contains(told), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[rstest]
#[case("", "127.0.0.1:8000", "127.0.0.1:50051")]
#[case("http = 9000\n", "127.0.0.1:9000", "127.0.0.1:50051")]
#[case("http = \"localhost:9000\"\n", "127.0.0.1:9000", "127.0.0.1:50051")]
#[case("port = 9000\n", "127.0.0.1:9000", "127.0.0.1:50051")]
#[case("host = \"0.0.0.0\"\n", "0.0.0.0:8000", "0.0.0.0:50051")]
#[case("host = \"0.0.0.0\"\ngrpc = \"127.0.0.1:9\"\n", "0.0.0.0:8000", "127.0.0.1:9")]
#[case("host = \"10.0.0.7\"\nhttp = \":9000\"\n", "10.0.0.7:9000", "10.0.0.7:50051")]
fn addresses_are_what_was_meant(#[case] text: &str, #[case] http: &str, #[case] grpc: &str) {
    let settings = from_file(&format!("[gateway]\n{text}")).unwrap().validate().unwrap();
    let endpoints = settings.endpoints().unwrap();
    assert_eq!(endpoints.http.to_string(), http);
    assert_eq!(endpoints.grpc.to_string(), grpc);
}

#[rstest]
#[case::one_block("[engine]\nkv_blocks = 1\n", "engine.kv_blocks is 1: want at least 2")]
#[case::no_context("[engine]\ncontext_tokens_max = 1\n", "engine.context_tokens_max is 1")]
#[case::sequences(
    "[engine]\nsequences_max = 600\nbatch_tokens_max = 512\n",
    "engine.sequences_max"
)]
#[case::threads("[engine]\nthreads = 0\n", "engine.threads is 0")]
#[case::many_threads("[engine]\nthreads = 100000\n", "at most 1024")]
#[case::silence(
    "[worker]\nreport_interval_ms = 1000\n",
    "worker.report_interval_ms is 1000: want at most 500"
)]
#[case::many_sequences("[engine]\nsequences_max = 4294967295\n", "want at most 65536")]
#[case::many_queued(
    "[engine]\nqueue_max = 4294967295\n",
    "engine.queue_max is 4294967295: want at most"
)]
#[case::no_connections("[gateway]\nconnections_max = 0\n", "gateway.connections_max is 0: want")]
#[case::no_body("[gateway]\nbody_kib_max = 0\n", "gateway.body_kib_max is 0: want at least 1")]
#[case::choices("[gateway]\nchoices_max = 1000\n", "gateway.choices_max is 1000: want at most 256")]
#[case::no_time(
    "[gateway]\nrequest_timeout_s = 0\n",
    "gateway.request_timeout_s is 0: want at least 1"
)]
#[case::queue("[engine]\nqueue_max = 0\n", "engine.queue_max")]
#[case::reports("[worker]\nreport_interval_ms = 0\n", "worker.report_interval_ms")]
#[case::for_ever(
    "[gateway]\nrequest_timeout_s = 9223372036854775807\n",
    "gateway.request_timeout_s is 9223372036854775807: want at most"
)]
#[case::late("[targets]\nttft_target_ms = 9223372036854775807\n", "want at most")]
#[case::deadline("[worker]\ndeadline_max_s = 0\n", "worker.deadline_max_s")]
#[case::line("[worker]\ncredit_queue_max = 0\n", "worker.credit_queue_max")]
#[case::name("[worker]\nid = \"a/b\"\n", "worker id")]
#[case::advertised("[worker]\nadvertise_host = \"http://foo:90\"\n", "worker.advertise_host")]
#[case::port_twice("[gateway]\nhttp = \":1\"\nport = 2\n", "--port 2")]
#[case::same_port("[gateway]\nhttp = \":9\"\ngrpc = \":9\"\n", "a port of its own")]
#[case::no_host("[gateway]\nhttp = \"no-such-host.invalid:1\"\n", "gateway.http: the host")]
#[case::key("[gateway]\napi_key = \"\"\n", "gateway.api_key is empty")]
#[case::blank_key("[gateway]\napi_key = \" \"\n", "gateway.api_key is empty")]
#[case::unsendable_key("[gateway]\napi_key = \"a b\"\n", "can't be in a header")]
#[case::traces("[telemetry]\notlp_endpoint = \"nonsense\"\n", "telemetry.otlp_endpoint")]
#[case::lease("[etcd]\nlease_ttl_s = 0\n", "lease")]
#[case::namespace("[etcd]\nnamespace = \"a/b\"\n", "namespace")]
#[case::user("[etcd]\nuser = \"root\"\n", "go together")]
#[case::nothing_to_divide("[engine]\ndevice = \"cpu\"\ngpu_partition = 40\n", "divides a GPU")]
fn what_can_not_be_is_said_at_the_start(#[case] text: &str, #[case] told: &str) {
    let error = format!("{:#}", from_file(text).unwrap().validate().unwrap_err());
    assert!(error.contains(told), "{error}");
}

#[rstest]
#[case::a_list("[\"etcd:9\", \"http://b:1\"]", &["http://etcd:9", "http://b:1"])]
#[case::one("\"http://etcd:2379\"", &["http://etcd:2379"])]
#[case::one_of_several("\"a:1, b:2\"", &["http://a:1", "http://b:2"])]
#[case::a_host("\"etcd\"", &["http://etcd:2379"])]
fn endpoints_of_etcd_are_what_was_meant(#[case] written: &str, #[case] meant: &[&str]) {
    let text = format!("[etcd]\nendpoints = {written}\n");
    let settings = from_file(&text).unwrap().validate().unwrap();
    assert_eq!(settings.etcd().unwrap().endpoints, meant);
}

fn from_variables(variables: &[(&str, &str)]) -> Result<Written> {
    let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    Written::of_variables(Variables::among(variables))
}

#[test]
fn variables_are_what_their_settings_are() {
    let written = from_variables(&[
        ("BATON_GATEWAY__API_KEY", "0012345"),
        ("BATON_WORKER__ID", "7"),
        ("BATON_ENGINE__KV_BLOCKS", "64"),
        ("BATON_ENGINE__GPU_PARTITION", "40"),
        ("BATON_ENGINE__GPU_MEMORY_UTILIZATION", "0.5"),
        ("BATON_GATEWAY__CORS", "1"),
        ("BATON_GATEWAY__HTTP", "9000"),
        ("BATON_ETCD__ENDPOINTS", "http://a:1,http://b:2"),
        ("BATON_ENGINE__CUDA_LIBRARIES", "[\"/x\", \"/y\"]"),
        ("BATON_API_KEY", "another's"),
    ])
    .unwrap();
    assert_eq!(written.gateway.api_key.as_deref(), Some("0012345"));
    assert_eq!(written.worker.id.as_deref(), Some("7"));
    assert_eq!(written.engine.kv_blocks, Some(64));
    assert_eq!(written.engine.gpu_partition.as_deref(), Some("40"));
    assert_eq!(written.engine.gpu_memory_utilization, Some(0.5));
    assert_eq!(written.gateway.cors, Some(true));
    assert_eq!(written.gateway.http.unwrap().port, Some(9000));
    assert_eq!(written.etcd.endpoints.unwrap(), ["http://a:1", "http://b:2"]);
    assert_eq!(written.engine.cuda_libraries.unwrap(), [Path::new("/x"), Path::new("/y")]);
}

#[rstest]
#[case("BATON_ENGINE__KV_BLOCKS", "many", "is \"many\": want a whole number")]
#[case("BATON_ENGINE__KV_BLOCKS", "", "is \"\": want a whole number")]
#[case("BATON_GATEWAY__PORT", "-1", "is -1: want a whole number up to 65535")]
#[case(
    "BATON_TARGETS__ITL_TARGET_MS",
    "99999999999999999999",
    "is 99999999999999999999: want a whole number up to 18446744073709551615"
)]
#[case("BATON_TARGETS__ITL_TARGET_MS", "2.0", "is 2.0: want a whole number")]
#[case(
    "BATON_ENGINE__KV_BLOCKS",
    "5000000000",
    "is 5000000000: want a whole number up to 4294967295"
)]
#[case("BATON_SECURITY__INSECURE", "perhaps", "is \"perhaps\": want true or false")]
#[case("BATON_GATEWAY__HTTP", "a b", "want HOST:PORT")]
fn a_wrong_variable_is_named(#[case] name: &str, #[case] value: &str, #[case] told: &str) {
    let error = from_variables(&[(name, value)]).unwrap_err().to_string();
    assert!(error.starts_with(name) && error.contains(told), "{error}");
}

#[test]
fn a_worker_on_all_addresses_is_published_by_one_that_can_be_called() {
    let text = "[worker]\nlisten = \"0.0.0.0:0\"\n";
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let model = crate::model::LocalModel { dir: demo, name: "demo".to_owned() };
    let host = |text: &str| {
        let settings = from_file(text).unwrap().validate().unwrap();
        let worker =
            settings.worker(words::Role::Decode, settings.worker_id(words::Role::Decode), &model);
        worker.map(|config| config.advertise_host)
    };
    // A machine without a network has no such address, and is told.
    match host(text) {
        Ok(host) => assert!(host.is_some_and(|host| host != "0.0.0.0")),
        Err(error) => assert!(format!("{error:#}").contains("--advertise-host")),
    }
    assert_eq!(host(&format!("{text}advertise_host = \"d0\"\n")).unwrap().as_deref(), Some("d0"));
    assert_eq!(host("[worker]\nlisten = \"127.0.0.1:0\"\n").unwrap(), None);
}

#[test]
fn memory_below_the_pool_is_each_workers_own() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let model = crate::model::LocalModel { dir: demo, name: "demo".to_owned() };
    let text = "[engine]\nkv_host_gib = 2\nkv_disk = \"/kv\"\nkv_disk_gib = 0.5\n";
    let settings = from_file(text).unwrap().validate().unwrap();
    for (role, dir) in [(words::Role::Prefill, "/kv/prefill"), (words::Role::Decode, "/kv/decode")]
    {
        let tiers = settings.engine(role, &model).unwrap().tiers;
        let disk = tiers.disk.unwrap();
        assert_eq!((tiers.host_bytes, disk.bytes), (2 << 30, 1 << 29));
        assert_eq!(disk.dir, Path::new(dir));
    }
}

#[rstest]
#[case("kv_disk = \"/kv\"", "give both, or none")]
#[case("kv_disk_gib = 3", "give both, or none")]
#[case("kv_host_gib = -1.0", "engine.kv_host_gib is -1: want GiB")]
#[case("kv_host_gib = 1\nprefix_cache = false", "engine.prefix_cache is false")]
fn memory_below_the_pool_that_is_none_is_refused(#[case] text: &str, #[case] told: &str) {
    let written = from_file(&format!("[engine]\n{text}\n")).unwrap();
    let error = written.validate().unwrap_err().to_string();
    assert!(error.contains(told), "{error}");
}

#[test]
fn what_the_model_can_not_do_is_said() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
    let model = crate::model::LocalModel { dir: demo, name: "demo".to_owned() };
    let of = |text: &str| from_file(text).unwrap().validate().unwrap().remarks_on(&model);
    let error = of("[engine]\ncontext_tokens_max = 1000000\n").unwrap_err().to_string();
    assert!(error.contains("demo reads at most"), "{error}");
    let remarks = of("[model]\nrevision = \"main\"\n[engine]\ndevice = \"cpu\"\n").unwrap();
    assert!(remarks[0].contains("model.revision has no effect"), "{remarks:?}");
    let remarks = of("[engine]\ndevice = \"cpu\"\nkv_blocks = 4\n").unwrap();
    assert!(remarks[0].contains("the KV pool holds 64 tokens"), "{remarks:?}");
    assert!(of("[engine]\ndevice = \"cpu\"\n").unwrap().is_empty());
}
