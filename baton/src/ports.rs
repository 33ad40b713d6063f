//! Tells which ports a node has bound: on standard output, and in a file for whoever started it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::out;

/// The ports of one node.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Ports {
    /// The OpenAI gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// gRPC: a router's public service, a worker's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<SocketAddr>,
    /// Health and metrics, for operators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Health and metrics of the prefill worker inside `baton up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefill_admin: Option<SocketAddr>,
    /// Health and metrics of the decode worker inside `baton up`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decode_admin: Option<SocketAddr>,
}

#[derive(Serialize)]
struct Announcement<'a> {
    listening: &'a Ports,
}

// === impl Ports ===

impl Ports {
    /// Prints the ports as one line of JSON and writes the same to `file`, whole or not at all.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(crate) fn announce(&self, file: Option<&Path>) -> Result<()> {
        let line = serde_json::to_string(&Announcement { listening: self })?;
        // Nobody there to be told is no reason not to serve.
        let _ = out::line(&line);
        self.write(&line, file)
    }

    /// Writes the ports to `file` only.
    ///
    /// # Errors
    /// If the file can't be written.
    pub(crate) fn announce_quietly(&self, file: Option<&Path>) -> Result<()> {
        self.write(&serde_json::to_string(&Announcement { listening: self })?, file)
    }

    fn write(&self, line: &str, file: Option<&Path>) -> Result<()> {
        let Some(path) = file else { return Ok(()) };
        let partial = path.with_extension("partial");
        std::fs::write(&partial, line)
            .and_then(|()| std::fs::rename(&partial, path))
            .with_context(|| format!("can't write {}", path.display()))
    }
}
