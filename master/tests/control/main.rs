//! The control loop in a small world: golden transcripts of what it does when things break, and properties.
//!
//! `UPDATE=1 cargo test -p catena-master --test control` rewrites the transcripts; whoever does so can explain the
//! difference.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test reads its files"
)]

mod properties;
mod rules;
mod stage;
mod world;

use std::path::Path;

#[path = "../../../tests/harness/transcripts.rs"]
mod transcripts;

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/scenarios");
    transcripts::check(&folder, stage::play);
}
