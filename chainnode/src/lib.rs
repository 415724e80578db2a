//! The data plane: a node that holds replicas of chains (DESIGN §3).
//!
//! `replica` is the protocol, pure; `engine` keeps its state; `runtime` is the
//! thin rest; `stage` plays replicas by hand for tests and proofs.

pub mod engine;
pub mod replica;
#[allow(
    clippy::disallowed_methods,
    reason = "runtime: threads, tasks, files, sockets and the clock are what it is for"
)]
pub mod runtime;
pub mod stage;
