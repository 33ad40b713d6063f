//! Generates the wire types. Needs `protoc`; `cargo xtask` installs it.

use std::env;
use std::path::PathBuf;

const PROTOS: [&str; 6] = ["common", "decode", "inference", "prefill", "transfer", "worker"];

#[expect(clippy::disallowed_methods, reason = "cargo speaks to build scripts by environment")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files: Vec<PathBuf> =
        PROTOS.iter().map(|name| format!("proto/baton/v1/{name}.proto").into()).collect();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("baton_descriptor.bin"))
        // Page data stays in the buffer it arrived in.
        .bytes(".baton.v1.Pages.data")
        .compile_protos(&files, &[PathBuf::from("proto")])?;
    Ok(())
}
