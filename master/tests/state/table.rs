//! The table in `docs/PROTOCOL.md`, "The next shape of a chain": every cell of it is what the state machine does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use catena_master::state::{Applied, Change, Controller, Facts, next_shape};
use catena_proto::config::ChainPhase;
use catena_proto::ids::{NodeId, ShardId};

use crate::script::{Play, shown_refusal};
use crate::witness::chain;

const SHARD: ShardId = ShardId::new(1);
/// The longest chain in the table; longer ones show nothing new.
const MEMBERS: u64 = 3;
/// Outside of every chain of the table; it follows as a learner.
const JOINER: u64 = 9;
const STEPS: [&str; 11] = [
    "remove 1",
    "remove 2",
    "remove 3",
    "remove 1 2",
    "remove 1 3",
    "remove 2 3",
    "remove 1 2 3",
    "append 9",
    "reissue",
    "recover 1",
    "begin serving",
];

#[test]
fn the_table_of_shapes_is_complete_and_true() {
    let mut expected = vec![row("chain", STEPS.map(|s| format!("`{s}`")).into_iter())];
    for phase in [ChainPhase::Serving, ChainPhase::Creating] {
        for members in 1..=MEMBERS {
            for mask in (0..1_u64 << members).rev() {
                let in_sync: BTreeSet<u64> =
                    (1..=members).filter(|n| mask >> (n - 1) & 1 == 1).collect();
                let label = situation(phase, members, &in_sync).shown_members(SHARD);
                let cells = STEPS.map(|step| {
                    let mut play = situation(phase, members, &in_sync);
                    format!("`{}`", cell(&mut play, step, members, &in_sync))
                });
                expected.push(row(&format!("`{label}`"), cells.into_iter()));
            }
        }
    }
    compare("| chain |", expected.iter().map(String::as_str));
}

