//! What was written, checked and made plain.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cluster::connections::ConnectionLimits;
use cluster::node;
use cluster::security::Security;
use cluster::telemetry::{LogFormat, TelemetryConfig};
use engine::backend::cuda::{SmPartition, SmSplit};
use engine::{CudaOptions, EngineConfig, LoadFormat, ModelConfig, ModelOptions};
use kv_cache::KvCodec;
use router::callers::keys::Keys;
use router::dispatch::AdmissionConfig;
use router::{GatewayConfig, GatewayLimits, ModelCatalog, ServedModel, ServedModelConfig};
use scheduler::{HandoffPolicy, PartitionTargets};
use words::{Role, Targets, WorkerId};
use worker::WorkerConfig;

use super::groups::TargetArgs;
use super::listen::ListenOn;
use super::{Lock, Port, Written};
use crate::model::{LocalModel, ModelRequest};
use crate::{advertise, descriptors};

const LOCAL: &str = "127.0.0.1";
const HTTP_PORT: u16 = 8000;
const GRPC_PORT: u16 = 50051;
/// So many connections are not divided among clients.
const CONNECTIONS_FEW: usize = 64;
/// A pool of one block could hold one prompt that fits it, and no token of an answer.
pub(super) const KV_BLOCKS_MIN: u32 = 2;
/// Enough for thousands of tokens of a small model; a large one wants to be told.
const DEFAULT_KV_MEMORY_MIB: u64 = 512;

/// Room for 13 million blocks: the device memory of some 250 workers of an 8B model.
const DEFAULT_PREFIX_INDEX_MIB: usize = 512;
/// A few prompts of a small model at a time. All prompts of a step get their first tokens with its end, and a CPU's
/// products are as fast with this many rows as with more.
const CPU_BATCH_TOKENS: u32 = 128;
const CPU_SEQUENCES: u32 = 64;
/// Enough rows to keep the tensor cores at their rate: 64 for each of 132 multiprocessors, so that the
/// tiles of large products come out even (1 % faster than 8,192 with 32 prompts of 2,048).
const GPU_BATCH_TOKENS: u32 = 8448;
/// A decode worker computes the prompts that are faster without a hand-off, beside its sequences: as many tokens a step as
/// leave those their targets, and hardly ever so many.
const GPU_DECODE_BATCH_TOKENS: u32 = 2048;
/// Between two tokens at most. Beside 64 sequences of an 8B model on an H200 some 1,350 tokens of prompts are computed in
/// that time, nearly as fast as prompts alone; a reader sees no pause.
const ITL_TARGET_MS: u64 = 30;
/// A prefill engine in its part of a GPU: its step is what a prompt that comes just after waits for, and a
/// decode step beside it keeps its part as long. 8,192 tokens gave 116 ms to the first token in the mean
/// and 612 ms at p99, 1,024 gave 82 and 228, and tokens as fast (8B on an H100, 20 prompts of 1,024 a second).
const GPU_PARTED_BATCH_TOKENS: u32 = 1024;
/// Longer than any client waits; a caller that asks for more would hold blocks for ever.
const DEADLINE_MAX_S: u64 = 3600;
/// Past that, reading KV outweighs what sharing the weights saves.
const GPU_SEQUENCES: u32 = 256;
/// What is left is for the driver and for libraries' own use.
const GPU_MEMORY_UTILIZATION: f32 = 0.9;

/// Plain values. Each node takes the parts it needs.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(super) written: Written,
}

/// What the engine runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// A GPU where there is one.
    Auto,
    Cpu,
    Cuda(usize),
}

/// Where a router listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoints {
    /// The OpenAI gateway.
    pub http: SocketAddr,
    /// The gRPC service.
    pub grpc: SocketAddr,
    /// Whether somebody said its port.
    pub grpc_is_named: bool,
    /// Health and metrics, for operators.
    pub admin: SocketAddr,
}

