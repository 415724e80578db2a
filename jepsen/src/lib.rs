//! What makes people trust the store: simulation, planted bugs, and checkers of histories.

pub mod check;
pub mod model;
pub mod sim;
