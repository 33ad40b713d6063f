//! The settings by group, as flags, as tables of the TOML file and as environment variables.

use std::path::PathBuf;

use clap::Args;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_with::skip_serializing_none;

use super::listen::ListenOn;

/// Which model.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Model")]
pub(crate) struct ModelArgs {
    /// A folder in Hugging Face layout, or `org/name` from the Hugging Face cache or hub.
    /// Default: the demo model.
    #[arg(long = "model", value_name = "DIR|ORG/NAME")]
    pub source: Option<String>,
    /// The branch, tag or commit of `org/name` [default: main]
    #[arg(long)]
    pub revision: Option<String>,
    /// The name clients ask for. Default: the folder's name, or `org/name`.
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// `auto` reads the weights; `dummy` makes random ones from config.json alone, for benchmarks
    /// [default: auto]
    #[arg(long, value_name = "auto|dummy")]
    pub load_format: Option<String>,
    /// Never ask the network for a model.
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub offline: Option<bool>,
}

/// How the engine runs it.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// Where the model runs: auto takes the first GPU where there is one, cuda:1 the second
    /// [default: auto]
    #[arg(long, value_name = "auto|cpu|cuda[:N]")]
    pub device: Option<String>,
    /// The part of a GPU's memory to use, weights and everything; `up` gives each of its workers
    /// half of it [default: 0.9]
    #[arg(long, value_name = "SHARE")]
    pub gpu_memory_utilization: Option<f32>,
    /// How `up` divides a GPU's multiprocessors between prefill and decode while both are at work:
    /// `auto` follows the load, a number is decode's share, `off` lets both run everywhere
    /// [default: off]
    #[arg(long, value_name = "auto|off|N")]
    #[serde(deserialize_with = "word_or_number")]
    pub gpu_partition: Option<String>,
    /// Use the kernels for any GPU since Ampere also where there are better ones: to test them, or
    /// to step around a fault [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub portable_kernels: Option<bool>,
    /// Where compiled kernels are kept between starts. Default: ~/.cache/baton/kernels
    #[arg(long, value_name = "DIR")]
    pub kernel_cache: Option<PathBuf>,
    /// Take turns of a step with other processes' engines on the same GPU, by locks on files beside the compiled
    /// kernels [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub gpu_turns: Option<bool>,
    /// Folders with CUDA's libraries (NVRTC, cuBLAS), comma separated. Default: where the toolkit
    /// and Python's packages put them.
    #[arg(long, value_name = "DIR", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub cuda_libraries: Option<Vec<PathBuf>>,
    /// KV blocks in the pool. Default: what --kv-memory-mib holds; on a GPU, what its memory holds.
    #[arg(long, value_name = "BLOCKS")]
    pub kv_blocks: Option<u32>,
    /// Memory for the KV pool, MiB. Default: 512 on the CPU; on a GPU, what is left.
    #[arg(long, value_name = "MIB")]
    pub kv_memory_mib: Option<u64>,
    /// Tokens of a KV block; the same on all workers [default: 16]
    #[arg(long, value_name = "TOKENS")]
    pub block_tokens: Option<u32>,
    /// Element type of cached keys and values: auto, f32, bf16 or f16 [default: auto, the weights']
    #[arg(long, value_name = "DTYPE")]
    pub kv_dtype: Option<String>,
    /// Tokens of a step, prefill chunks and decode rows together [default: 512; on a GPU
    /// 8448, for a decode worker 2048]
    #[arg(long, alias = "max-num-batched-tokens", value_name = "TOKENS")]
    pub batch_tokens_max: Option<u32>,
    /// Sequences that run at once [default: 64; on a GPU 256]
    #[arg(long, alias = "max-num-seqs", value_name = "N")]
    pub sequences_max: Option<u32>,
    /// Requests an engine queues before it refuses [default: 1024]
    #[arg(long, value_name = "N")]
    pub queue_max: Option<u32>,
    /// Longest prompt plus output. Default: the model's own limit.
    #[arg(long, alias = "max-model-len", value_name = "TOKENS")]
    pub context_tokens_max: Option<u32>,
    /// CPU threads. Default: one per core.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Layers that are sent together in a hand-off [default: 4]
    #[arg(long, value_name = "LAYERS")]
    pub layer_group: Option<u32>,
    /// Keep the KV blocks of finished requests for prompts that begin the same [default: true]
    #[arg(long, value_name = "BOOL")]
    pub prefix_cache: Option<bool>,
    /// Memory of the host for KV blocks that the pool has no room for, GiB, of each worker; they come back when a prompt
    /// begins with them [default: 0, none]
    #[arg(long, value_name = "GIB")]
    pub kv_host_gib: Option<f64>,
    /// A folder on a local disk for KV blocks that the host has no room for, which a worker finds again when it starts. Prompts can be
    /// read from it: it is the owner's alone. One worker of each role at a time; with --kv-disk-gib [default: none]
    #[arg(long, value_name = "DIR")]
    pub kv_disk: Option<PathBuf>,
    /// How much of that disk, GiB, of each worker. Blocks of other models in the folder are part of it, and removed where
    /// they are more than half.
    #[arg(long, value_name = "GIB")]
    pub kv_disk_gib: Option<f64>,
}