impl Written {
    /// Checks everything that can be checked without the model.
    ///
    /// # Errors
    /// Naming the setting at fault.
    pub(crate) fn validate(self) -> Result<Settings> {
        let settings = Settings { written: self };
        settings.check_times()?;
        settings.check_gateway()?;
        settings.load_format()?;
        settings.kv_dtype()?;
        settings.handoff(HandoffPolicy::Auto)?;
        settings.telemetry("baton", "")?;
        settings.check_engine()?;
        settings.partition()?;
        settings.limits()?;
        settings.admission()?;
        settings.etcd()?;
        settings.endpoints()?;
        settings.check_worker()?;
        settings.check_telemetry()?;
        Ok(settings)
    }
}

// === impl Settings ===

impl Settings {
    /// Which model to find.
    pub(crate) fn model_request(&self) -> ModelRequest {
        let model = &self.written.model;
        ModelRequest {
            source: model.source.clone(),
            revision: model.revision.clone().unwrap_or_else(|| "main".to_owned()),
            served_name: model.served_model_name.clone(),
            offline: model.offline.unwrap_or(false),
            is_dummy: self.load_format().is_ok_and(|format| !matches!(format, LoadFormat::Auto)),
        }
    }

    /// Where the router listens.
    ///
    /// # Errors
    /// If a host has no address, or two settings contradict each other.
    pub(crate) fn endpoints(&self) -> Result<Endpoints> {
        let gateway = &self.written.gateway;
        let host = gateway.host.as_deref().unwrap_or(LOCAL);
        let says_twice = gateway.http.as_ref().and_then(|http| http.port).zip(gateway.port);
        if let Some((one, other)) = says_twice.filter(|(one, other)| one != other) {
            bail!("--http says port {one} and --port {other}: give one of them");
        }
        let port = gateway.port.unwrap_or(HTTP_PORT);
        let http = listen("gateway.http", &gateway.http, host, port)?;
        let grpc = listen("gateway.grpc", &gateway.grpc, host, GRPC_PORT)?;
        let admin = listen("gateway.admin", &gateway.admin, LOCAL, 0)?;
        ensure!(
            http != grpc || http.port() == 0,
            "--http and --grpc are both {http}: give each a port of its own"
        );
        let grpc_is_named = gateway.grpc.as_ref().is_some_and(|grpc| grpc.port.is_some());
        Ok(Endpoints { http, grpc, grpc_is_named, admin })
    }

    /// The engine of a worker that runs `model`.
    ///
    /// # Errors
    /// If the model's configuration can't be read, or not one block fits the memory given.
    pub(crate) fn engine(&self, role: Role, model: &LocalModel) -> Result<EngineConfig> {
        let engine = &self.written.engine;
        let block_tokens = engine.block_tokens.unwrap_or(16);
        let kv_dtype = self.kv_dtype()?;
        let cuda = self.device()?.ordinal().map(|ordinal| self.cuda(ordinal)).transpose()?;
        let kv_blocks = match engine.kv_blocks {
            Some(blocks) => Some(blocks),
            None if cuda.is_some() && engine.kv_memory_mib.is_none() => None,
            None => {
                // The largest that `auto` can mean.
                let widest = if cuda.is_some() { KvCodec::BF16 } else { KvCodec::F32 };
                Some(self.default_kv_blocks(
                    &model.dir,
                    block_tokens,
                    kv_dtype.unwrap_or(widest),
                )?)
            }
        };
        let (batch_tokens, sequences_max) = match cuda {
            Some(_) if role == Role::Decode => (GPU_DECODE_BATCH_TOKENS, GPU_SEQUENCES),
            Some(_) => (prefill_batch_tokens(&self.split()?), GPU_SEQUENCES),
            None => (CPU_BATCH_TOKENS, CPU_SEQUENCES),
        };
        let sequences_max = engine.sequences_max.unwrap_or(sequences_max);
        // A row for each, and a block of a prompt.
        let batch_tokens = batch_tokens.max(sequences_max.saturating_add(block_tokens));
        Ok(EngineConfig {
            model_dir: model.dir.clone(),
            model: ModelOptions {
                kv_blocks,
                block_tokens,
                kv_codec: kv_dtype,
                threads: engine.threads,
                cuda,
                load_format: self.load_format()?,
                layer_group: engine.layer_group.unwrap_or(4),
            },
            batch_tokens_max: engine.batch_tokens_max.unwrap_or(batch_tokens),
            sequences_max,
            queue_max: engine.queue_max.unwrap_or(1024),
            context_tokens_max: engine.context_tokens_max,
            prefix_cache: engine.prefix_cache.unwrap_or(true),
            targets: self.targets(),
            tiers: self.tiers(role),
        })
    }

