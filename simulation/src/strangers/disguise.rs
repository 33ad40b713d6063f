//! As whom a stranger comes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use cluster::rpc::Channels;
use cluster::rpc::net::{Connection, Dial};
use cluster::security::authority::{Authority, Issued, Subject};
use cluster::security::{Identity, NodeRole};
use futures::future::BoxFuture;
use http::Uri;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;
use words::WorkerInfo;

use super::calls::Call;
use crate::network::Wire;
use crate::nodes::{NAMESPACE, Place};

const ROLES: [NodeRole; 3] = [NodeRole::Router, NodeRole::Prefill, NodeRole::Decode];
/// Longer than any run.
const LASTING: Duration = Duration::from_secs(86_400);

/// Somebody who has no business there, or none of this kind.
pub(super) struct Disguise {
    pub(super) name: String,
    /// The role in the cluster that he really has.
    role: Option<NodeRole>,
    channels: Channels,
}

/// Dials in TLS, whoever answers, with a certificate that proves nothing; or with none.
#[derive(Debug)]
struct Pretender {
    wire: Wire,
    config: Arc<ClientConfig>,
}

/// Believes everybody.
#[derive(Debug)]
struct Credulous(CryptoProvider);

// === impl Disguise ===

impl Disguise {
    /// Everybody who tries.
    pub(super) fn all(place: &Place) -> Vec<Self> {
        let plain = Channels::over(Arc::new(place.wire.clone()));
        let mut all =
            vec![Self { name: "a caller without TLS".into(), role: None, channels: plain }];
        all.push(Self::pretending(place, "a caller without a certificate", None));
        let router = foreign(&node(NAMESPACE, NodeRole::Router));
        all.push(Self::pretending(place, "another authority's router", Some(&router)));
        all.extend(ROLES.map(|role| Self::misplaced(place, role)));
        let client = Subject { node: None, hosts: vec!["client.example".to_owned()] };
        let elsewhere = node("elsewhere", NodeRole::Router);
        for (name, subject) in [("a client", client), ("another cluster's router", elsewhere)] {
            let issued = place.locks.certificate(&subject);
            all.extend(issued.map(|issued| Self::pretending(place, name, Some(&issued))));
        }
        all
    }

    /// Leads to a worker. Who is no member doesn't say so: a node refuses to dial in the open whoever asks
    /// for certificates, and would try nothing at all.
    pub(super) fn channel(&self, worker: &WorkerInfo) -> Channel {
        let mut address = worker.address.clone();
        if self.role.is_none() {
            address.uri = address.uri.replace("https:", "http:");
        }
        self.channels.get(&address, worker.role)
    }

    /// Whether it is his to make this call.
    pub(super) fn may(&self, call: Call) -> bool {
        call.callers().iter().any(|role| self.role == Some(*role))
    }

    fn pretending(place: &Place, name: &str, issued: Option<&Issued>) -> Self {
        let wire = place.wire.clone();
        let config = Arc::new(config(issued).expect("a certificate that can be shown"));
        let channels = Channels::over(Arc::new(Pretender { wire, config }));
        Self { name: name.to_owned(), role: None, channels }
    }

    /// A node of the cluster that does what another is for.
    fn misplaced(place: &Place, role: NodeRole) -> Self {
        let security = place.locks.node(NAMESPACE, role, "misplaced");
        let role = Some(role).filter(|_| security.is_locked());
        let channels = Channels::over(Arc::new(place.wire.clone())).secured(&security);
        let name = role.map_or("anybody".to_owned(), |role| format!("a {role} node"));
        Self { name, role, channels }
    }
}

fn node(cluster: &str, role: NodeRole) -> Subject {
    Subject { node: Some(Identity::new(cluster, role, "stranger")), hosts: Vec::new() }
}

/// What an authority certifies that nobody here has heard of.
fn foreign(subject: &Subject) -> Issued {
    let (authority, _) = Authority::create("elsewhere", LASTING).expect("an authority");
    authority.issue(subject, LASTING).expect("a certificate")
}

/// A server with such a certificate, who asks nobody for his.
pub(super) fn foreign_server() -> Arc<ServerConfig> {
    let issued = foreign(&node(NAMESPACE, NodeRole::Decode));
    let (chain, key) = read(&issued);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.expect("a certificate that can be shown");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn config(issued: Option<&Issued>) -> Result<ClientConfig, Error> {
    let credulous = Arc::new(Credulous(ring::default_provider()));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(credulous);
    let mut config = match issued.map(read) {
        None => config.with_no_client_auth(),
        Some((chain, key)) => config.with_client_auth_cert(chain, key)?,
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn read(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(issued.cert_pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().expect("a certificate");
    (chain, PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).expect("its key"))
}

// === impl Pretender ===

impl Dial for Pretender {
    fn dial(&self, uri: &Uri) -> BoxFuture<'static, io::Result<Box<dyn Connection>>> {
        let (dialing, connector) = (self.wire.dial(uri), TlsConnector::from(self.config.clone()));
        Box::pin(async move {
            let host = ServerName::try_from("worker.example").map_err(io::Error::other)?;
            Ok(Box::new(connector.connect(host, dialing.await?).await?) as Box<dyn Connection>)
        })
    }
}

// === impl Credulous ===

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
