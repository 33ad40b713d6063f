//! An etcd that asks who is there: users, certificates, several endpoints.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use cluster::membership::etcd::{Credentials, EtcdTls, IdentityFiles};
use cluster::security::authority::{self, Subject};
use cluster::testing::{Etcd, wait_for, worker};
use cluster::{EtcdConfig, EtcdMembership, Membership, Standing};
use etcd_client::{Client, Permission, PermissionType};
use tempfile::TempDir;
use words::Role;

const DAY: Duration = Duration::from_secs(86_400);

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
    authority: authority::Authority,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let (authority, issued) = authority::Authority::create("test", DAY).unwrap();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("ca.pem"), issued.cert_pem).unwrap();
        Self { authority, dir }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn identity(&self) -> IdentityFiles {
        let subject = Subject { node: None, hosts: vec!["127.0.0.1".to_owned()] };
        let issued = self.authority.issue(&subject, DAY).unwrap();
        let (cert, key) = (self.dir.path().join("cert.pem"), self.dir.path().join("key.pem"));
        std::fs::write(&cert, issued.cert_pem).unwrap();
        std::fs::write(&key, issued.key_pem).unwrap();
        IdentityFiles { cert, key }
    }

    fn trusted(&self, identity: Option<IdentityFiles>) -> EtcdTls {
        EtcdTls { ca: Some(self.ca()), identity, domain: None }
    }
}

/// etcd's arguments for TLS in both directions.
fn tls_args(authority: &Authority) -> Vec<OsString> {
    let IdentityFiles { cert, key } = authority.identity();
    let files = [("--cert-file", cert), ("--key-file", key), ("--trusted-ca-file", authority.ca())];
    let args = files.into_iter().flat_map(|(arg, path)| [arg.into(), path.into_os_string()]);
    std::iter::once("--client-cert-auth".into()).chain(args).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked_in_both_directions() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let tls = ours.trusted(Some(ours.identity()));
    let etcd = Etcd::start_with(tls_args(&ours), Some(tls)).await;
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
