//! Golden transcripts: each file in `scenarios/` is a scenario of `docs/PROTOCOL.md` with its complete output.
//!
//! `UPDATE=1 cargo test -p catena-chainnode --test scenarios` rewrites them;
//! whoever does so can explain the difference.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test reads its files"
)]

use std::path::Path;

use catena_chainnode::stage;

#[path = "../../tests/harness/transcripts.rs"]
mod transcripts;

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    transcripts::check(&folder, |text| {
        let played = stage::play(text, None).map_err(|e| e.to_string())?;
        match played.violation {
            Some(violation) => Err(format!("{violation:?}")),
            None => Ok(played.transcript),
        }
    });
}
