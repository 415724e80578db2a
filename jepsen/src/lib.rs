//! Catena: jepsen.

pub mod check;
