//! `baton etcd`: what a cluster keeps in etcd, for whoever wonders.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use cluster::membership::etcd::{Look, ToldPrefix, look};
use words::{WorkerId, WorkerInfo};

use crate::out;
use crate::settings::{EtcdArgs, SecurityArgs, Written};

/// `baton etcd`.
#[derive(Args, Clone, Debug)]
pub(crate) struct EtcdCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Lists the workers, and how many prefixes each tells of.
    Ls(LsArgs),
}

#[derive(Args, Clone, Debug)]
struct LsArgs {
    /// A TOML file with settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// List each prefix, too: its length in blocks, its name, and who has it.
    #[arg(long)]
    prefixes: bool,
    #[command(flatten)]
    etcd: EtcdArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

/// How many prefixes a worker tells of, and the longest one's blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Told {
    prefixes: usize,
    blocks_max: u32,
}

/// Runs the command.
///
/// # Errors
/// If settings are wrong, or etcd can't be read.
pub(crate) async fn run(command: Box<EtcdCommand>) -> Result<()> {
    match command.what {
        What::Ls(args) => ls(args).await,
    }
}

async fn ls(LsArgs { config, prefixes, etcd, security }: LsArgs) -> Result<()> {
    let written = Written { etcd, security, ..Written::default() };
    let settings = Written::merge(config.as_deref(), &written)?.validate()?;
    let there = look(&settings.etcd()?).await?;
    workers(&there)?;
    if prefixes {
        out::line("")?;
        there.prefixes.iter().try_for_each(prefix)?;
    }
    if there.odd > 0 {
        out::note(format_args!("{} other keys, which nobody here has written", there.odd));
    }
    Ok(())
}

fn workers(Look { workers, prefixes, .. }: &Look) -> Result<()> {
    let told = by_worker(prefixes);
    row(["WORKER", "ROLE", "STATE", "FINGERPRINT", "PREFIXES", "LONGEST", "ADDRESS"])?;
    for WorkerInfo { address, role, state, fingerprint, capacity, .. } in workers {
        let Told { prefixes, blocks_max } = told.get(&address.worker).copied().unwrap_or_default();
        row([
            &*address.worker.0,
            &role.to_string(),
            &format!("{state:?}").to_lowercase(),
            &fingerprint.name(),
            &prefixes.to_string(),
            &format!("{} tokens", blocks_max * capacity.block_tokens),
            &address.uri,
        ])?;
    }
    Ok(())
}

fn by_worker(prefixes: &[ToldPrefix]) -> BTreeMap<&WorkerId, Told> {
    let mut told: BTreeMap<_, Told> = BTreeMap::new();
    for prefix in prefixes {
        let told = told.entry(&prefix.worker).or_default();
        told.prefixes += 1;
        told.blocks_max = told.blocks_max.max(prefix.blocks);
    }
    told
}

fn row([worker, role, state, fingerprint, prefixes, longest, address]: [&str; 7]) -> Result<()> {
    out::line(format_args!(
        "{worker:<20} {role:<8} {state:<10} {fingerprint:<20} {prefixes:>8} {longest:>14}  {address}"
    ))
}

fn prefix(ToldPrefix { fingerprint, hash, worker, blocks }: &ToldPrefix) -> Result<()> {
    out::line(format_args!("{blocks:>6} {hash} {fingerprint} {worker}"))
}

#[cfg(test)]
mod tests {
    use kv_cache::BlockHash;

    use super::*;

    #[test]
    fn prefixes_are_counted_by_worker() {
        let told = |worker: &str, blocks: u32| ToldPrefix {
            fingerprint: "fp".to_owned(),
            hash: BlockHash(blocks.into()),
            worker: worker.into(),
            blocks,
        };
        let told = [told("a", 16), told("b", 16), told("a", 48), told("a", 32)];
        let (a, b) = ("a".into(), "b".into());
        let want = [
            (&a, Told { prefixes: 3, blocks_max: 48 }),
            (&b, Told { prefixes: 1, blocks_max: 16 }),
        ];
        assert_eq!(by_worker(&told), BTreeMap::from(want));
    }
}
