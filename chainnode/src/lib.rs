//! Catena: chainnode.

pub mod engine;
pub mod replica;
pub mod stage;
