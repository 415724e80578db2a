//! The simulation: production replicas under faults, every choice drawn from one seed.
//!
//! It plays on `catena_chainnode::stage`: replicas, model disks, wires, clocks.
//! A run is a script of the stage's language, one command a step, so what it
//! did can be read, replayed, shrunk and kept as a golden scenario. The oracle
//! watches each step for broken rules; at the end everything is healed, the
//! chain must serve again, replicas must be equal, and the clients' history
//! must be linearizable. Chains are decided by a scripted source of configs that
//! keeps to rules M, or by three masters with the production state and loop.
//! What is not in it: Raft itself, the production log on a faulty disk (it has
//! properties of its own), several shards.
//!
//! | file | knows |
//! |---|---|
//! | `dice` | where choices come from |
//! | `trace` | a run as a script; shrinking |
//! | `configs` | what a master may do, and when that hurts |
//! | `cluster` | the stage with masters beside it |
//! | `masters` | one ordered log, leaders, subscriptions, the snapshot store |
//! | `council` | what happens to masters in a random run |
//! | `planted` | bugs that can be planted |
//! | `faults` | rates, faults, mends |
//! | `clients` | sessions, retries, reads; the history |
//! | `random` | one run |
//! | `ending` | healing, and what must hold then |
//! | `run` | many seeds |
//! | `schedules` | the directed schedule of each planted bug |

mod clients;
mod cluster;
mod configs;
mod council;
mod dice;
mod ending;
mod faults;
mod masters;
mod planted;
mod random;
mod run;
mod schedules;
mod trace;

pub use self::planted::{Bug, Planted};
pub use self::random::{Company, Failure, Outcome, simulate, trace};
pub use self::run::{Progress, Summary, run};
pub use self::schedules::{SCHEDULES, Schedule};
pub use self::trace::Trace;
