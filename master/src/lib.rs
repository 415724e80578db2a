//! Catena's control plane: it decides which nodes form which chain, in which order, at which epoch.
//!
//! What is here is pure: values in, values out. [`bootstrap`] makes the very
//! first cluster state; every later one is a change of the one before.

pub mod bootstrap;
pub mod control;
pub mod raft;
pub mod state;
