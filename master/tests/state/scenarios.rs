//! Golden transcripts: each file in `scenarios/` is a story of the master's state with its complete output.
//!
//! `UPDATE=1 cargo test -p catena-master --test state` rewrites them; whoever does so can explain the difference.

use std::path::Path;

use crate::script::Play;
use crate::transcripts;

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state/scenarios");
    transcripts::check(&folder, play);
}

fn play(text: &str) -> Result<String, String> {
    let mut play = Play::new();
    let mut out = String::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            out += &format!("{line}\n");
        } else if let Some(command) = line.strip_prefix("> ") {
            out += &format!("{line}\n");
            let lines = play
                .line(command)
                .map_err(|e| format!("line {}: {e}", at + 1))?;
            for line in lines {
                out += &format!("  {line}\n");
            }
        }
    }
    play.witness.every_version_reaches_the_newest();
    play.witness.replays_alike();
    Ok(out)
}
