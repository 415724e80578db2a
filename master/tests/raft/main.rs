//! Raft for the masters: its store, its folder, and three masters that talk over loopback.
#![allow(
    clippy::disallowed_methods,
    reason = "tests of a runtime: they use real files, sockets and time-outs"
)]
#![allow(clippy::expect_used, reason = "a test that cannot go on says why")]

mod cluster;
mod folder;
mod kit;
mod service;
mod store;
