//! The name in a certificate that a caller shows, and names as they are written.

use std::time::Duration;

use cluster::security::authority::{Authority, Subject};
use cluster::security::{Identity, NodeRole};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use crate::Target;

pub(in crate::targets) const TARGET: Target = Target::new("certificate", run).with_seeds(seeds);

fn run(input: &[u8]) {
    let named = Identity::of_certificate(&CertificateDer::from(input));
    let written = std::str::from_utf8(input).ok().and_then(|text| text.parse().ok());
    for name in named.iter().chain(&written) {
        assert_eq!(name.to_string().parse::<Identity>().as_ref(), Ok(name));
        assert!(name.covers(name));
        assert!(!name.cluster.is_empty() && !name.cluster.contains('/'), "{name}");
    }
    if let Err(error) = named {
        assert!(error.to_string().len() <= 256 + 8 * input.len(), "{error}");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let day = Duration::from_secs(86_400);
    let (authority, _) = Authority::create("fuzz", day).expect("an authority");
    let der = |subject: Subject| {
        let issued = authority.issue(&subject, day).expect("a certificate");
        let der = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).expect("PEM");
        der.to_vec()
    };
    let node = |id: &str| Some(Identity::new("prod", NodeRole::Decode, id));
    let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    vec![
        der(Subject { node: node("d-0"), hosts: Vec::new() }),
        der(Subject { node: node("*"), hosts: hosts.clone() }),
        der(Subject { node: None, hosts }),
        b"baton://prod/decode/d-0".to_vec(),
    ]
}
