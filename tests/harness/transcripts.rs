//! Golden transcripts: files of commands with their complete output, played again and compared.
//!
//! Each crate that has some includes this file by its path: what a scenario means is the crate's, how transcripts
//! are kept is the same everywhere. `UPDATE=1` rewrites them; whoever does so can explain the difference.

use std::path::Path;

/// Plays every file of `folder`, and fails the test with the first line in which each one differs.
#[track_caller]
pub(crate) fn check(folder: &Path, play: impl Fn(&str) -> Result<String, String>) {
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
