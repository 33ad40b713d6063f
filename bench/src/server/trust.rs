//! Whom to trust over https.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// TLS that trusts the authorities in `ca`, or those of the system.
///
/// - `is_wanted`: whether anybody will be met in TLS; the system's are not read for nothing.
pub(super) fn config(ca: Option<&Path>, is_wanted: bool) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => add_file(&mut roots, path)?,
        None if is_wanted => add_system(&mut roots)?,
        None => {}
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<()> {
    let named = || path.display().to_string();
    for certificate in CertificateDer::pem_file_iter(path).with_context(named)? {
        roots.add(certificate.with_context(named)?).with_context(named)?;
    }
    ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
    Ok(())
}

fn add_system(roots: &mut RootCertStore) -> Result<()> {
    let found = rustls_native_certs::load_native_certs();
    // Some of the system's may be broken; the rest will do.
    let (added, _) = roots.add_parsable_certificates(found.certs);
    ensure!(
        added > 0,
        "this system has no certificates of authorities; name whom to trust: --ca FILE"
    );
    Ok(())
}
