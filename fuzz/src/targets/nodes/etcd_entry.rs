//! An entry of etcd that should be a worker.

use cluster::membership::entry;
use cluster::membership::etcd::worker_of;
use words::{Role, WorkerInfo};

use crate::Target;
use crate::fixtures::worker::worker;

pub(in crate::targets) const TARGET: Target = Target::new("etcd_entry", run).with_seeds(seeds);

/// Takes a key on the first line, and a value behind it.
fn run(input: &[u8]) {
    let end = input.iter().position(|&byte| byte == b'\n').unwrap_or(input.len());
    let (key, value) = (&input[..end], &input[(end + 1).min(input.len())..]);
    // As it is, which hardly has the seal that it should have.
    let _ = worker_of(key, value);
    let Ok(info) = serde_json::from_slice::<WorkerInfo>(value) else { return };
    let sealed = entry::write(&info).expect("a worker in JSON");
    assert_eq!(entry::read(&sealed).as_ref().ok(), Some(&info));
    let Ok((key, taken)) = worker_of(key, &sealed) else { return };
    assert!(key.ends_with(&format!("/{}/{}", taken.role, taken.address.worker)), "{key}");
    assert_eq!(taken, info);
}

fn seeds() -> Vec<Vec<u8>> {
    let entry = |role: Role, name: &str| {
        let value = serde_json::to_string(&worker(role, name)).expect("a worker in JSON");
        format!("/baton/ns/workers/{role}/{name}\n{value}").into_bytes()
    };
    vec![entry(Role::Decode, "d0"), entry(Role::Prefill, "p0")]
}
