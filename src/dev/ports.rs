//! Ports for the processes of a local cluster, chosen once and kept for its life.
//!
//! They lie *below* the range that the kernel takes ports for outgoing
//! connections from: else a node that is down could not come back because some
//! client's connection sits on its port, or a client that knocks at the dead
//! node's port could be given that very port and connect to itself.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use super::randomness;
use crate::exit::Failure;

/// Lowest port chosen: below are the well-known ones.
const PORT_MIN: u16 = 10_000;
/// Where Linux begins its ephemeral range by default, for when it does not say.
const EPHEMERAL_MIN: u16 = 32_768;
/// Tries for each port before the machine counts as full.
const TRIES_MAX: u32 = 1_000;

/// `count` different loopback addresses that nobody listens on.
pub(crate) fn free(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let end = range_end(
        &std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default(),
    );
    // Held until all are chosen, so that no port is chosen twice.
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        held.push(one(end)?);
    }
    held.iter()
        .map(|listener| listener.local_addr().map_err(|why| none_free(&why)))
        .collect()
}

fn one(end: u16) -> Result<TcpListener, Failure> {
    let mut last = None;
    for _ in 0..TRIES_MAX {
        let draw = randomness::number()? % u64::from(end - PORT_MIN);
        let port = PORT_MIN + u16::try_from(draw).unwrap_or(0);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(listener) => return Ok(listener),
            Err(why) => last = Some(why),
        }
    }
    Err(none_free(
        &last.unwrap_or_else(|| std::io::ErrorKind::AddrInUse.into()),
    ))
}

/// The end of the range to choose from: where the ephemeral ports begin.
fn range_end(kernel: &str) -> u16 {
    let first = kernel
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok());
    // A kernel whose ephemeral range leaves no room below has no safe ports; any will have to do.
    first
        .filter(|first| *first > PORT_MIN + 1_000)
        .unwrap_or(EPHEMERAL_MIN)
}

fn none_free(why: &std::io::Error) -> Failure {
    Failure::local(
        "choosing ports on 127.0.0.1",
        why,
        "end processes that hold many ports, and try again",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_different_and_below_the_ephemeral_range() {
        let ports: BTreeSet<u16> = free(20)
            .expect("free ports")
            .iter()
            .map(SocketAddr::port)
            .collect();
        assert_eq!(ports.len(), 20);
        assert!(ports.iter().all(|port| *port >= PORT_MIN));
    }

    #[test]
    fn the_kernel_says_where_its_own_range_begins() {
        assert_eq!(range_end("32768\t60999\n"), 32_768);
        assert_eq!(range_end("20000 60999"), 20_000);
        assert_eq!(range_end("1024 65535"), EPHEMERAL_MIN);
        assert_eq!(range_end(""), EPHEMERAL_MIN);
    }
}
