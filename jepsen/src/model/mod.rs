//! The rules of the chain as a small model, searched exhaustively (`stateright`).
//!
//! Random runs walk past holes that need one particular order of a few rare
//! steps; an exhaustive search at small bounds does not (DESIGN §3.5). Time is
//! abstracted: a lease may end at any moment, a promise only once no lease that
//! it backs is left (R1, R2). A handshake, a batch of records, a commit and a
//! completed round are one step each: what is in flight between them is the
//! simulation's part, and so are several keys, learners and scans, disks that
//! are replaced, and clocks that differ.
//!
//! [`fine`] splits what is one step here, and weakens more rules.
//!
//! The traces of [`Rules`] are scripts for `catena_chainnode::stage`, so the production
//! replica plays them too ([`script`]).

pub mod fine;
mod replay;
mod rules;
mod search;
mod state;

pub use self::replay::script;
pub use self::rules::{Bounds, Mutation, Rules, Step};
pub use self::search::{Found, search};
