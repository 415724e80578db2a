//! The rules in fine steps: they hold in every scenario, and each weakened one is caught in the smallest.
#![allow(missing_docs, reason = "a test")]

use catena_jepsen::model::fine::{Bounds, Limits, Mutation, Scenario, check, numbered, scenario};

/// States that a search of these tests may generate; a scenario of more is searched in part.
const STATES_MAX: usize = 1_000_000;

const LIMITS: Limits = Limits {
    states_max: Some(STATES_MAX),
    depth_max: None,
    threads: 1,
};

#[test]
fn the_rules_hold_in_every_scenario() {
    for scenario in Scenario::ALL {
        let report = check(scenario.bounds, None, LIMITS);
        assert!(report.broken.is_none(), "{}: {report}", scenario.name);
        // `three` and `spare` are long: `docs/MODEL.md` has the figures of the whole searches.
        let long = ["three", "spare"].contains(&scenario.name);
        assert!(
            report.complete || long,
            "{}: {} states",
            scenario.name,
            report.states
        );
    }
}

#[test]
fn the_tiny_bounds_are_searched_whole() {
    let report = check(Bounds::TINY, None, Limits::default());
    assert!(report.broken.is_none(), "{report}");
    assert!(report.complete && report.states > 20_000, "{report}");
}

#[test]
fn every_mutation_is_caught_in_its_scenario() {
    for mutation in Mutation::ALL {
        let report = check(scenario(*mutation), Some(*mutation), Limits::default());
        assert!(
            report.broken.is_some(),
            "{} was not caught in {}: {report}",
            mutation.name(),
            mutation.scenario()
        );
    }
}

/// What the search finds, it finds again, in the same steps.
#[test]
fn a_counterexample_is_the_same_each_time() {
    let once = || check(scenario(Mutation::NoDebt), Some(Mutation::NoDebt), LIMITS);
    let (first, second) = (once(), once());
    assert_eq!(first, second);
    let (property, steps) = first.broken.expect("caught");
    assert_eq!(property, "R2, R3: no stale read");
    assert!(
        numbered(&steps).starts_with("  1. node 1 "),
        "{}",
        numbered(&steps)
    );
}

#[test]
fn names_are_found_again() {
    for mutation in Mutation::ALL {
        assert_eq!(Mutation::named(mutation.name()), Some(*mutation));
        assert!(
            Scenario::named(mutation.scenario()).is_some(),
            "{mutation:?}"
        );
        assert!(!mutation.rule().is_empty());
    }
    assert_eq!(Mutation::named("no-such"), None);
}
