//! `baton keys`: makes API keys, and the entries of the file that routers know them by.

use std::io::IsTerminal as _;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};
use router::callers::keys;

use crate::out;

/// `baton keys`.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Makes a key that nobody can guess; shows it once, with its entry for --api-keys-file.
    New {
        /// Names its owner, in logs and metrics.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// Keys of one tenant share prefix caches, and with nobody else.
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
    /// Reads a key from standard input and prints its SHA-256, as the file wants it.
    Hash,
}

/// Runs the command.
///
/// # Errors
/// If there is no randomness, or no key to read.
pub(crate) fn run(args: KeysArgs) -> Result<()> {
    match args.what {
        What::New { name, tenant } => new(&name, tenant.as_deref()),
        What::Hash => hash(),
    }
}

fn new(name: &str, tenant: Option<&str>) -> Result<()> {
    let key = keys::generate()?;
    let mut entry = toml::Table::new();
    entry.insert("name".into(), name.into());
    entry.insert("sha256".into(), keys::hash(&key).into());
    if let Some(tenant) = tenant {
        entry.insert("tenant".into(), tenant.into());
    }
    let file = toml::Table::from_iter([("key".to_owned(), toml::Value::Array(vec![entry.into()]))]);
    let text = toml::to_string(&file)?;
    keys::check_file(&text).map_err(anyhow::Error::msg)?;
    let told =
        format!("The key, shown only now: {key}\n\nIts entry for the router's --api-keys-file:\n");
    out::note(told);
    out::line(text)
}

fn hash() -> Result<()> {
    let input = std::io::stdin();
    if input.is_terminal() {
        out::note("The key, then Enter:");
    }
    let mut key = String::new();
    input.read_line(&mut key).context("can't read the key")?;
    let key = key.trim_end_matches(['\n', '\r']);
    ensure!(!key.is_empty(), "there is no key on standard input");
    out::line(keys::hash(key))
}
