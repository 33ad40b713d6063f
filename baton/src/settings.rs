//! Settings: one file, the environment and flags say the same thing.
//!
//! Later wins: built-in defaults, the TOML file, `BATON_GROUP__NAME` variables, flags. What is
//! written is [`Written`]; [`Written::validate`] turns it into plain values or says what is wrong.
//! Nothing else in Baton reads the environment.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use figment::Figment;
use figment::providers::{Format as _, Serialized, Toml};
use serde::{Deserialize, Serialize};

mod complaint;
mod etcd;
mod groups;
mod limits;
mod listen;
pub(crate) mod schema;
mod security;
mod tiers;
mod valid;
mod variables;

pub(crate) use groups::{
    EngineArgs, EtcdArgs, GatewayArgs, ModelArgs, SecurityArgs, TargetArgs, TelemetryArgs,
    WorkerArgs,
};
pub(crate) use security::{Door, Lock, Port};
pub(crate) use valid::{Endpoints, Settings};
use variables::{Unknown, Variables};

/// Every setting as somebody wrote it; absent ones take their defaults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Written {
    /// `[model]`
    pub model: ModelArgs,
    /// `[engine]`
    pub engine: EngineArgs,
    /// `[gateway]`
    pub gateway: GatewayArgs,
    /// `[worker]`
    pub worker: WorkerArgs,
    /// `[etcd]`
    pub etcd: EtcdArgs,
    /// `[security]`
    pub security: SecurityArgs,
    /// `[targets]`
    pub targets: TargetArgs,
    /// `[telemetry]`
    pub telemetry: TelemetryArgs,
}

// === impl Written ===

impl Written {
    /// Merges the file, the environment and `flags`, the later over the earlier.
    ///
    /// # Errors
    /// If the file can't be read, or holds something that is no setting; the message names it.
    pub(crate) fn merge(file: Option<&Path>, flags: &Self) -> Result<Self> {
        if let Some(unknown) = unknown_variables().into_iter().find(|it| it.is_setting) {
            bail!("{}", unknown.remark());
        }
        let file = file.map(Self::of_file).transpose()?.unwrap_or_default();
        let variables = Self::of_variables(Variables::among(environment()))?;
        let mut figment = Figment::new();
        for written in [&file, &variables, flags] {
            figment = figment.merge(Serialized::defaults(written));
        }
        Ok(figment.extract()?)
    }

    fn of_file(path: &Path) -> Result<Self> {
        complaint::check_toml(path).map_err(anyhow::Error::msg)?;
        let read = Figment::from(Toml::file_exact(path)).extract();
        read.map_err(|error| anyhow::Error::msg(complaint::of(&error, Some(path))))
    }

    /// Whether a variable is text, a number or a list, its setting says.
    fn of_variables(variables: Variables) -> Result<Self> {
        let read = Figment::from(variables).extract_lossy();
        read.map_err(|error| anyhow::Error::msg(complaint::of(&error, None)))
    }
}

/// The value of an environment variable that belongs to somebody else (`HF_HOME`, `HOME`).
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub(crate) fn foreign_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The key that clients' commands send where none is given: their own, or the one that a router of this
/// machine would want.
pub(crate) fn client_key() -> Option<String> {
    foreign_variable("BATON_API_KEY").or_else(|| foreign_variable("BATON_GATEWAY__API_KEY"))
}

/// Variables that look as if they were Baton's, and are not.
fn unknown_variables() -> Vec<Unknown> {
    Unknown::among(environment())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    })
}

/// Where Hugging Face's own tools keep downloaded models.
pub(crate) fn hub_cache() -> Option<PathBuf> {
    if let Some(cache) = foreign_variable("HF_HUB_CACHE") {
        return Some(cache.into());
    }
    let home = foreign_variable("HF_HOME").map(PathBuf::from).or_else(|| {
        Some(PathBuf::from(foreign_variable("HOME")?).join(".cache").join("huggingface"))
    })?;
    Some(home.join("hub"))
}

/// Where compiled kernels are kept.
pub(crate) fn kernel_cache() -> Option<PathBuf> {
    let caches = foreign_variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(foreign_variable("HOME")?).join(".cache")))?;
    Some(caches.join("baton").join("kernels"))
}

#[cfg(test)]
mod tests;
