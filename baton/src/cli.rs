//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{bench, certs, chat, etcd, keys, simulate};
use crate::settings::{
    EngineArgs, EtcdArgs, GatewayArgs, ModelArgs, SecurityArgs, TargetArgs, TelemetryArgs,
    WorkerArgs, Written,
};

/// Serves large language models with prefill and decode on separate workers.
///
/// Try `baton up`, then `baton chat` in another terminal.
#[derive(Debug, Parser)]
#[command(name = "baton", version, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  baton up                                  a whole cluster in this process, with the demo model
  baton up --model Qwen/Qwen3-0.6B          the same with a model of the Hugging Face hub
  baton chat                                talk to it
  baton router --etcd http://etcd:2379      one node of a cluster; likewise prefill-worker, decode-worker
  baton bench serve --rate 10               load on a running cluster, with percentiles
  baton bench serve --rate 16..40           how much of which rate it serves

Settings come from flags, from variables (BATON_ENGINE__KV_BLOCKS=4096) and from one TOML file
(--config, table [engine], key kv_blocks = 4096); COMMAND --help says each one's names. Flags win over variables, variables over the file.";

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs router, prefill worker and decode worker in one process; no etcd, no GPU needed.
    #[command(visible_alias = "serve")]
    Up(UpArgs),
    /// Runs a router: the OpenAI gateway and the gRPC service in front of the workers.
    Router(RouterArgs),
    /// Runs a prefill worker: computes prompts and pushes their KV blocks.
    PrefillWorker(WorkerNodeArgs),
    /// Runs a decode worker: receives KV blocks and generates.
    DecodeWorker(WorkerNodeArgs),
    /// Talks to a running router from the terminal.
    Chat(chat::ChatArgs),
    /// Makes API keys for --api-keys-file.
    Keys(keys::KeysArgs),
    /// Measures a running cluster.
    Bench(bench::BenchArgs),
    /// Replays a recorded workload on workers that aren't there, in virtual time.
    Simulate(Box<simulate::SimulateArgs>),
    /// Makes certificates and secrets, for a cluster on a network.
    Certs(certs::CertsArgs),
    /// Shows what a cluster keeps in etcd.
    Etcd(Box<etcd::EtcdCommand>),
    /// Looks at this machine and says what Baton can use of it.
    Doctor,
}

/// What every node takes.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct NodeArgs {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the ports that were bound to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<PathBuf>,
}

/// `baton up`.
#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    /// The model, as in --model.
    #[arg(value_name = "MODEL", conflicts_with = "source")]
    named: Option<String>,
    /// What every node takes.
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    security: SecurityArgs,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

/// `baton router`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RouterArgs {
    /// What every node takes.
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    security: SecurityArgs,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
    /// Longest prompt plus output. Default: the model's own limit.
    #[arg(long, alias = "max-model-len", value_name = "TOKENS", help_heading = "Model")]
    context_tokens_max: Option<u32>,
    /// How long a leaving router lets its streams finish, seconds [default: 30]
    #[arg(long, value_name = "S", help_heading = "Gateway")]
    drain_deadline_s: Option<u64>,
}

/// `baton prefill-worker` and `baton decode-worker`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WorkerNodeArgs {
    /// What every node takes.
    #[command(flatten)]
    pub node: NodeArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    worker: WorkerArgs,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    security: SecurityArgs,
    #[command(flatten)]
    targets: TargetArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

// === impl UpArgs ===

impl UpArgs {
    /// The flags as settings.
    pub(crate) fn written(&self) -> Written {
        let source = self.named.clone().or_else(|| self.model.source.clone());
        Written {
            model: ModelArgs { source, ..self.model.clone() },
            gateway: self.gateway.clone(),
            engine: self.engine.clone(),
            security: self.security.clone(),
            targets: self.targets.clone(),
            telemetry: self.telemetry.clone(),
            ..Written::default()
        }
    }
}

// === impl RouterArgs ===

impl RouterArgs {
    /// The flags as settings.
    pub(crate) fn written(&self) -> Written {
        Written {
            model: self.model.clone(),
            gateway: self.gateway.clone(),
            engine: EngineArgs {
                context_tokens_max: self.context_tokens_max,
                ..EngineArgs::default()
            },
            worker: WorkerArgs { drain_deadline_s: self.drain_deadline_s, ..WorkerArgs::default() },
            etcd: self.etcd.clone(),
            security: self.security.clone(),
            targets: self.targets.clone(),
            telemetry: self.telemetry.clone(),
        }
    }
}

// === impl WorkerNodeArgs ===

impl WorkerNodeArgs {
    /// The flags as settings.
    pub(crate) fn written(&self) -> Written {
        Written {
            model: self.model.clone(),
            worker: self.worker.clone(),
            engine: self.engine.clone(),
            etcd: self.etcd.clone(),
            security: self.security.clone(),
            targets: self.targets.clone(),
            telemetry: self.telemetry.clone(),
            ..Written::default()
        }
    }
}
