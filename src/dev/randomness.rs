//! Draws the names of a new cluster from the operating system.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: names are drawn once, when a cluster is made"
)]

use catena_proto::ids::ClusterId;

use crate::exit::Failure;

/// A random number.
pub(crate) fn number() -> Result<u64, Failure> {
    getrandom::u64().map_err(|why| unavailable(&why))
}

/// A cluster id that no other cluster has.
pub(crate) fn cluster_id() -> Result<ClusterId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|why| unavailable(&why))?;
    Ok(ClusterId::new(u128::from_be_bytes(bytes)))
}

fn unavailable(why: &dyn std::fmt::Display) -> Failure {
    Failure::local(
        "drawing random numbers",
        why,
        "check that the kernel offers getrandom",
    )
}
