//! Every planted bug is caught by its directed schedule, and the schedule is clean without the bug.
#![allow(missing_docs, reason = "a test")]

use catena_jepsen::sim::{Planted, SCHEDULES, Schedule, Trace};

#[test]
fn every_planted_bug_has_a_schedule() {
    let scheduled: Vec<Planted> = SCHEDULES.iter().map(|s| s.mutant).collect();
    assert_eq!(scheduled, Planted::all());
}

/// The rule that the schedule breaks with this bug.
fn broken(schedule: &Schedule, mutant: Option<Planted>) -> Option<&'static str> {
    Trace::from_script(schedule.script).first_broken(mutant)
}

#[test]
fn every_schedule_breaks_its_rule_with_the_bug_and_nothing_without() {
    let mut wrong = Vec::new();
    for schedule in SCHEDULES {
        let name = schedule.mutant;
        if let Some(rule) = broken(schedule, None) {
            wrong.push(format!("{name}: clean code breaks {rule}"));
        }
        match broken(schedule, Some(name)) {
            Some(rule) if rule.starts_with(schedule.breaks) => {}
            rule => wrong.push(format!("{name}: it breaks {rule:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
