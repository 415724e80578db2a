//! The rules of the chain in fine steps: rounds that are under way, single
//! sightings, promises and debts, reads with a beginning and an end.
//!
//! [`super::Rules`] takes a whole round, and a whole read, as one step; its
//! traces are played by the production replica. This model splits them, so
//! that an exhaustive search also sees what happens between the halves (rules
//! R1 to R4, L3), and it weakens every rule that concerns the protocol
//! ([`Mutation`]). [`check`] searches it.
//!
//! # Why the steps are as large as they are
//!
//! - *Records, watermark, commit point and the news of a complete round* pass
//!   between neighbours in one exchange. They only grow on one link, and a frame
//!   of another link or epoch is refused (C3, L3), so a late frame does what an
//!   earlier exchange would have done. The two mutations that accept late frames
//!   have steps of their own for them.
//! - *Rounds* are the exception, since the moment of a sighting counts (R2):
//!   they are under way on a link, delivered later or lost with it.
//! - *Time* is an order. At its sighting of a round a member opens a **window**,
//!   which is a lease once the round is known to be complete; windows end at any
//!   moment. A promise remembers the windows that were open when it was made
//!   last, and lasts as long as one of them does (R1, R2 and ρ say no more).
//! - What only ever helps happens at once: an announcement pays its debts (C5), a
//!   promise that backs no window is over, who may be in sync is, the tail commits,
//!   the head answers. A window ends only when somebody waits for that.
//!
//! # What it does not cover
//!
//! - Several keys, sessions, log time, scans, the learner's scan of a state
//!   (M4): the simulation's part. Records are only told apart.
//! - The master's own reports and evidence: it knows who is in sync at the
//!   moment of a removal (M2), and its changes are one sequence (C2).
//! - Clock rates beyond ρ; anything live: only safety is searched.
//! - A cut that is not yet durable at a crash; only whole suffixes are lost.
//! - The applied position is lost at a crash, the worst case of L5. A disk that
//!   is rolled back is modelled only in one epoch ([`Bounds::rollbacks`]): a solo member
//!   cannot see it (DESIGN §3.5, what is left over).
//! - The `creating` epoch (C4), deletion of data (M5), operators (M3's other half).

mod bounds;
mod check;
mod data;
mod lease;
mod master;
mod mutation;
mod properties;
mod rules;
mod state;
mod step;

pub use self::bounds::{Bounds, Scenario};
pub use self::check::{Limits, Report, check, scenario};
pub use self::mutation::Mutation;
pub use self::rules::FineRules;
pub use self::state::State;
pub use self::step::{Step, numbered};
