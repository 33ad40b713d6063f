//! Where etcd is and how to talk to it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use http::Uri;

use crate::ClusterError;
use crate::rpc::net::Dial;

/// etcd refuses pings more often than every 5 s with `too_many_pings`.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where etcd is and how to talk to it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port` of one or more members.
    pub endpoints: Vec<String>,
    /// Separates clusters that share an etcd.
    pub namespace: String,
    /// How long an entry outlives its owner; etcd rounds up to seconds and has a minimum of its own
    /// (2 s as shipped). Renewed every third of it.
    pub lease_ttl: Duration,
    /// How long a worker that vanishes in the wake of an outage is kept.
    pub grace: Duration,
    /// The longest that one request to etcd may take.
    pub request_timeout: Duration,
    /// How long `register` waits for etcd before it returns a pending registration.
    pub register_patience: Duration,
    /// Longest wait between two tries to reach etcd.
    pub retry_limit: Duration,
    /// User and password, if etcd asks for them.
    pub credentials: Option<Credentials>,
    /// TLS, for `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// How to connect, where it isn't over TCP.
    pub dial: Option<Arc<dyn Dial>>,
}

/// An etcd user.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    /// Password; never printed.
    pub password: String,
}

/// How etcd and this node prove who they are. Files are read at each connection, so that renewed
/// ones are taken.
#[derive(Clone, Debug, Default)]
pub struct EtcdTls {
    /// The authority that signed etcd's certificate; the system's authorities if absent.
    pub ca: Option<PathBuf>,
    /// This node's own certificate, if etcd asks for one.
    pub identity: Option<IdentityFiles>,
    /// The name in etcd's certificate, if it isn't the endpoint's host.
    pub domain: Option<String>,
}

/// Where a certificate and its key are, PEM.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

// === impl EtcdConfig ===

impl EtcdConfig {
    /// The defaults, for these endpoints.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            namespace: "default".to_owned(),
            lease_ttl: Duration::from_secs(10),
            grace: Duration::from_secs(30),
            request_timeout: Duration::from_secs(3),
            register_patience: Duration::from_secs(5),
            retry_limit: Duration::from_secs(2),
            credentials: None,
            tls: None,
            dial: None,
        }
    }

    /// Refuses settings that can't work.
    ///
    /// # Errors
    /// [`ClusterError::Config`] naming the setting.
    pub fn validate(&self) -> Result<(), ClusterError> {
        let refuse = |problem: String| Err(ClusterError::Config(problem));
        if self.endpoints.is_empty() {
            return refuse("etcd: no endpoints: want http://HOST:PORT of one or more".to_owned());
        }
        for endpoint in &self.endpoints {
            let scheme =
                endpoint.parse::<Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
            match scheme.as_deref() {
                Some("https") => {}
                Some("http") if self.tls.is_none() => {}
                Some("http") => {
                    return refuse(format!(
                        "etcd: {endpoint} with certificates, or beside endpoints with https://: want one scheme for all"
                    ));
                }
                _ => {
                    return refuse(format!(
                        "etcd: {endpoint:?} is no address of etcd: want http://HOST:PORT or https://HOST:PORT"
                    ));
                }
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.namespace.is_empty() || !self.namespace.chars().all(plain) {
            return refuse(format!(
                "etcd: the namespace is {:?}: want letters, digits, `-`, `_` and `.`",
                self.namespace
            ));
        }
        if self.lease_ttl < Duration::from_secs(1) {
            return refuse("etcd: a lease lives for 1 s at least".to_owned());
        }
        Ok(())
    }

    /// The prefix of all workers' keys.
    pub(super) fn workers_prefix(&self) -> String {
        format!("/baton/{}/workers/", self.namespace)
    }

    /// The prefix of all keys that say where prefixes are.
    pub(super) fn prefixes_prefix(&self) -> String {
        format!("/baton/{}/prefixes/", self.namespace)
    }

    /// The lease's time to live in etcd's unit, rounded up.
    pub(super) fn lease_ttl_s(&self) -> i64 {
        i64::try_from(self.lease_ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
    }

    /// How to connect.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if a file can't be read.
    pub(crate) fn options(&self) -> Result<ConnectOptions, ClusterError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            // A member that lost its quorum says so instead of serving a view from before.
            .with_require_leader(true);
        if let Some(Credentials { user, password }) = &self.credentials {
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.options()?);
        } else if self.endpoints.iter().any(|endpoint| endpoint.starts_with("https")) {
            options = options.with_tls(EtcdTls::default().options()?);
        }
        Ok(options)
    }
}

// === impl EtcdTls ===

impl EtcdTls {
    /// Refuses files that can't be read.
    ///
    /// # Errors
    /// [`ClusterError::Config`] naming the file.
    pub fn check(&self) -> Result<(), ClusterError> {
        self.options().map(drop)
    }

    fn options(&self) -> Result<TlsOptions, ClusterError> {
        let mut options = match &self.ca {
            Some(ca) => TlsOptions::new().ca_certificate(Certificate::from_pem(read(ca)?)),
            None => TlsOptions::new().with_native_roots(),
        };
        if let Some(IdentityFiles { cert, key }) = &self.identity {
            options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        Ok(match &self.domain {
            Some(domain) => options.domain_name(domain),
            None => options,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ClusterError> {
    std::fs::read(path)
        .map_err(|error| ClusterError::Config(format!("etcd: {}: {error}", path.display())))
}

// === impl Debug ===

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(|c: &mut EtcdConfig| c.endpoints.clear(), "no endpoints")]
    #[case::no_scheme(|c: &mut EtcdConfig| c.endpoints = vec!["etcd:2379".into()], "want http://")]
    #[case::tls_in_clear(|c: &mut EtcdConfig| c.tls = Some(EtcdTls::default()), "one scheme for all")]
    #[case::slash(|c: &mut EtcdConfig| c.namespace = "a/b".into(), "namespace")]
    #[case::short(|c: &mut EtcdConfig| c.lease_ttl = Duration::from_millis(10), "lease")]
    fn settings_that_cannot_work_are_refused(
        #[case] spoil: fn(&mut EtcdConfig),
        #[case] names: &str,
    ) {
        let mut config = EtcdConfig::new(["http://127.0.0.1:2379"]);
        assert!(config.validate().is_ok());
        spoil(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(names), "{error}");
    }

    #[test]
    fn secrets_are_not_printed() {
        let mut config = EtcdConfig::new(["https://etcd:2379"]);
        config.credentials = Some(Credentials { user: "u".into(), password: "hidden".into() });
        assert!(!format!("{config:?}").contains("hidden"));
    }
}
