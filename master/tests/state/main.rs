//! The master's state machine: golden scenarios, the table of chain shapes, and properties over random commands.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test reads its files"
)]

mod properties;
mod replays;
mod scenarios;
mod script;
mod table;
#[path = "../../../tests/harness/transcripts.rs"]
mod transcripts;
mod witness;
