//! A slice of the simulation for every build; `catena jepsen sim --seeds A..B` runs as many as one likes.
#![allow(
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test reads its scripts"
)]

use catena_jepsen::sim::{Company, Trace, run, simulate};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        let (one, two) = (
            simulate(seed, 1_000, Company::Alone, None),
            simulate(seed, 1_000, Company::Alone, None),
        );
        assert_eq!(one, two);
        assert!(one.is_ok_and(|outcome| outcome.trace.lines().len() > 300));
    }
}

#[test]
fn a_slice_of_seeds_holds() {
    let summary = run(0..600, 2_000, Company::Alone, None, |_| {});
    let failures: Vec<String> = summary.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        summary.committed > 10_000 && summary.epochs > 1_000,
        "{}",
        summary.to_text()
    );
}

#[test]
fn the_same_seed_gives_the_same_run_with_masters() {
    for seed in 0..4 {
        let one = simulate(seed, 600, Company::Masters, None);
        let two = simulate(seed, 600, Company::Masters, None);
        assert_eq!(one, two);
        assert!(one.is_ok_and(|outcome| outcome.trace.lines().len() > 200));
    }
}

#[test]
fn a_slice_of_seeds_with_masters_holds() {
    let summary = run(0..400, 1_200, Company::Masters, None, |_| {});
    let failures: Vec<String> = summary.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        summary.committed > 5_000 && summary.epochs > 1_500,
        "{}",
        summary.to_text()
    );
}

/// What the simulation found in the replica, shrunk. With the mend taken out, each of these scripts breaks a rule.
#[test]
fn scripts_that_once_broke_a_rule_hold() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(!files.is_empty(), "there are scripts");
    let mut broken = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a script");
        if let Some(rule) = Trace::from_script(&text).breaks(None) {
            broken.push(format!("{}: {rule}", file.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}
