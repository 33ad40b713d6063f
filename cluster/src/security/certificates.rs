//! A node's certificate, its key, and the authority that it trusts: read from files, read again
//! when they change.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};
use rustls::RootCertStore;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::authority::Issued;
use super::tls::{self, Configs};
use super::{Identity, IdentityError};
use crate::ClusterError;

/// Where a certificate is kept. All PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The authorities trusted, one or more; `None`: callers are not asked who they are.
    pub ca: Option<PathBuf>,
    /// The certificate, then those that lead from it to the authority.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate in use. Shared by all who use it, so that they change to a new one together.
pub struct Certificates {
    source: Source,
    current: RwLock<Arc<Loaded>>,
    /// What the files held that could not be used, so that it is said once.
    refused: Mutex<Option<Contents>>,
}

/// A certificate as of its last reading.
pub(super) struct Loaded {
    /// The node that it names, if it names one.
    pub(super) identity: Option<Identity>,
    /// What handshakes need.
    pub(super) configs: Configs,
    /// From when to when it holds; `None`: for as long as the process lives.
    validity: Option<Validity>,
    contents: Option<Contents>,
}

/// From when to when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
}

/// Where a certificate comes from.
enum Source {
    /// Files, and the node that they must name, if any.
    Files(CertificateFiles, Option<Identity>),
    /// Made or issued at the start, and never read again.
    Memory,
}

/// The files, byte by byte.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

/// What became of another reading.
#[derive(Debug)]
pub enum Refreshed {
    /// The files hold what they held.
    Same,
    /// From now on handshakes use what is new.
    Changed,
    /// They hold what can't be used: the old one stays in use. Told once.
    Refused(ClusterError),
}

// === impl Certificates ===

impl Certificates {
    /// Reads the files.
    ///
    /// - `node`: whom the certificate must name; `None`: it is for clients, and names a host.
    ///
    /// # Errors
    /// [`ClusterError::Config`] naming the file and what is wrong with it.
    pub fn read(files: CertificateFiles, node: Option<Identity>) -> Result<Self, ClusterError> {
        let loaded = load(&files, node.as_ref(), Contents::read(&files)?)?;
        let current = RwLock::new(Arc::new(loaded));
        Ok(Self { source: Source::Files(files, node), current, refused: Mutex::default() })
    }

    /// One that an authority issued to `node`, kept in memory.
    pub(super) fn issued(
        ca_pem: &str,
        issued: &Issued,
        node: &Identity,
    ) -> Result<Self, ClusterError> {
        let chain = certificates(issued.cert_pem.as_bytes()).map_err(|error| config(&error))?;
        let identity = named(&chain[0], node).map_err(|error| config(&error))?;
        let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())
            .map_err(|_| config(&"there is no private key in PEM"))?;
        let key =
            CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|error| config(&error))?;
        let roots = authorities(ca_pem.as_bytes()).map_err(|error| config(&error))?;
        Self::made(identity, key, roots)
    }

    /// One that was made by this process and lives as long.
    pub(super) fn made(
        identity: Identity,
        key: CertifiedKey,
        roots: RootCertStore,
    ) -> Result<Self, ClusterError> {
        let configs = Configs::new(key, Some(roots)).map_err(|error| config(&error))?;
        let loaded = Loaded { identity: Some(identity), configs, validity: None, contents: None };
        let current = RwLock::new(Arc::new(loaded));
        Ok(Self { source: Source::Memory, current, refused: Mutex::default() })
    }

    /// Reads the files again, and changes to what they hold now if it can be used.
    pub fn refresh(&self) -> Refreshed {
        let Source::Files(files, node) = &self.source else { return Refreshed::Same };
        let contents = match Contents::read(files) {
            Ok(contents) if self.current().contents.as_ref() == Some(&contents) => {
                return Refreshed::Same;
            }
            Ok(contents) => contents,
            // Being written at this moment, perhaps.
            Err(error) => return self.refuse(None, error),
        };
        match load(files, node.as_ref(), contents.clone()) {
            Ok(loaded) => {
                *self.current.write() = Arc::new(loaded);
                *self.refused.lock() = None;
                Refreshed::Changed
            }
            Err(error) => self.refuse(Some(contents), error),
        }
    }

    /// The hosts that it is for, names and addresses.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let current = self.current();
        let Some(contents) = &current.contents else { return Vec::new() };
        CertificateDer::from_pem_slice(&contents.cert).map_or(Vec::new(), |cert| hosts(&cert))
    }

    /// From when to when it holds; `None`: for as long as the process lives.
    #[must_use]
    pub fn validity(&self) -> Option<Validity> {
        self.current().validity
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.current.read().clone()
    }

    fn refuse(&self, contents: Option<Contents>, error: ClusterError) -> Refreshed {
        let contents = contents.unwrap_or_else(Contents::none);
        let mut refused = self.refused.lock();
        if refused.as_ref() == Some(&contents) {
            return Refreshed::Same;
        }
        *refused = Some(contents);
        Refreshed::Refused(error)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let current = self.current();
        f.debug_struct("Certificates")
            .field("identity", &current.identity)
            .field("validity", &current.validity)
            .finish_non_exhaustive()
    }
}

