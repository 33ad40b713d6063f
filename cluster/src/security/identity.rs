//! Who a node is: what the authority has written into its certificate.

use std::fmt;
use std::str::FromStr;

use rustls_pki_types::CertificateDer;
use words::{Role, WorkerId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How a node's name begins, as a URI among its certificate's alternative names.
const SCHEME: &str = "baton://";
/// The id that stands for every node of its role: one certificate for a whole deployment.
const ANY: &str = "*";

/// What a node does, as far as others let it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeRole {
    /// Places requests on workers.
    Router,
    /// Computes prompts and pushes their KV blocks.
    Prefill,
    /// Receives KV blocks and generates.
    Decode,
}

/// A node's name: `baton://CLUSTER/ROLE/ID`, or `baton://CLUSTER/ROLE/*` for any node of the role.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Which cluster: by default the namespace in etcd.
    pub cluster: String,
    /// What it does.
    pub role: NodeRole,
    /// Which node; `None`: any.
    pub id: Option<String>,
}

/// Why something is not a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(String);

// === impl IdentityError ===

impl IdentityError {
    /// `named` was shown where `wanted` should be.
    pub(super) fn other(named: &Identity, wanted: &Identity) -> Self {
        Self(format!("the certificate is for {named}, not for {wanted}"))
    }
}

// === impl NodeRole ===

impl NodeRole {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        }
    }
}

impl From<Role> for NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Prefill => Self::Prefill,
            Role::Decode => Self::Decode,
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NodeRole {
    type Err = IdentityError;

    fn from_str(name: &str) -> Result<Self, IdentityError> {
        [Self::Router, Self::Prefill, Self::Decode]
            .into_iter()
            .find(|role| role.name() == name)
            .ok_or_else(|| {
                IdentityError(format!("{name:?} is no role: want router, prefill or decode"))
            })
    }
}

// === impl Identity ===

impl Identity {
    /// The node `id` of a cluster.
    #[must_use]
    pub fn new(cluster: &str, role: NodeRole, id: &str) -> Self {
        let id = (id != ANY).then(|| id.to_owned());
        Self { cluster: cluster.to_owned(), role, id }
    }

    /// Whether it may stand for `other`; if that names no node, for one of its role.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let same = self.cluster == other.cluster && self.role == other.role;
        same && other.id.as_deref().is_none_or(|id| self.is_node(id))
    }

    /// Whether it may stand for the worker of this id.
    #[must_use]
    pub fn is_worker(&self, worker: &WorkerId) -> bool {
        self.role != NodeRole::Router && self.is_node(&worker.0)
    }

    /// The name in a certificate.
    ///
    /// # Errors
    /// [`IdentityError`] if it has none, more than one, or what can't be read.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        let unreadable = |error: &dyn fmt::Display| IdentityError(format!("unreadable: {error}"));
        let (_, certificate) =
            X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
        let names = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
        let mut ours =
            names.iter().flat_map(|names| &names.value.general_names).filter_map(node_name);
        match (ours.next(), ours.next()) {
            (Some(name), None) => name.parse(),
            (None, _) => Err(IdentityError(format!(
                "it names no node: want one URI {SCHEME}CLUSTER/ROLE/ID"
            ))),
            (Some(_), Some(_)) => Err(IdentityError("it names several nodes".to_owned())),
        }
    }

    fn is_node(&self, id: &str) -> bool {
        self.id.as_deref().is_none_or(|ours| ours == id)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, role, id } = self;
        write!(f, "{SCHEME}{cluster}/{role}/{}", id.as_deref().unwrap_or(ANY))
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError(format!("{uri:?} is not {SCHEME}CLUSTER/ROLE/ID"));
        let mut parts = uri.strip_prefix(SCHEME).ok_or_else(wrong)?.split('/');
        let (Some(cluster), Some(role), Some(id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        if !is_plain(cluster) || (id != ANY && !is_plain(id)) {
            return Err(wrong());
        }
        Ok(Self::new(cluster, role.parse()?, id))
    }
}

fn node_name<'a>(name: &GeneralName<'a>) -> Option<&'a str> {
    match name {
        GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(uri),
        _ => None,
    }
}

/// What worker ids and namespaces are made of.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("baton://prod/decode/d-0", "baton://prod/decode/d-0", true)]
    #[case("baton://prod/decode/*", "baton://prod/decode/d-0", true)]
    #[case("baton://prod/router/r-0", "baton://prod/router/*", true)]
    #[case("baton://prod/decode/d-0", "baton://prod/decode/d-1", false)]
    #[case("baton://prod/decode/d-0", "baton://prod/prefill/d-0", false)]
    #[case("baton://prod/decode/*", "baton://test/decode/d-0", false)]
    fn a_name_stands_for_its_node(#[case] name: &str, #[case] other: &str, #[case] covers: bool) {
        let (name, other): (Identity, Identity) = (name.parse().unwrap(), other.parse().unwrap());
        assert_eq!(name.covers(&other), covers);
        assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[rstest]
    #[case("https://prod/decode/d-0")]
    #[case("baton://prod/decode")]
    #[case("baton://prod/decode/d-0/more")]
    #[case("baton:///decode/d-0")]
    #[case("baton://prod/decode/")]
    #[case("baton://prod/client/me")]
    #[case("baton://*/decode/d-0")]
    fn what_is_no_name_is_refused(#[case] uri: &str) {
        assert!(uri.parse::<Identity>().is_err());
    }
}
