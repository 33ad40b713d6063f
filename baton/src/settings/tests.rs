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
#[case::target("[engine]\nitl_target_ms = 0\n", "itl_target_ms")]
#[case::format("[model]\nload_format = \"pickle\"\n", "load_format")]
#[case::policy("[gateway]\nhandoff = \"sometimes\"\n", "handoff")]
#[case::logs("[telemetry]\nlog_format = \"xml\"\n", "log_format")]
#[case::ttft("[gateway]\nttft_target_ms = 0\n", "ttft_target_ms")]
#[case::tpot("[gateway]\ntpot_target_ms = 0\n", "tpot_target_ms")]
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
