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

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control/scenarios");
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
        let found = stage::play(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
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