/// The router: what it accepts, and where.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Gateway")]
pub(crate) struct GatewayArgs {
    /// Where the OpenAI HTTP gateway listens: HOST:PORT, :PORT or PORT; port 0 takes a free one
    /// [default: 127.0.0.1:8000]
    #[arg(long, value_name = "ADDR")]
    pub http: Option<ListenOn>,
    /// Where the gRPC service listens [default: 127.0.0.1:50051]
    #[arg(long, value_name = "ADDR")]
    pub grpc: Option<ListenOn>,
    /// The host of both, where they name none [default: 127.0.0.1]
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The port of --http, where it names none [default: 8000]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// When a prompt is computed on a prefill worker: auto, always or never [default: auto; of
    /// `up`: always without a GPU, never on one, auto on a divided one]
    #[arg(long, value_name = "POLICY")]
    pub handoff: Option<String>,
    /// The weights that new requests go to, where workers have several: the beginning of their digest
    /// or of the fingerprint in answers. Default: the newest that enough workers have.
    #[arg(long, value_name = "DIGEST")]
    pub fingerprint: Option<String>,
    /// Memory for knowing which worker has which prefixes cached, MiB, 40 bytes a block; 0: requests are placed without
    /// regard to it [default: 512]
    #[arg(long, value_name = "MIB")]
    pub prefix_index_mib: Option<usize>,
    /// Clients must send `Authorization: Bearer KEY`; better given as BATON_GATEWAY__API_KEY.
    #[arg(long, value_name = "KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// A file with API keys, hashed, named, with tenants and limits; read again when it changes. `baton keys
    /// new` makes its entries.
    #[arg(long, value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// Where /health, /ready and /metrics listen for operators [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenOn>,
    /// Tell clients which workers served them [default: false; of `up` on loopback: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub debug_headers: Option<bool>,
    /// Refuse requests with fields that have no effect, rather than name those in a header of the
    /// answer [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub strict_fields: Option<bool>,
    /// Where the chat template takes no system message in the middle of a conversation, make it part of
    /// the one at the beginning [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub merge_system_messages: Option<bool>,
    /// Where messages spell control tokens (`<|im_end|>`), take them for text, not for tokens
    /// [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub control_tokens_as_text: Option<bool>,
    /// Answer browsers of any origin, not only pages of this machine [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub cors: Option<bool>,
    /// Log a line for each request: who asked, and how it went. Lines of a kind are at most ten a second
    /// where nothing was generated [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub access_log: Option<bool>,
    /// Largest request body, KiB [default: 16384]
    #[arg(long, value_name = "KIB")]
    pub body_kib_max: Option<u64>,
    /// Requests served at once before 429; an eighth is kept for clients with less than an equal share
    /// [default: 4096]
    #[arg(long, value_name = "N")]
    pub streams_max: Option<usize>,
    /// Most choices of one request [default: 128]
    #[arg(long, value_name = "N")]
    pub choices_max: Option<u32>,
    /// A client that takes nothing of its answer for this long is cut off, seconds [default: 30]
    #[arg(long, value_name = "S")]
    pub reader_timeout_s: Option<u64>,
    /// Longest time of one request, seconds [default: 600]
    #[arg(long, value_name = "S")]
    pub request_timeout_s: Option<u64>,
    /// Open connections, HTTP and gRPC together; at the limit, idle ones are closed and then new ones
    /// refused [default: 16384, or what `ulimit -n` leaves]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<usize>,
    /// Of these, from one address [default: a quarter]
    #[arg(long, value_name = "N")]
    pub connections_per_client_max: Option<usize>,
    /// For a new connection to say something, seconds [default: 10]
    #[arg(long, value_name = "S")]
    pub greeting_timeout_s: Option<u64>,
    /// For a request's head to arrive, and for the next one on a connection of HTTP/1, seconds
    /// [default: 30]
    #[arg(long, value_name = "S")]
    pub head_timeout_s: Option<u64>,
    /// For a request's body to arrive, seconds [default: 60]
    #[arg(long, value_name = "S")]
    pub body_timeout_s: Option<u64>,
    /// For a connection of HTTP/2 or gRPC without a request, seconds [default: 300]
    #[arg(long, value_name = "S")]
    pub idle_timeout_s: Option<u64>,
}

