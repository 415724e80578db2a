//! Generates the wire types with `protox`, so that no system `protoc` is needed.
#![allow(
    clippy::disallowed_methods,
    reason = "a build script writes what it generates"
)]

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["config", "chain", "kv", "admin", "control", "raft"]
        .map(|n| format!("proto/catena/v1/{n}.proto"));
    for file in &files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), {
        use protox::prost::Message;
        descriptors.encode_to_vec()
    })?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
