//! A slice of the simulation for every build; `catena jepsen sim --seeds A..B` runs as many as one likes.
#![allow(missing_docs, reason = "a test")]

use catena_jepsen::sim::{run, simulate};

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..4 {
        let (one, two) = (simulate(seed, 1_000, None), simulate(seed, 1_000, None));
        assert_eq!(one, two);
        assert!(one.is_ok_and(|outcome| outcome.trace.lines().len() > 300));
    }
}

#[test]
fn a_slice_of_seeds_holds() {
    let summary = run(0..600, 2_000, None, |_| {});
    let failures: Vec<String> = summary.failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        summary.committed > 10_000 && summary.epochs > 1_000,
        "{}",
        summary.to_text()
    );
}

/// What the simulation found in the replica. Each of these seeds broke a rule until that was mended; the scenario
/// that is named plays what was left of it after shrinking, and stays when the seeds mean something else.
#[test]
fn seeds_that_once_failed_hold() {
    for (seed, scenario) in [
        (1, "19-learner-forgotten-by-its-source"),
        (10, "19-learner-forgotten-by-its-source"),
        (1882, "20-barrier-of-a-lost-end"),
    ] {
        let failure = simulate(seed, 2_000, None).err();
        assert!(failure.is_none(), "{scenario}: {failure:?}");
    }
}