    /// The worker's name: as written, or one that no other has.
    pub(crate) fn worker_id(&self, role: Role) -> WorkerId {
        let written = self.written.worker.id.clone();
        WorkerId(written.unwrap_or_else(|| unique_name(role)).into())
    }

    /// A worker of `role`, called `id`, that runs `model`.
    ///
    /// # Errors
    /// As [`Settings::engine`].
    pub(crate) fn worker(
        &self,
        role: Role,
        id: WorkerId,
        model: &LocalModel,
    ) -> Result<WorkerConfig> {
        let worker = &self.written.worker;
        let listen_on = listen("worker.listen", &worker.listen, LOCAL, 0)?;
        Ok(WorkerConfig {
            id,
            namespace: self.etcd()?.namespace,
            role,
            model: model.name.clone(),
            engine: self.engine(role, model)?,
            listen: listen_on,
            deadline_max: Duration::from_secs(worker.deadline_max_s.unwrap_or(DEADLINE_MAX_S)),
            security: Security::open(),
            admin_certificates: None,
            insecure: self.is_insecure(),
            admin: Some(listen("worker.admin", &worker.admin, LOCAL, 0)?),
            advertise_host: self.advertise_host(listen_on)?,
            report_interval: Duration::from_millis(worker.report_interval_ms.unwrap_or(100)),
            drain_deadline: self.drain_deadline(),
            credit_queue_max: worker.credit_queue_max.unwrap_or(1024),
            connections: connections(worker.connections_max, None, &ConnectionLimits::default()),
        })
    }

    /// The same as a process of its own, which other nodes meet.
    ///
    /// # Errors
    /// As [`Settings::engine`], and if strangers could reach it.
    pub(crate) fn worker_node(
        &self,
        role: Role,
        id: WorkerId,
        model: &LocalModel,
    ) -> Result<WorkerConfig> {
        let config = self.worker(role, id, model)?;
        let security = self.security(role.into(), &config.id.0)?;
        self.locked(config, security)
    }

    /// The worker `config`, which meets other nodes as `security` says.
    ///
    /// # Errors
    /// If strangers could reach it.
    pub(crate) fn locked(&self, config: WorkerConfig, security: Security) -> Result<WorkerConfig> {
        let admin_certificates = self.admin_certificates(&security)?;
        let listen = Port { flag: "--listen", addr: config.listen, lock: Lock::Cluster };
        let admin = config.admin.map(|addr| Port { flag: "--admin", addr, lock: Lock::Cluster });
        let ports: Vec<Port> = std::iter::once(listen).chain(admin).collect();
        self.check_ports(&ports, security.is_locked())?;
        Ok(WorkerConfig { security, admin_certificates, ..config })
    }

    /// How two workers of this process share a GPU.
    ///
    /// # Errors
    /// If the setting is none of its values.
    pub(crate) fn partition(&self) -> Result<SmPartition> {
        let mut targets = PartitionTargets::default();
        if let Some(ms) = self.written.targets.itl_target_ms {
            targets.itl = Duration::from_millis(ms);
        }
        Ok(SmPartition::new(self.split()?, targets))
    }

    /// How soon a worker's tokens are wanted.
    fn targets(&self) -> Targets {
        let TargetArgs { ttft_target_ms, tpot_target_ms, itl_target_ms } = self.written.targets;
        Targets {
            ttft: ttft_target_ms.map(Duration::from_millis),
            tpot: tpot_target_ms.map(Duration::from_millis),
            itl: Some(Duration::from_millis(itl_target_ms.unwrap_or(ITL_TARGET_MS))),
        }
    }

    pub(crate) fn split(&self) -> Result<SmSplit> {
        Ok(match self.written.engine.gpu_partition.as_deref() {
            None | Some("off") => SmSplit::Off,
            Some("auto") => SmSplit::Auto,
            Some(other) => match other.parse() {
                Ok(multiprocessors) if multiprocessors > 0 => SmSplit::Decode(multiprocessors),
                _ => bail!(
                    "engine.gpu_partition is {other:?}: want auto, off, or a number of \
                     multiprocessors"
                ),
            },
        })
    }

