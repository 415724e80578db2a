//! What the client decides, apart from how it is carried out: no clock, task, socket or randomness in here.
//!
//! `routes` knows who holds a key, `session` names requests, `retry` decides what
//! follows a try without an answer, and `budget` how often a try may be repeated.

pub(crate) mod budget;
pub(crate) mod retry;
pub(crate) mod routes;
pub(crate) mod session;
