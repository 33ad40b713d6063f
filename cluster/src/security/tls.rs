//! What handshakes need, and how a peer's certificate is judged.
//!
//! Nodes prove who they are to each other in TLS 1.3, both ways, and are known by the name in their
//! certificate, not by their host's: workers come and go at addresses that no authority knows.

use std::fmt::{self, Debug};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Identity, IdentityError};

const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What one certificate's handshakes need.
pub(super) struct Configs {
    /// For ports where callers must show a certificate of the same authority; gRPC only.
    pub(super) mutual: Option<Arc<ServerConfig>>,
    /// For ports where they needn't; HTTP and gRPC.
    pub(super) public: Arc<ServerConfig>,
    key: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
}

/// Judges whoever is dialled: signed by our authority, and the node that we want.
struct IsNode {
    wanted: Identity,
    signed: Arc<WebPkiServerVerifier>,
    roots: Arc<RootCertStore>,
}

/// The cryptography used: the one that is in the tree already.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

// === impl Configs ===

impl Configs {
    pub(super) fn new(key: CertifiedKey, roots: Option<RootCertStore>) -> Result<Self, Error> {
        let key = Arc::new(key);
        let has_roots = roots.is_some();
        let roots = Arc::new(roots.unwrap_or_else(RootCertStore::empty));
        let mutual = has_roots.then(|| mutual(&key, &roots)).transpose()?;
        Ok(Self { mutual, public: public(&key)?, key, roots })
    }

    /// For dialling the node `wanted`.
    pub(super) fn client(&self, wanted: Identity) -> Result<ClientConfig, Error> {
        let signed =
            WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider()).build();
        let signed = signed.map_err(|error| Error::General(error.to_string()))?;
        let verifier = IsNode { wanted, signed, roots: self.roots.clone() };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key.clone())));
        config.alpn_protocols = vec![H2.to_vec()];
        // The host's name says nothing.
        config.enable_sni = false;
        Ok(config)
    }
}

fn mutual(key: &Arc<CertifiedKey>, roots: &Arc<RootCertStore>) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider()).build();
    let verifier = verifier.map_err(|error| Error::General(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(Arc::new(config))
}

fn public(key: &Arc<CertifiedKey>) -> Result<Arc<ServerConfig>, Error> {
    let nobody: Arc<dyn ClientCertVerifier> = Arc::new(NoClientAuth);
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(nobody)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key.clone())));
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    Ok(Arc::new(config))
}

// === impl IsNode ===

impl Debug for IsNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IsNode").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl ServerCertVerifier for IsNode {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = provider().signature_verification_algorithms.all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        let named = Identity::of_certificate(certificate)
            .map_err(|error| Error::General(error.to_string()))?;
        if !named.covers(&self.wanted) {
            return Err(Error::General(IdentityError::other(&named, &self.wanted).to_string()));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signed.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signed.supported_verify_schemes()
    }
}