    /// How long a leaving node waits for its work.
    pub(crate) fn drain_deadline(&self) -> Duration {
        Duration::from_secs(self.written.worker.drain_deadline_s.unwrap_or(30))
    }

    /// The gateway in front of `model`.
    ///
    /// # Errors
    /// If the model's tokenizer or chat template can't be loaded.
    pub(crate) fn gateway(&self, model: &LocalModel) -> Result<GatewayConfig> {
        let gateway = &self.written.gateway;
        self.check_context(model)?;
        let served = ServedModel::load(&ServedModelConfig {
            folder: model.dir.clone(),
            name: model.name.clone(),
            aliases: Vec::new(),
            context_tokens_max: self.written.engine.context_tokens_max,
            merge_system_messages: gateway.merge_system_messages.unwrap_or(false),
            control_tokens_as_text: gateway.control_tokens_as_text.unwrap_or(false),
        })?;
        let api_keys: Vec<String> = gateway.api_key.iter().cloned().collect();
        let api_keys_file = gateway.api_keys_file.clone();
        // The gateway reads them itself; a mistake is told before anybody could call.
        Keys::new(&api_keys, api_keys_file.clone())?;
        Ok(GatewayConfig {
            models: ModelCatalog::new(vec![Arc::new(served)])?,
            limits: self.limits()?,
            api_keys,
            api_keys_file,
            debug_headers: gateway.debug_headers.unwrap_or(false),
            insecure: self.is_insecure() && !self.has_api_keys(),
            cors: gateway.cors.unwrap_or(false),
            strict_fields: gateway.strict_fields.unwrap_or(false),
            access_log: gateway.access_log.unwrap_or(true),
        })
    }

    /// Who is let in, and who stays.
    ///
    /// # Errors
    /// If a time is 0.
    pub(crate) fn admission(&self) -> Result<AdmissionConfig> {
        let targets = &self.written.targets;
        let mut config = AdmissionConfig::default();
        if let Some(ms) = targets.ttft_target_ms {
            config.targets.ttft = Duration::from_millis(ms);
        }
        if let Some(ms) = targets.tpot_target_ms {
            config.targets.tpot = Duration::from_millis(ms);
        }
        Ok(config)
    }

    /// Whether clients of `up` get to know which workers served them: where that is not said, those who
    /// can only be on this machine.
    pub(crate) fn debug_headers_of_up(&self) -> Result<bool> {
        let endpoints = self.endpoints()?;
        let is_local = endpoints.http.ip().is_loopback() && endpoints.grpc.ip().is_loopback();
        Ok(self.written.gateway.debug_headers.unwrap_or(is_local))
    }

    /// When prompts are handed over.
    pub(crate) fn handoff(&self, default: HandoffPolicy) -> Result<HandoffPolicy> {
        match self.written.gateway.handoff.as_deref() {
            None => Ok(default),
            Some("auto") => Ok(HandoffPolicy::Auto),
            Some("always") => Ok(HandoffPolicy::Always),
            Some("never") => Ok(HandoffPolicy::Never),
            Some(other) => bail!("gateway.handoff is {other:?}: want auto, always or never"),
        }
    }

