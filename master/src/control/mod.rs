//! The closed loop of the master: *monitor*, *compare*, *act* (DESIGN §4.3).
//!
//! Everything here is pure. [`Observed`] keeps what the leader was told;
//! [`compare`] says where that differs from the desired state; [`act`] turns
//! differences into commands, within budgets. The runtime feeds the first and
//! proposes what the last gives out; time is an argument of both.
//!
//! Safety before liveness: a command that goes wrong here is caught when it is
//! applied (M1–M3 are checked there again), and whatever is doubtful becomes a
//! hold that people can see, never an exclusion.

mod act;
mod admit;
mod compare;
mod discrepancy;
mod evidence;
mod exclude;
mod history;
pub mod limits;
mod notes;
mod observed;
mod register;
mod suspicion;

pub use act::{Action, MEMBERSHIP, act};
pub use compare::compare;
pub use discrepancy::{Discrepancy, SignGone, Since, UselessWhy};
pub use evidence::removal_evidence;
pub use observed::{NodeSeen, Observed, Refusal, Reported, Subscription};
pub use register::registrations;
