//! Settings of where the cluster meets.

use std::time::Duration;

use anyhow::{Result, ensure};
use cluster::EtcdConfig;
use cluster::membership::etcd::Credentials;

use super::Settings;

const DEFAULT: &str = "http://127.0.0.1:2379";
/// Of its clients.
const ETCD_PORT: u16 = 2379;

// === impl Settings ===

impl Settings {
    /// etcd's endpoints, with the scheme that is meant where none is written.
    fn etcd_endpoints(&self) -> Vec<String> {
        let written = self.written.etcd.endpoints.clone();
        let endpoints = written.unwrap_or_else(|| vec![DEFAULT.to_owned()]);
        let whole = |endpoint: String| match endpoint.as_str() {
            whole if whole.contains("://") || whole.is_empty() => endpoint,
            host if host.contains(':') => format!("http://{host}"),
            host => format!("http://{host}:{ETCD_PORT}"),
        };
        endpoints.into_iter().map(whole).collect()
    }

    /// The cluster's etcd.
    ///
    /// # Errors
    /// If its certificates can't be read.
    pub(crate) fn etcd(&self) -> Result<EtcdConfig> {
        let etcd = &self.written.etcd;
        let endpoints = self.etcd_endpoints();
        let mut config = EtcdConfig::new(endpoints);
        if let Some(namespace) = &etcd.namespace {
            config.namespace.clone_from(namespace);
        }
        if let Some(seconds) = etcd.lease_ttl_s {
            config.lease_ttl = Duration::from_secs(seconds);
        }
        ensure!(
            etcd.user.is_some() == etcd.password.is_some(),
            "etcd.user and etcd.password go together: give both, or none"
        );
        let user = etcd.user.clone().zip(etcd.password.clone());
        config.credentials = user.map(|(user, password)| Credentials { user, password });
        config.tls = self.etcd_tls()?;
        config.validate()?;
        Ok(config)
    }
}
