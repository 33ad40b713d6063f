//! Settings of who may talk to whom.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use cluster::membership::etcd::{EtcdTls, IdentityFiles};
use cluster::security::{CertificateFiles, Certificates, Identity, NodeRole, Security};

use super::Settings;

/// A port, as far as it matters who can reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Port {
    /// The flag that says where.
    pub flag: &'static str,
    /// Where.
    pub addr: SocketAddr,
    /// What keeps strangers from using it.
    pub lock: Lock,
}

/// What keeps strangers from using a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Certificates or the cluster secret.
    Cluster,
    /// Those, or API keys.
    Keys,
}

/// How clients are met.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    /// The hosts in the certificate that they see; `None`: they are met unencrypted.
    pub(crate) hosts: Option<Vec<String>>,
    /// Whom they have to trust for that; `None`: whom their system trusts.
    pub(crate) ca: Option<PathBuf>,
    /// Where the keys are of which they need one; `None`: they need none.
    pub(crate) keys: Option<String>,
}

// === impl Settings ===

impl Settings {
    /// How the node `id` meets other nodes.
    ///
    /// # Errors
    /// If files are missing, don't belong together, or are another node's.
    pub(crate) fn security(&self, role: NodeRole, id: &str) -> Result<Security> {
        let security = &self.written.security;
        let node = Identity::new(self.cluster(), role, id);
        match (self.node_files()?, self.cluster_secret()?) {
            (Some(_), Some(_)) => {
                bail!("there are certificates and a cluster secret: give one or the other")
            }
            (Some(files), None) => Ok(Security::with_certificates(files, node)?),
            (None, Some(secret)) => {
                let from = security.cluster_secret_file.as_deref().map(Path::display);
                let named = || from.map_or("security.cluster_secret".into(), |it| it.to_string());
                Security::with_secret(secret.as_bytes(), node).with_context(named)
            }
            (None, None) => Ok(Security::open()),
        }
    }

    /// The certificate that clients of the gateway see; `None`: they are met unencrypted.
    ///
    /// # Errors
    /// If its files can't be used.
    pub(crate) fn gateway_certificates(&self) -> Result<Option<Arc<Certificates>>> {
        let security = &self.written.security;
        let own = pair("gateway", &security.gateway_cert, &security.gateway_key)?;
        let (cert, key) = match (own, pair("tls", &security.tls_cert, &security.tls_key)?) {
            _ if security.gateway_tls == Some(false) => return Ok(None),
            (Some(files), _) | (None, Some(files)) => files,
            (None, None) if security.gateway_tls == Some(true) => {
                bail!("--gateway-tls needs a certificate: --gateway-cert and --gateway-key")
            }
            (None, None) => return Ok(None),
        };
        let files = CertificateFiles { ca: None, cert, key };
        Ok(Some(Arc::new(Certificates::read(files, None)?)))
    }

    /// The certificate of health and metrics; `None`: they are served unencrypted.
    ///
    /// # Errors
    /// If it is wanted and there is none.
    pub(crate) fn admin_certificates(
        &self,
        security: &Security,
    ) -> Result<Option<Arc<Certificates>>> {
        if !self.has_admin_tls() {
            return Ok(None);
        }
        let certificates = security.certificates().context("--admin-tls needs certificates")?;
        Ok(Some(certificates.clone()))
    }

    /// Whether clients of the gateway must show a key.
    pub(crate) fn has_api_keys(&self) -> bool {
        let gateway = &self.written.gateway;
        gateway.api_key.is_some() || gateway.api_keys_file.is_some()
    }

    /// How clients of the gateway are met, as far as those who come need to know.
    ///
    /// # Errors
    /// If its certificate can't be used.
    pub(crate) fn door(&self) -> Result<Door> {
        let (gateway, security) = (&self.written.gateway, &self.written.security);
        let certificates = self.gateway_certificates()?;
        let ca = match &security.gateway_cert {
            _ if certificates.is_none() => None,
            Some(cert) => authority_beside(cert),
            None => security.tls_ca.clone(),
        };
        let file = gateway
            .api_keys_file
            .as_deref()
            .map(|file| format!("one of those that {} has the hashes of", file.display()));
        let keys = gateway.api_key.as_ref().map(|_| "the one of --api-key".to_owned()).or(file);
        Ok(Door {
            hosts: certificates.map(|certificates| certificates.hosts()),
            ca: ca.map(|ca| std::path::absolute(&ca).unwrap_or(ca)),
            keys,
        })
    }

