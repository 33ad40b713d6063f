//! An etcd that asks who is there: users, certificates, several endpoints.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use cluster::membership::etcd::{Credentials, EtcdTls, Identity};
use cluster::testing::{Etcd, wait_for, worker};
use cluster::{EtcdConfig, EtcdMembership, Membership, Standing};
use etcd_client::{Client, Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use scheduler::Role;
use tempfile::TempDir;

/// Registers a worker and sees it in the view.
async fn works(config: EtcdConfig) {
    let membership = EtcdMembership::connect(config).unwrap();
    let registration = membership.register(worker("a", Role::Decode)).await.unwrap();
    wait_for("a", &mut membership.view(), |members| members.workers.len() == 1).await;
    registration.deregister().await;
    membership.close().await;
}

/// Tries to register a worker; the view stays stale, the registration pending.
async fn is_kept_out(mut config: EtcdConfig) {
    config.register_patience = Duration::from_millis(500);
    let membership = EtcdMembership::connect(config).unwrap();
    let registration = membership.register(worker("a", Role::Decode)).await.unwrap();
    assert_eq!(*registration.standing().borrow(), Standing::Pending);
    assert!(membership.view().borrow().stale_since.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_rights_to_the_namespace_is_enough() {
    let etcd = Etcd::start().await;
    let mut admin = Client::connect([etcd.endpoint()], None).await.unwrap();
    admin.role_add("baton").await.unwrap();
    let ours = Permission::new(PermissionType::Readwrite, "/baton/").with_prefix();
    admin.role_grant_permission("baton", ours).await.unwrap();
    for (user, role) in [("root", "root"), ("baton", "baton")] {
        admin.user_add(user, "secret", None).await.unwrap();
        admin.user_grant_role(user, role).await.unwrap();
    }
    admin.auth_enable().await.unwrap();

    let with = |password: &str| {
        let (user, password) = ("baton".to_owned(), password.to_owned());
        EtcdConfig { credentials: Some(Credentials { user, password }), ..etcd.config() }
    };
    works(with("secret")).await;
    is_kept_out(with("wrong")).await;
    is_kept_out(etcd.config()).await;
}

/// A certificate authority with certificates for etcd and for a node.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity { cert_pem: cert.pem(), key_pem: key.serialize_pem() }
    }

    fn trusted(&self, identity: Option<Identity>) -> EtcdTls {
        EtcdTls { ca_pem: Some(self.issuer.pem()), identity, domain: None }
    }
}

/// etcd's arguments for TLS in both directions.
fn tls_args(dir: &Path, authority: &Authority) -> Vec<OsString> {
    let server = authority.identity();
    let files = [
        ("--cert-file", server.cert_pem),
        ("--key-file", server.key_pem),
        ("--trusted-ca-file", authority.issuer.pem()),
    ];
    let mut args: Vec<OsString> = vec!["--client-cert-auth".into()];
    for (arg, pem) in files {
        let path = dir.join(arg);
        std::fs::write(&path, pem).unwrap();
        args.extend([arg.into(), path.into_os_string()]);
    }
    args
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_in_both_directions() {
    let (dir, ours, theirs) = (TempDir::new().unwrap(), Authority::new(), Authority::new());
    let tls = ours.trusted(Some(ours.identity()));
    let etcd = Etcd::start_with(tls_args(dir.path(), &ours), Some(tls)).await;
    works(etcd.config()).await;
    let with = |tls: EtcdTls| EtcdConfig { tls: Some(tls), ..etcd.config() };
    is_kept_out(with(theirs.trusted(Some(ours.identity())))).await;
    is_kept_out(with(ours.trusted(Some(theirs.identity())))).await;
    is_kept_out(with(ours.trusted(None))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_down_is_passed_over() {
    let (mut down, etcd) = (Etcd::start().await, Etcd::start().await);
    let endpoints = vec![down.endpoint(), etcd.endpoint()];
    down.stop().await;
    let config = EtcdConfig { endpoints, ..etcd.config() };
    let membership = EtcdMembership::connect(config.clone()).unwrap();
    let registration = membership.register(worker("a", Role::Decode)).await.unwrap();
    wait_for("a", &mut membership.view(), |members| members.workers.len() == 1).await;
    let (mut standing, mut view) = (registration.standing(), membership.view());
    standing.borrow_and_update();
    view.borrow_and_update();
    // Not a wait for something: for as long as renewals might have gone to the member that is down.
    tokio::time::sleep(config.lease_ttl * 2).await;
    assert!(!standing.has_changed().unwrap() && !view.has_changed().unwrap(), "no flapping");
}