// === impl Contents ===

impl Contents {
    fn read(files: &CertificateFiles) -> Result<Self, ClusterError> {
        let read = |path: &Path| {
            let failed = |error| ClusterError::Config(format!("{}: {error}", path.display()));
            std::fs::read(path).map_err(failed)
        };
        let ca = files.ca.as_deref().map(read).transpose()?;
        Ok(Self { ca, cert: read(&files.cert)?, key: read(&files.key)? })
    }

    /// Stands for files that can't be read.
    fn none() -> Self {
        Self { ca: None, cert: Vec::new(), key: Vec::new() }
    }
}

// === impl Validity ===

impl Validity {
    /// Seconds until the end; negative after it.
    #[must_use]
    pub fn left_s(&self, now: SystemTime) -> i64 {
        seconds(self.not_after) - seconds(now)
    }

    /// Whether less than a fifth of its time is left: it should have been renewed.
    #[must_use]
    pub fn is_late(&self, now: SystemTime) -> bool {
        let whole = seconds(self.not_after) - seconds(self.not_before);
        self.left_s(now) * 5 < whole
    }

    fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let at = |seconds: i64| {
            UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        let validity = parsed.validity();
        let not_before = at(validity.not_before.timestamp());
        Ok(Self { not_before, not_after: at(validity.not_after.timestamp()) })
    }

    fn check(&self, now: SystemTime) -> Result<(), String> {
        let days = |seconds: i64| format!("{:.1} days", seconds as f64 / 86_400.0);
        let early = seconds(self.not_before) - seconds(now);
        if early > 0 {
            return Err(format!("the certificate begins in {}: is the clock right?", days(early)));
        }
        if self.left_s(now) < 0 {
            return Err(format!("the certificate expired {} ago", days(-self.left_s(now))));
        }
        Ok(())
    }
}

fn seconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Makes of the files' contents what handshakes need, or says which of them can't be used.
fn load(
    files: &CertificateFiles,
    node: Option<&Identity>,
    contents: Contents,
) -> Result<Loaded, ClusterError> {
    let about = |path: &Path, what: &dyn fmt::Display| {
        ClusterError::Config(format!("{}: {what}", path.display()))
    };
    let in_cert = |what: &dyn fmt::Display| about(&files.cert, what);
    let chain = certificates(&contents.cert).map_err(|what| in_cert(&what))?;
    let validity = Validity::of(&chain[0]).map_err(|what| in_cert(&what))?;
    validity.check(SystemTime::now()).map_err(|what| in_cert(&what))?;
    let identity = match node {
        Some(node) => Some(named(&chain[0], node).map_err(|error| in_cert(&error))?),
        None => None,
    };
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|_| about(&files.key, &"there is no private key in PEM"))?;
    let key = CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|error| {
        let unfit = format!("{error}: not the key of {}?", files.cert.display());
        about(&files.key, &unfit)
    })?;
    let roots = match (&files.ca, &contents.ca) {
        (Some(path), Some(pem)) => Some(authorities(pem).map_err(|what| about(path, &what))?),
        _ => None,
    };
    let configs = Configs::new(key, roots).map_err(|error| in_cert(&error))?;
    Ok(Loaded { identity, configs, validity: Some(validity), contents: Some(contents) })
}

/// The node that a certificate names, if it may stand for `node`.
fn named(certificate: &CertificateDer<'_>, node: &Identity) -> Result<Identity, IdentityError> {
    let named = Identity::of_certificate(certificate)?;
    if named.covers(node) { Ok(named) } else { Err(IdentityError::other(&named, node)) }
}

/// The hosts that a certificate names; none, if it can't be read.
fn hosts(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return Vec::new() };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let host = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?).to_string()),
            _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?).to_string()),
        },
        _ => None,
    };
    names.value.general_names.iter().filter_map(host).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in PEM".to_owned()) } else { Ok(found) }
}

fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn config(error: &dyn fmt::Display) -> ClusterError {
    ClusterError::Config(error.to_string())
}
