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

#[test]
fn every_scenario_gives_its_transcript() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
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
        let played = stage::play(&text, None).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert_eq!(played.violation, None, "{}", file.display());
        let found = played.transcript;
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
