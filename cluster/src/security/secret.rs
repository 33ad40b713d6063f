//! A cluster secret: nodes that know it make themselves certificates of one authority.
//!
//! A token sent with each call would be handed to whoever is dialled, a fake worker included. So
//! the secret is never sent: an authority's key is derived from it, by all nodes the same, and each
//! node signs itself a certificate that lives as long as its process. From there on all is as with
//! certificates from files. Whoever knows the secret can be any node.

use std::num::NonZeroU32;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PKCS_ED25519, SanType,
};
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{Certificates, Identity, tls};
use crate::ClusterError;

/// Shorter ones can be guessed by whoever sees a handshake.
pub const SECRET_BYTES_MIN: usize = 16;

/// Makes guessing slow (a tenth of a second each), at the price of as much at the start of a node.
const ROUNDS: NonZeroU32 = NonZeroU32::new(200_000).unwrap();
/// Separates these keys from all others that may be derived from the same secret.
const SALT: &str = "baton cluster secret v1";
/// An Ed25519 key of PKCS #8 up to its 32 bytes.
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// A certificate for `identity` from the authority that `secret` stands for.
///
/// # Errors
/// [`ClusterError::Config`] if the secret is too short.
pub(super) fn certificates(
    secret: &[u8],
    identity: Identity,
) -> Result<Certificates, ClusterError> {
    let secret = secret.trim_ascii();
    if secret.len() < SECRET_BYTES_MIN {
        let problem = format!(
            "the cluster secret has {} bytes: want at least {SECRET_BYTES_MIN}, at random (`baton certs secret` makes one)",
            secret.len()
        );
        return Err(ClusterError::Config(problem));
    }
    let seed = derive(secret, &identity.cluster);
    let (key, roots) = sign(&seed, &identity).map_err(|error| {
        ClusterError::Config(format!("a certificate from the cluster secret: {error}"))
    })?;
    Certificates::made(identity, key, roots)
}

/// A new secret: 32 random bytes, as text.
///
/// # Errors
/// [`ClusterError::Config`] if the system has no randomness to give.
pub fn random_secret() -> Result<String, ClusterError> {
    let mut bytes = [0_u8; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| ClusterError::Config("the system gives no random bytes".to_owned()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn derive(secret: &[u8], cluster: &str) -> [u8; 32] {
    let mut seed = [0; 32];
    let salt = format!("{SALT} {cluster}");
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt.as_bytes(), secret, &mut seed);
    seed
}

type Signed = (CertifiedKey, RootCertStore);

fn sign(seed: &[u8; 32], identity: &Identity) -> Result<Signed, Box<dyn std::error::Error>> {
    let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8_ED25519[..], seed].concat());
    let authority_key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519)?;
    let mut authority = params(&format!("Baton {}", identity.cluster));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let mut roots = RootCertStore::empty();
    roots.add(authority.self_signed(&authority_key)?.der().clone())?;

    let key = KeyPair::generate()?;
    let mut node = params(&identity.to_string());
    node.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
    node.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = node.signed_by(&key, &Issuer::from_params(&authority, &authority_key))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let chain = vec![certificate.der().clone()];
    Ok((CertifiedKey::from_der(chain, key, &tls::provider())?, roots))
}

/// Valid at any time: it lives no longer than its process, and clocks may be wrong.
fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
