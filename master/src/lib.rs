//! Catena's control plane: it decides which nodes form which chain, in which order, at which epoch.
//!
//! [`state`], [`control`] and [`push`] are pure: values in, values out. [`bootstrap`] makes the
//! very first cluster state; every later one is a change of the one before. [`raft`]
//! keeps the masters' states the same; [`runtime`] is the process around them.

pub mod bootstrap;
pub mod control;
pub mod push;
pub mod raft;
pub mod runtime;
pub mod state;
