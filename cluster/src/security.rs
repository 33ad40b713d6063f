//! Who may talk to whom: certificates, the names in them, and what each role may call.
//!
//! A node with certificates, from files or made from a cluster secret, meets other nodes in mutual
//! TLS only. It knows them by the name that the authority has written into their certificate
//! ([`Identity`]): the one it dials must be the worker that membership named, and who calls it may
//! do what its role needs ([`access`]). A node without keeps to its own machine.

use std::io;
use std::sync::Arc;

use rustls_pki_types::{DnsName, ServerName};
use tokio_rustls::TlsConnector;
use words::{Role, WorkerId};

use self::authority::Issued;
use crate::ClusterError;
use crate::rpc::net::Connection;

pub mod access;
pub mod authority;
mod certificates;
mod guard;
mod identity;
mod keeper;
mod secret;
mod stream;
mod tls;

pub use certificates::{CertificateFiles, Certificates, Refreshed, Validity};
pub use guard::{Guard, GuardedCalls};
pub use identity::{Identity, IdentityError, NodeRole};
pub use keeper::{Keeper, register_lock};
pub use secret::{SECRET_BYTES_MIN, random_secret};
pub use stream::{Doorkeeper, Secured, Shown};

/// Sent in no handshake: nodes are known by other names than their hosts'.
const NO_HOST: &str = "node.baton.internal";

/// How a node meets other nodes. A clone is the same node.
#[derive(Clone, Debug, Default)]
pub struct Security {
    locked: Option<Arc<Locked>>,
}

#[derive(Debug)]
struct Locked {
    certificates: Arc<Certificates>,
    cluster: String,
}

// === impl Security ===

impl Security {
    /// Meets whoever comes, unencrypted: for one machine.
    #[must_use]
    pub fn open() -> Self {
        Self::default()
    }

    /// With a certificate from files that names `node`, and the authority that all nodes share.
    ///
    /// # Errors
    /// [`ClusterError::Config`] naming the file and what is wrong with it.
    pub fn with_certificates(
        files: CertificateFiles,
        node: Identity,
    ) -> Result<Self, ClusterError> {
        let cluster = node.cluster.clone();
        Ok(Self::locked(Certificates::read(files, Some(node))?, cluster))
    }

    /// With a certificate that was issued to `node` and is kept in memory: it holds for as long as the
    /// process lives.
    ///
    /// - `ca_pem`: the authority that all nodes share.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if it is of somebody else, or can't be read.
    pub fn with_issued(
        ca_pem: &str,
        issued: &Issued,
        node: &Identity,
    ) -> Result<Self, ClusterError> {
        let certificates = Certificates::issued(ca_pem, issued, node)?;
        Ok(Self::locked(certificates, node.cluster.clone()))
    }

    /// With a certificate for `node` that comes of a secret which all nodes share.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if the secret is too short.
    pub fn with_secret(secret: &[u8], node: Identity) -> Result<Self, ClusterError> {
        let cluster = node.cluster.clone();
        Ok(Self::locked(secret::certificates(secret, node)?, cluster))
    }

    fn locked(certificates: Certificates, cluster: String) -> Self {
        let certificates = Arc::new(certificates);
        Self { locked: Some(Arc::new(Locked { certificates, cluster })) }
    }

    /// Whether only members of the cluster are met.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.locked.is_some()
    }

    /// The node's certificate.
    #[must_use]
    pub fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.locked.as_ref().map(|locked| &locked.certificates)
    }

    /// How the node's port for other nodes meets callers.
    #[must_use]
    pub fn doorkeeper(&self) -> Doorkeeper {
        match self.certificates() {
            Some(certificates) => Doorkeeper::Asks(certificates.clone()),
            None => Doorkeeper::Open,
        }
    }

    /// Guards the calls on that port.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::new(self.locked.as_ref().map(|locked| locked.cluster.as_str()))
    }

    /// Shakes hands with whoever is at the other end of `stream`, which must be the worker.
    ///
    /// # Errors
    /// If it is somebody else, or refuses this node.
    pub async fn meet(
        &self,
        stream: Box<dyn Connection>,
        worker: &WorkerId,
        role: Role,
    ) -> io::Result<Box<dyn Connection>> {
        let Some(locked) = &self.locked else { return Ok(stream) };
        let wanted = Identity::new(&locked.cluster, role.into(), &worker.0);
        let client = locked.certificates.current().configs.client(wanted);
        let connector = TlsConnector::from(Arc::new(client.map_err(io::Error::other)?));
        let host = DnsName::try_from(NO_HOST).map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(ServerName::DnsName(host), stream).await?))
    }
}

#[cfg(test)]
mod tests;
