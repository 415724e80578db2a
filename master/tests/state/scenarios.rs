//! Golden transcripts: each file in `scenarios/` is a story of the master's state with its complete output.
//!
//! `UPDATE=1 cargo test -p catena-master --test state` rewrites them; whoever does so can explain the difference.

use std::path::Path;

use crate::script::Play;

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state/scenarios");
    let update = std::env::var_os("UPDATE").is_some();
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|e| e.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "there are scenarios");
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a scenario");
        let found = play(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        if update {
            std::fs::write(&file, &found).expect("written");
        } else if found != text {
            let at = text.lines().zip(found.lines()).position(|(a, b)| a != b);
            let line = at.unwrap_or(text.lines().count().min(found.lines().count()));
            wrong.push(format!(
                "{}:{}\n  expected: {}\n  found:    {}",
                file.display(),
                line + 1,
                text.lines().nth(line).unwrap_or("(end)"),
                found.lines().nth(line).unwrap_or("(end)")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "transcripts differ (UPDATE=1 rewrites them):\n{}",
        wrong.join("\n")
    );
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