    /// The weights that an operator wants new requests to go to.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        self.written.gateway.fingerprint.clone()
    }

    /// Bytes for knowing what workers have cached; `None`: nobody wants to know.
    pub(crate) fn prefix_index_bytes(&self) -> Option<usize> {
        let mib = self.written.gateway.prefix_index_mib.unwrap_or(DEFAULT_PREFIX_INDEX_MIB);
        (mib > 0).then(|| mib.saturating_mul(1 << 20))
    }

    /// Logs and traces of a node.
    pub(crate) fn telemetry(&self, service: &str, instance: &str) -> Result<TelemetryConfig> {
        let telemetry = &self.written.telemetry;
        let format = match telemetry.log_format.as_deref() {
            None | Some("text") => LogFormat::Human,
            Some("json") => LogFormat::Json,
            Some(other) => bail!("telemetry.log_format is {other:?}: want text or json"),
        };
        Ok(TelemetryConfig {
            instance: instance.to_owned(),
            format,
            filter: telemetry.log.clone().unwrap_or_else(|| "info".to_owned()),
            otlp_endpoint: telemetry.otlp_endpoint.clone(),
            ..TelemetryConfig::new(service)
        })
    }

    /// Whether somebody chose which log lines to see.
    pub(crate) fn log_is_set(&self) -> bool {
        self.written.telemetry.log.is_some()
    }

    pub(super) fn load_format(&self) -> Result<LoadFormat> {
        match self.written.model.load_format.as_deref() {
            None | Some("auto") => Ok(LoadFormat::Auto),
            Some("dummy") => Ok(LoadFormat::Dummy { seed: 0 }),
            Some(other) => bail!("model.load_format is {other:?}: want auto or dummy"),
        }
    }

    pub(super) fn kv_dtype(&self) -> Result<Option<KvCodec>> {
        match self.written.engine.kv_dtype.as_deref() {
            None | Some("auto") => Ok(None),
            Some(name) => KvCodec::named(name).map(Some).with_context(|| {
                let known = KvCodec::ALL.map(|codec| codec.name).join(", ");
                format!("engine.kv_dtype is {name:?}: want auto, or one of {known}")
            }),
        }
    }

    pub(super) fn device(&self) -> Result<Device> {
        let device = self.written.engine.device.as_deref().unwrap_or("auto");
        let number = device.strip_prefix("cuda").map(|rest| rest.strip_prefix(':').unwrap_or(rest));
        match (device, number) {
            ("auto", _) => Ok(Device::Auto),
            ("cpu", _) => Ok(Device::Cpu),
            ("cuda", _) => Ok(Device::Cuda(0)),
            (_, Some(number)) if number.parse::<usize>().is_ok() => {
                Ok(Device::Cuda(number.parse()?))
            }
            _ => bail!("engine.device is {device:?}: want auto, cpu, cuda or cuda:N"),
        }
    }

    fn cuda(&self, ordinal: usize) -> Result<CudaOptions> {
        let engine = &self.written.engine;
        let memory_share = engine.gpu_memory_utilization.unwrap_or(GPU_MEMORY_UTILIZATION);
        ensure!(
            memory_share > 0.0 && memory_share <= 1.0,
            "engine.gpu_memory_utilization is {memory_share}: want a share, above 0 and at most 1"
        );
        let kernel_cache = engine.kernel_cache.clone().or_else(super::kernel_cache);
        Ok(CudaOptions {
            ordinal,
            memory_share,
            portable: engine.portable_kernels.unwrap_or(false),
            library_folders: engine.cuda_libraries.clone().unwrap_or_default(),
            turns: kernel_cache.clone().filter(|_| engine.gpu_turns.unwrap_or(true)),
            kernel_cache,
            ..CudaOptions::default()
        })
    }

    /// The host that a worker is published by, where it isn't the one it listens on.
    fn advertise_host(&self, listen: SocketAddr) -> Result<Option<String>> {
        let written = &self.written.worker.advertise_host;
        if written.is_some() || !listen.ip().is_unspecified() {
            return Ok(written.clone());
        }
        let outgoing = advertise::outgoing(listen.ip()).with_context(|| {
            format!(
                "--listen {listen} is no address that others can call, and this machine has none \
                     towards the outside: say with --advertise-host by which they reach it"
            )
        })?;
        Ok(Some(outgoing.to_string()))
    }

    fn check_engine(&self) -> Result<()> {
        let engine = &self.written.engine;
        if self.device()? != Device::Cpu {
            self.cuda(0)?;
        }
        let (block_tokens, sequences) =
            (engine.block_tokens.unwrap_or(16), engine.sequences_max.unwrap_or(CPU_SEQUENCES));
        ensure!(block_tokens > 0, "engine.block_tokens must be at least 1");
        ensure!(sequences > 0, "engine.sequences_max must be at least 1");
        // Where nothing is said, a step is made large enough.
        let least = sequences.saturating_add(block_tokens);
        let budget = engine.batch_tokens_max.unwrap_or(least);
        ensure!(
            budget >= least,
            "engine.batch_tokens_max is {budget}, but a step must hold a row for each of {sequences} \
             sequences (engine.sequences_max) and one block of a prompt: at least {least}"
        );
        self.check_counts()
    }

    fn limits(&self) -> Result<GatewayLimits> {
        let gateway = &self.written.gateway;
        let mut limits = GatewayLimits::default();
        if let Some(kib) = gateway.body_kib_max {
            limits.body_bytes = usize::try_from(kib)?.saturating_mul(1 << 10);
        }
        limits.streams = gateway.streams_max.unwrap_or(limits.streams);
        limits.choices = gateway.choices_max.unwrap_or(limits.choices);
        let set = |limit: &mut Duration, written: Option<u64>| {
            *limit = written.map_or(*limit, Duration::from_secs);
        };
        set(&mut limits.request_timeout, gateway.request_timeout_s);
        set(&mut limits.head_timeout, gateway.head_timeout_s);
        set(&mut limits.body_timeout, gateway.body_timeout_s);
        set(&mut limits.connections.greeting_timeout, gateway.greeting_timeout_s);
        let idle = gateway.idle_timeout_s.map(Duration::from_secs);
        limits.connections.idle_timeout = idle.or(limits.connections.idle_timeout);
        let (most, per_client) = (gateway.connections_max, gateway.connections_per_client_max);
        limits.connections = connections(most, per_client, &limits.connections);
        let reader = gateway.reader_timeout_s.map(Duration::from_secs);
        limits.connections.reader_timeout = reader.or(limits.connections.reader_timeout);
        limits.validate().context("a setting is wrong")?;
        Ok(limits)
    }

    fn default_kv_blocks(&self, dir: &Path, block_tokens: u32, codec: KvCodec) -> Result<u32> {
        let layout = ModelConfig::load(dir)?.kv_layout(block_tokens, codec);
        let mib = self.written.engine.kv_memory_mib.unwrap_or(DEFAULT_KV_MEMORY_MIB);
        let blocks = mib.saturating_mul(1 << 20) / layout.block_bytes() as u64;
        ensure!(
            blocks > 0,
            "engine.kv_memory_mib is {mib}, but one KV block of this model takes {} bytes",
            layout.block_bytes()
        );
        Ok(u32::try_from(blocks).unwrap_or(u32::MAX - 1))
    }
}

