//! Keys to a cluster: what its nodes prove with who they are.

use std::sync::Arc;
use std::time::Duration;

use cluster::security::authority::{Authority, Issued, Subject};
use cluster::security::{Identity, NodeRole, Security};

use crate::plan::Lock;

const SECRET: &[u8] = b"the secret of the simulation";
/// Longer than any run.
const LASTING: Duration = Duration::from_secs(86_400);

/// Makes certificates for nodes, as far as they need any. A clone is another handle to the same.
#[derive(Clone)]
pub struct Locksmith(Arc<Kind>);

enum Kind {
    Open,
    Secret,
    Certificates(Box<Authority>),
}

// === impl Locksmith ===

impl Locksmith {
    /// For one cluster.
    ///
    /// # Panics
    /// If there can't be an authority.
    #[must_use]
    pub fn new(lock: Lock) -> Self {
        Self(Arc::new(match lock {
            Lock::Open => Kind::Open,
            Lock::Secret => Kind::Secret,
            Lock::Certificates => {
                let (authority, _) =
                    Authority::create("simulation", LASTING).expect("an authority");
                Kind::Certificates(Box::new(authority))
            }
        }))
    }

    /// How a node meets others.
    ///
    /// # Panics
    /// If its certificate can't be made.
    #[must_use]
    pub fn node(&self, cluster: &str, role: NodeRole, id: &str) -> Security {
        let identity = Identity::new(cluster, role, id);
        let security = match &*self.0 {
            Kind::Open => return Security::open(),
            Kind::Secret => Security::with_secret(SECRET, identity),
            Kind::Certificates(authority) => {
                let issued = issue(authority, Some(identity.clone()), Vec::new());
                Security::with_issued(authority.cert_pem(), &issued, &identity)
            }
        };
        security.expect("a certificate that can be used")
    }

    /// A certificate of the cluster's authority; `None` where there is no such authority.
    #[must_use]
    pub fn certificate(&self, subject: &Subject) -> Option<Issued> {
        let Kind::Certificates(authority) = &*self.0 else { return None };
        Some(issue(authority, subject.node.clone(), subject.hosts.clone()))
    }
}

fn issue(authority: &Authority, node: Option<Identity>, hosts: Vec<String>) -> Issued {
    authority.issue(&Subject { node, hosts }, LASTING).expect("a certificate")
}
