//! What every part of Catena shares: domain types, the wire, limits and error details.
//!
//! Pure code uses the domain types only; the one module that knows both the
//! wire and the domain is `conversion`.

pub mod call;
pub mod config;
pub mod conversion;
pub mod errors;
pub mod ids;
pub mod limits;
pub mod message;
pub mod op;
pub mod record;
pub mod redirect;
pub mod report;
pub mod snapshot;
pub mod time;

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated")]
#[rustfmt::skip]
pub mod wire {
    //! The wire types that `build.rs` generates from `proto/catena/v1`; only boundaries use them.
    tonic::include_proto!("catena.v1");

    /// The encoded file descriptors, for gRPC reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
}
