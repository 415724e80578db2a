//! Exactly once, seen from the end: properties that need no search.
//!
//! They are weaker than linearizability and cost nothing, so a run of hours
//! with millions of operations on one key can still be held to them: after
//! everything is healed, one final read is compared with what was
//! acknowledged (DESIGN §3.4, FAULTS 4).

pub mod append_list;
pub mod counter_total;
