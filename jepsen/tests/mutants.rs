//! Every planted bug is caught by its directed schedule, and the schedule is clean without the bug.
#![allow(missing_docs, reason = "a test")]

use catena_chainnode::replica::Mutant;
use catena_chainnode::stage;
use catena_jepsen::sim::SCHEDULES;

#[test]
fn every_planted_bug_has_a_schedule() {
    let scheduled: Vec<Mutant> = SCHEDULES.iter().map(|s| s.mutant).collect();
    assert_eq!(scheduled, Mutant::ALL);
}

#[test]
fn every_schedule_breaks_its_rule_with_the_bug_and_nothing_without() {
    for schedule in SCHEDULES {
        let name = schedule.mutant;
        let clean = stage::play(schedule.script, None).expect("a script");
        assert_eq!(
            clean.violation, None,
            "{name}: clean code\n{}",
            clean.transcript
        );
        let broken = stage::play(schedule.script, Some(name)).expect("a script");
        let violation = broken
            .violation
            .unwrap_or_else(|| panic!("{name}: the bug was not caught\n{}", broken.transcript));
        assert!(
            violation.rule.starts_with(schedule.breaks),
            "{name}: {violation}"
        );
    }
}