/// A worker: its name and addresses.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Worker")]
pub(crate) struct WorkerArgs {
    /// The worker's name, kept over restarts. Default: one made up at each start.
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Where its gRPC server listens [default: 127.0.0.1:0, a free port]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<ListenOn>,
    /// Where /health, /ready and /metrics listen [default: 127.0.0.1:0]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<ListenOn>,
    /// The host other nodes reach it by. Default: the one it listens on; of 0.0.0.0, the address that this
    /// machine has towards the outside.
    #[arg(long, value_name = "HOST")]
    pub advertise_host: Option<String>,
    /// How long a leaving node lets its work finish, seconds [default: 30]
    #[arg(long, value_name = "S")]
    pub drain_deadline_s: Option<u64>,
    /// Time between two load reports, milliseconds, at most 500 [default: 100]
    #[arg(long, value_name = "MS")]
    pub report_interval_ms: Option<u64>,
    /// Longest time of one request, whatever its caller says, seconds [default: 3600]
    #[arg(long, value_name = "S")]
    pub deadline_max_s: Option<u64>,
    /// Requests in line before more are refused, half of it for one client at most; time refuses sooner
    /// [default: 1024]
    #[arg(long, value_name = "N")]
    pub credit_queue_max: Option<usize>,
    /// Open connections of routers and other workers; at the limit, idle ones are closed and then
    /// new ones refused [default: 4096, or what `ulimit -n` leaves]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<usize>,
}

/// The cluster's memory.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "etcd")]
pub(crate) struct EtcdArgs {
    /// etcd's endpoints, comma separated [default: http://127.0.0.1:2379]
    #[arg(long = "etcd", value_name = "URL", value_delimiter = ',')]
    #[serde(deserialize_with = "list")]
    pub endpoints: Option<Vec<String>>,
    /// Clusters under different namespaces don't see each other [default: default]
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// How long a worker that stopped answering stays listed, seconds [default: 10]
    #[arg(long, value_name = "S")]
    pub lease_ttl_s: Option<u64>,
    /// etcd's user.
    #[arg(long = "etcd-user", value_name = "NAME")]
    pub user: Option<String>,
    /// etcd's password; better given as BATON_ETCD__PASSWORD.
    #[arg(long = "etcd-password", value_name = "SECRET")]
    pub password: Option<String>,
    /// Whom to trust as etcd, a file with certificates; with https. Default: --tls-ca, else the system's.
    #[arg(long = "etcd-ca", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// This node's certificate for etcd. Default: --tls-cert.
    #[arg(long = "etcd-cert", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key. Default: --tls-key.
    #[arg(long = "etcd-key", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The name in etcd's certificate, if it isn't its host's.
    #[arg(long = "etcd-domain", value_name = "NAME")]
    pub domain: Option<String>,
}