// === impl Device ===

impl Device {
    /// Which GPU; `None` for the CPU.
    fn ordinal(self) -> Option<usize> {
        match self {
            Self::Cpu => None,
            Self::Cuda(ordinal) => Some(ordinal),
            Self::Auto => engine::cuda::first_usable(),
        }
    }
}

/// Where to listen, as the setting `name` says.
fn listen(name: &str, written: &Option<ListenOn>, host: &str, port: u16) -> Result<SocketAddr> {
    let anywhere = ListenOn { host: None, port: None };
    written.as_ref().unwrap_or(&anywhere).resolve(host, port).with_context(|| name.to_owned())
}

/// What was written about connections, within what descriptors allow.
fn connections(
    most: Option<usize>,
    per_client: Option<usize>,
    limits: &ConnectionLimits,
) -> ConnectionLimits {
    let open_max = most.unwrap_or(limits.open_max).min(descriptors::for_clients());
    // A quarter, so that one client leaves room; of few places, all: they may all be one proxy's.
    let share = (open_max / 4).max(open_max.min(CONNECTIONS_FEW));
    ConnectionLimits { open_max, per_client_max: per_client.unwrap_or(share), ..limits.clone() }
}

/// A name that no other worker has; lost at a restart, so a worker of a cluster should be named.
fn unique_name(role: Role) -> String {
    let started = node::incarnation(std::time::SystemTime::now());
    format!("{role}-{}-{:x}", std::process::id(), started.0)
}

/// Tokens of a prefill engine's step on a GPU.
fn prefill_batch_tokens(split: &SmSplit) -> u32 {
    match split {
        SmSplit::Off => GPU_BATCH_TOKENS,
        SmSplit::Auto | SmSplit::Decode(_) => GPU_PARTED_BATCH_TOKENS,
    }
}
