//! How a client's command reaches a server.

use std::path::PathBuf;

use bench::ServerOptions;
use clap::Args;

use crate::settings;

/// Where the server is, and what it wants to see.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReachArgs {
    /// The server's address, with or without /v1.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Sent as `Authorization: Bearer KEY`, where the server wants a key; better given as BATON_API_KEY.
    #[arg(long, value_name = "KEY")]
    api_key: Option<String>,
    /// Whom to trust over https, a file with certificates. Default: whom the system trusts.
    #[arg(long, value_name = "FILE", visible_alias = "cacert")]
    ca: Option<PathBuf>,
}

// === impl ReachArgs ===

impl ReachArgs {
    /// The same, with the environment's word where there is no flag.
    pub(crate) fn options(&self) -> ServerOptions {
        ServerOptions {
            url: self.url.clone(),
            api_key: self.api_key.clone().or_else(settings::client_key),
            ca: self.ca.clone(),
        }
    }
}