/// Who may talk to whom.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Security")]
pub(crate) struct SecurityArgs {
    /// Whom to trust as nodes of this cluster: a file with the authority's certificate. With
    /// --tls-cert and --tls-key, nodes meet each other in mutual TLS; `baton certs` makes all three.
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// This node's certificate, which names it: baton://CLUSTER/ROLE/ID.
    #[arg(long, value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Instead of certificates: a file with a secret that all nodes share (`baton certs secret`), or
    /// the secret itself in BATON_SECURITY__CLUSTER_SECRET.
    #[arg(long, value_name = "FILE")]
    pub cluster_secret_file: Option<PathBuf>,
    /// The secret itself; no flag, for everybody sees those.
    #[arg(skip)]
    pub cluster_secret: Option<String>,
    /// The cluster's name in certificates. Default: --namespace.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// The certificate that the gateway's clients see. Default: --tls-cert.
    #[arg(long, value_name = "FILE")]
    pub gateway_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "FILE")]
    pub gateway_key: Option<PathBuf>,
    /// Meet the gateway's clients in TLS [default: true with a certificate]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub gateway_tls: Option<bool>,
    /// Serve health and metrics in TLS [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub admin_tls: Option<bool>,
    /// Listen for other machines without certificates, cluster secret or API keys [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure: Option<bool>,
}

/// How soon tokens are wanted: who is let in, whose prompt comes first, and how long steps are.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Targets")]
pub(crate) struct TargetArgs {
    /// To the first token. A router refuses requests with 429 that are not likely to have it in time [default: 5000]; a
    /// prompt that takes longer even alone is let in behind one of its size. A worker computes prompts in the order
    /// in which most are in time [default: the shortest first]. A request may have its own for workers, as of the next
    /// two: by the header x-baton-ttft-target-ms
    #[arg(long, value_name = "MS")]
    pub ttft_target_ms: Option<u64>,
    /// Between two tokens in the mean. A router refuses requests with 429 that would slow each token down to more
    /// [default: 200]. A worker computes no more of prompts beside its sequences than leaves them this [default: as
    /// --itl-target-ms allows]. Of a request: x-baton-tpot-target-ms
    #[arg(long, value_name = "MS")]
    pub tpot_target_ms: Option<u64>,
    /// Between two tokens: prompts make a worker's steps no longer, if its sequences alone take at most half of it, and
    /// a gap is longer where an answer changes workers or the machine is held up [default: 30]; also what `--gpu-partition auto` divides a GPU for [default: 20]. Of a request, down to half of
    /// this: x-baton-itl-target-ms
    #[arg(long, value_name = "MS")]
    pub itl_target_ms: Option<u64>,
}

/// What a node tells about itself.
#[skip_serializing_none]
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Telemetry")]
pub(crate) struct TelemetryArgs {
    /// Which log lines, as in `info,engine=debug` [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// `text` for people, `json` for machines [default: text]
    #[arg(long, value_name = "text|json")]
    pub log_format: Option<String>,
    /// Send traces by OTLP/gRPC to this collector, e.g. http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
}

/// A setting that is a word or a number, as text: variables and files may give either.
fn word_or_number<'de, D: Deserializer<'de>>(value: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u64),
        Word(String),
    }
    Ok(Option::<Either>::deserialize(value)?.map(|value| match value {
        Either::Number(number) => number.to_string(),
        Either::Word(word) => word,
    }))
}

/// A list, or its parts in one text with commas between them, which is what a variable can hold.
fn list<'de, D: Deserializer<'de>, T: From<String>>(value: D) -> Result<Option<Vec<T>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Many(Vec<String>),
        One(String),
    }
    let wanted =
        |_| D::Error::custom("want a text in quotes, or a list of them: [\"...\", \"...\"]");
    let parts = match Either::deserialize(value).map_err(wanted)? {
        Either::Many(parts) => parts,
        Either::One(text) => parts_of(&text),
    };
    Ok(Some(parts.into_iter().map(T::from).collect()))
}

/// The parts of `a,b`, also where it is written as in the file: `["a", "b"]`.
fn parts_of(text: &str) -> Vec<String> {
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    let parts = bare.split(',').map(|part| part.trim().trim_matches(['"', '\'']));
    parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
}
