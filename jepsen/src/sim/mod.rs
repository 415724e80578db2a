//! The simulation: production replicas under faults, every choice drawn from one seed.
//!
//! It plays on `catena_chainnode::stage`: replicas, model disks, wires, clocks.
//! The oracle watches each step for broken rules; at the end everything is
//! healed, the chain must serve again, replicas must be equal, and the clients'
//! history must be linearizable. What is not in it yet: masters, the production
//! log on a faulty disk (it has properties of its own), several shards.

mod clients;
mod configs;
mod dice;
mod random;
mod run;
mod schedules;

pub use self::random::{Failure, Outcome, simulate, trace};
pub use self::run::{Progress, Summary, run};
pub use self::schedules::{SCHEDULES, Schedule};
