//! Catena: chainnode.

pub mod replica;