/// The second table: conditions that the first one takes as met. Each row is played as it stands.
#[test]
fn the_table_of_conditions_is_true() {
    let page = page();
    let rows: Vec<&str> = table(&page, "| before |").into_iter().skip(1).collect();
    assert!(rows.len() > 20, "the table has its rows: {}", rows.len());
    let mut wrong = Vec::new();
    for line in rows {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [before, step, outcome, _why] = cells[..] else {
            panic!("four cells are wanted: {line}");
        };
        let found = condition(before, step);
        if outcome.trim_matches('`') != found {
            wrong.push(format!("{line}\n  the code says: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// `before` is a chain, and commands of the script behind semicolons.
fn condition(before: &str, step: &str) -> String {
    let mut parts = before.split(';').map(|part| part.trim().trim_matches('`'));
    let label = parts.next().expect("a chain");
    let (phase, members) = match label.strip_prefix("creating ") {
        Some(members) => (ChainPhase::Creating, members),
        None => (ChainPhase::Serving, label),
    };
    let members: Vec<&str> = members.split(' ').collect();
    let in_sync = members.iter().filter_map(|m| m.strip_suffix('*'));
    let in_sync = in_sync.map(|m| m.parse().expect("a node")).collect();
    let mut play = situation(phase, members.len() as u64, &in_sync);
    play.by = Controller::Operator;
    for command in parts {
        let lines = play
            .line(command)
            .unwrap_or_else(|e| panic!("{command}: {e}"));
        assert!(
            !lines.iter().any(|l| l.starts_with("refused")),
            "{command}: {lines:?}"
        );
    }
    let step = step.trim_matches('`');
    play.by = if step.ends_with(" by operator") {
        Controller::Operator
    } else {
        Controller::Membership
    };
    apply(&mut play, step.trim_end_matches(" by operator"))
}

/// What becomes of a step of the first table. Removals have the evidence that their members call for.
fn cell(play: &mut Play, step: &str, members: u64, in_sync: &BTreeSet<u64>) -> String {
    let Some(gone) = step.strip_prefix("remove ") else {
        if step == "recover 1" {
            play.by = Controller::Operator;
        }
        return apply(play, step);
    };
    let gone: Vec<u64> = gone
        .split(' ')
        .map(|n| n.parse().expect("a node"))
        .collect();
    let fellow = (1..=members).find(|n| in_sync.contains(n) && !gone.contains(n));
    let removals: Vec<String> = gone
        .iter()
        .map(|n| match (in_sync.contains(n), fellow) {
            (true, Some(fellow)) => format!("{n} lives by {fellow}"),
            // Nobody could say that it lives or is dead.
            (true, None) => format!("{n} dead by {n}"),
            (false, _) => format!("{n} unsynced"),
        })
        .collect();
    apply(play, &format!("remove {}", removals.join(", ")))
}

fn apply(play: &mut Play, step: &str) -> String {
    let held = chain(&play.witness.state, SHARD).expect("a chain").clone();
    let change = if step == "begin serving" {
        Change::BeginServing {
            shard: SHARD,
            expected_epoch: held.epoch,
        }
    } else {
        let step = play.step(SHARD, step).expect("a step");
        Change::ReconfigureChain {
            shard: SHARD,
            expected_epoch: held.epoch,
            step,
        }
    };
    let before = play.witness.state.clone();
    let applied = play
        .witness
        .run(play.by.clone(), "the table", change.clone());
    if let Change::ReconfigureChain { step, .. } = &change {
        // The function by itself says the same as the state that it drives.
        let config = before.config().expect("a cluster");
        let facts = Facts {
            in_sync: before.shard(SHARD).expect("a record").in_sync(),
            by: &play.by,
            nodes: &config.nodes,
            learners: &config.learners,
        };
        let next = chain(&play.witness.state, SHARD).expect("a chain");
        match (&applied, next_shape(&held, step, &facts)) {
            (Applied::Refused(why), Err(said)) => assert_eq!(*why, said),
            (Applied::Changed(_), Ok(shape)) => assert_eq!(*next, shape),
            // What an operator wants is looked at before the shape is.
            (Applied::Refused(why), Ok(_)) => {
                let record = before.shard(SHARD).expect("a record");
                assert!(!record.unwanted().is_empty(), "{why}");
            }
            (applied, shape) => panic!("{applied:?} and {shape:?}"),
        }
    }
    match applied {
        Applied::Refused(why) => shown_refusal(&why),
        _ => play.shown_members(SHARD),
    }
}

/// A chain of `members` members, of which these are in sync, and a learner outside.
fn situation(phase: ChainPhase, members: u64, in_sync: &BTreeSet<u64>) -> Play {
    let mut play = Play::new();
    let mut run = |line: &str| {
        let lines = play.line(line).expect("a command");
        assert!(!lines[0].starts_with("refused"), "{line}: {lines:?}");
    };
    run(&format!("create {members}"));
    for node in 1..=members {
        run(&format!("register {node}"));
    }
    run(&format!("register {JOINER}"));
    if members < 7 {
        run(&format!("learner 1.{JOINER}"));
    }
    let confirmed: BTreeSet<u64> = match phase {
        ChainPhase::Creating => in_sync.clone(),
        ChainPhase::Serving => (1..=members).collect(),
    };
    for node in &confirmed {
        run(&format!("confirm 1.{node}"));
    }
    if phase == ChainPhase::Serving {
        run("begin 1");
        for node in (1..=members).filter(|n| !in_sync.contains(n)) {
            run(&format!("lose 1.{node}"));
        }
    }
    let record = play.witness.state.shard(SHARD).expect("a record");
    let as_asked: BTreeSet<u64> = record.in_sync().iter().map(|n: &NodeId| n.get()).collect();
    assert_eq!(as_asked, *in_sync);
    play
}

fn row(label: &str, cells: impl Iterator<Item = String>) -> String {
    let cells: Vec<String> = cells.collect();
    format!("| {label} | {} |", cells.join(" | "))
}

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    std::fs::read_to_string(path).expect("the page")
}

/// The lines of the table that begins with `head`, without the rule below its heading.
fn table<'a>(page: &'a str, head: &str) -> Vec<&'a str> {
    page.lines()
        .skip_while(|line| !line.starts_with(head))
        .take_while(|line| line.starts_with('|'))
        .filter(|line| !line.starts_with("|--"))
        .collect()
}

fn compare<'a>(head: &str, expected: impl Iterator<Item = &'a str>) {
    let page = page();
    let label = |line: &'a str| line.split(" | ").next().unwrap_or(line);
    let written: BTreeMap<&str, &str> = table(&page, head)
        .into_iter()
        .map(|line| (line.split(" | ").next().unwrap_or(line), line))
        .collect();
    let expected: BTreeMap<&str, &str> = expected.map(|line| (label(line), line)).collect();
    let mut wrong = Vec::new();
    for (label, line) in &expected {
        if written.get(label) != Some(line) {
            let page = written.get(label).unwrap_or(&"(nothing)");
            wrong.push(format!("the page says: {page}\nthe code says: {line}"));
        }
    }
    for (label, line) in &written {
        if !expected.contains_key(label) {
            wrong.push(format!("a row too much: {line}"));
        }
    }
    assert!(wrong.is_empty(), "docs/PROTOCOL.md:\n{}", wrong.join("\n"));
}