    /// Whether health and metrics are served in TLS.
    pub(crate) fn has_admin_tls(&self) -> bool {
        self.written.security.admin_tls.unwrap_or(false)
    }

    /// Whether there are files that are read again while the node runs.
    pub(crate) fn has_files_to_reread(&self) -> bool {
        let security = &self.written.security;
        let certificates = [&security.tls_cert, &security.gateway_cert];
        self.written.gateway.api_keys_file.is_some() || certificates.iter().any(|it| it.is_some())
    }

    /// Whether somebody said that strangers may come.
    pub(crate) fn is_insecure(&self) -> bool {
        self.written.security.insecure.unwrap_or(false)
    }

    /// Refuses ports that strangers can reach and nothing locks.
    ///
    /// # Errors
    /// Naming the port, and what to do.
    pub(crate) fn check_ports(&self, ports: &[Port], locked: bool) -> Result<()> {
        let has_keys = self.has_api_keys();
        for Port { flag, addr, lock } in ports {
            let opened = locked || (*lock == Lock::Keys && has_keys) || self.is_insecure();
            let keys = if *lock == Lock::Keys { "API keys (--api-keys-file), " } else { "" };
            ensure!(
                addr.ip().to_canonical().is_loopback() || opened,
                "{flag} {addr} can be reached from other machines, and nothing keeps strangers out: \
                 give {keys}certificates (`baton certs` makes them) or --cluster-secret-file, listen \
                 on 127.0.0.1, or say --insecure"
            );
        }
        Ok(())
    }

    /// How etcd and this node prove who they are.
    pub(crate) fn etcd_tls(&self) -> Result<Option<EtcdTls>> {
        let (etcd, security) = (&self.written.etcd, &self.written.security);
        let is_encrypted =
            etcd.endpoints.iter().flatten().any(|endpoint| endpoint.starts_with("https://"));
        if !is_encrypted {
            ensure!(
                etcd.ca.is_none() && etcd.cert.is_none(),
                "etcd.ca and etcd.cert are for endpoints that begin with https://"
            );
            return Ok(None);
        }
        let own = pair("etcd", &etcd.cert, &etcd.key)?;
        let files = own.or(pair("tls", &security.tls_cert, &security.tls_key)?);
        let tls = EtcdTls {
            ca: etcd.ca.clone().or_else(|| security.tls_ca.clone()),
            identity: files.map(|(cert, key)| IdentityFiles { cert, key }),
            domain: etcd.domain.clone(),
        };
        tls.check()?;
        Ok(Some(tls))
    }

    /// The name that separates this cluster's certificates from others'.
    fn cluster(&self) -> &str {
        let (security, etcd) = (&self.written.security, &self.written.etcd);
        security.cluster.as_deref().or(etcd.namespace.as_deref()).unwrap_or("default")
    }

    fn node_files(&self) -> Result<Option<CertificateFiles>> {
        let security = &self.written.security;
        let Some((cert, key)) = pair("tls", &security.tls_cert, &security.tls_key)? else {
            ensure!(security.tls_ca.is_none(), "--tls-ca needs --tls-cert and --tls-key");
            return Ok(None);
        };
        let ca = security.tls_ca.clone().context("--tls-cert needs --tls-ca: whom to trust")?;
        Ok(Some(CertificateFiles { ca: Some(ca), cert, key }))
    }

    fn cluster_secret(&self) -> Result<Option<String>> {
        let security = &self.written.security;
        match (&security.cluster_secret_file, &security.cluster_secret) {
            (Some(path), _) => {
                let read = std::fs::read_to_string(path);
                Ok(Some(read.with_context(|| path.display().to_string())?))
            }
            (None, secret) => Ok(secret.clone()),
        }
    }
}

/// The certificate of the authority beside a certificate, where `baton certs` puts it.
fn authority_beside(cert: &Path) -> Option<PathBuf> {
    Some(cert.with_file_name("ca.pem")).filter(|path| path.is_file())
}

/// A certificate and its key, of which neither is of use alone.
fn pair(
    name: &str,
    cert: &Option<PathBuf>,
    key: &Option<PathBuf>,
) -> Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert.clone(), key.clone()))),
        (None, None) => Ok(None),
        (Some(_), None) => bail!("--{name}-cert needs --{name}-key"),
        (None, Some(_)) => bail!("--{name}-key needs --{name}-cert"),
    }
}
