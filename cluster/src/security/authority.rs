//! A certificate authority of one's own, for those who have none.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::Identity;
use crate::ClusterError;

/// Certificates begin so much earlier, for clocks that are behind.
const EARLIER: Duration = Duration::from_secs(3600);

/// Signs nodes' certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// The key; never printed.
    pub key_pem: String,
}

/// What to certify.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// The node that it names, if any.
    pub node: Option<Identity>,
    /// Hosts and addresses that clients who know no nodes call it by.
    pub hosts: Vec<String>,
}

// === impl Authority ===

impl Authority {
    /// A new one, called `name`, that ends after `lasting`.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if the name or the time can't be written into a certificate.
    pub fn create(name: &str, lasting: Duration) -> Result<(Self, Issued), ClusterError> {
        let mut params = params(name, lasting)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(failed)?;
        let cert_pem = params.self_signed(&key).map_err(failed)?.pem();
        let issued = Issued { cert_pem: cert_pem.clone(), key_pem: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key), cert_pem }, issued))
    }

    /// One that was created before.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if they are no certificate and key of an authority.
    pub fn open(issued: &Issued) -> Result<Self, ClusterError> {
        let key = KeyPair::from_pem(&issued.key_pem).map_err(failed)?;
        let issuer = Issuer::from_ca_cert_pem(&issued.cert_pem, key).map_err(failed)?;
        Ok(Self { issuer, cert_pem: issued.cert_pem.clone() })
    }

    /// Its certificate, PEM: what nodes trust.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// A certificate for `subject` that ends after `lasting`, with a new key.
    ///
    /// # Errors
    /// [`ClusterError::Config`] if a host is none.
    pub fn issue(&self, subject: &Subject, lasting: Duration) -> Result<Issued, ClusterError> {
        let node = subject.node.as_ref().map(ToString::to_string);
        let first_host = subject.hosts.first().cloned();
        let name = node.clone().or(first_host).unwrap_or_default();
        let mut params = params(&name, lasting)?;
        if let Some(node) = node {
            params.subject_alt_names.push(SanType::URI(node.try_into().map_err(failed)?));
        }
        for host in &subject.hosts {
            params.subject_alt_names.push(host_name(host)?);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(failed)?;
        let cert_pem = params.signed_by(&key, &self.issuer).map_err(failed)?.pem();
        Ok(Issued { cert_pem, key_pem: key.serialize_pem() })
    }
}

fn params(name: &str, lasting: Duration) -> Result<CertificateParams, ClusterError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    let end = now.checked_add(lasting).ok_or_else(|| failed("it would last too long"))?;
    params.not_before = (now - EARLIER).into();
    params.not_after = end.into();
    Ok(params)
}

fn host_name(host: &str) -> Result<SanType, ClusterError> {
    match host.parse::<IpAddr>() {
        Ok(addr) => Ok(SanType::IpAddress(addr)),
        Err(_) => Ok(SanType::DnsName(host.to_owned().try_into().map_err(failed)?)),
    }
}

fn failed(problem: impl std::fmt::Display) -> ClusterError {
    ClusterError::Config(format!("certificate: {problem}"))
}

// === impl Debug ===

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}
