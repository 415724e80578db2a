//! Random commands, many of them sensible and many not; what must hold of each is in `witness.rs`.

use std::collections::BTreeSet;

use catena_master::state::Controller;
use catena_proto::ids::{NodeId, ShardId};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::script::Play;
use crate::witness::chain;

/// What is drawn for one command: which, and two choices.
type Draw = (u8, u8, u8);

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    proptest::collection::vec((0..48_u8, any::<u8>(), any::<u8>()), 0..120)
}

/// A line of the script for a draw, in a state: mostly something that fits.
fn command(play: &Play, (kind, a, b): Draw) -> String {
    let shard = 1 + u64::from(a) % 2;
    let node = 1 + u64::from(b) % 5;
    let other = 1 + u64::from(a / 2) % 5;
    let at = format!("{shard}.{node}");
    let disk = |node: u64| {
        let config = play.witness.state.config();
        let info = config.and_then(|c| c.nodes.get(&NodeId::new(node)));
        info.map_or(u128::from(node) * 100, |i| i.disk.get())
    };
    let members: Vec<u64> = chain(&play.witness.state, ShardId::new(shard))
        .map(|c| c.members.iter().map(|m| m.node.get()).collect())
        .unwrap_or_default();
    let member = |choice: u8| {
        let at = usize::from(choice) % members.len().max(1);
        members.get(at).copied().unwrap_or(node)
    };
    match kind {
        0..=3 => format!("register {node} disk {}", disk(node)),
        4 => format!("register {node} disk {}", node * 100 + u64::from(a) % 2),
        5 => format!(
            "register {node} disk {} port {}",
            disk(node),
            9_000 + u64::from(a)
        ),
        6..=13 => format!("confirm {shard}.{}", member(b)),
        14 => format!("confirm {shard}.{} epoch {}", member(b), a / 2 % 8),
        15 => format!("confirm {shard}.{} joined {}", member(b), a / 2 % 8),
        16 if b < 100 => format!("lose {shard}.{}", member(b)),
        16..=19 => format!("begin {shard}"),
        20..=22 => format!("remove {shard} {} lives by {}", member(b), member(a / 2)),
        23 | 24 => {
            let (one, two) = (member(b), member(a / 2));
            let (by, witness) = (member(b / 7), member(b / 5));
            format!("remove {shard} {one} dead by {by} witness {witness}, {two} unsynced")
        }
        25 => format!("remove {shard} {} unsynced", member(b)),
        26 => format!(
            "remove {shard} {} dead by {} late",
            member(b),
            member(a / 2)
        ),
        27 => format!(
            "remove {shard} {} lives by {} at {}",
            member(b),
            other,
            a / 2 % 8
        ),
        28..=31 => format!("append {shard} {node} disk {}", disk(node)),
        32 => format!("reissue {shard}"),
        33 => format!("recover {shard} {}", member(b)),
        34..=37 => format!("learner {at}"),
        38 => format!("drop {at}"),
        39 => format!("want {at}"),
        40 => format!("unwant {at}"),
        41 => format!("lease {}", 250 * (u64::from(a) % 4)),
        42 => format!("pause membership because {a}"),
        43 => "resume membership".to_owned(),
        44 => format!("note hold node {node}"),
        45 => format!("stored {}", play.witness.state.position().version.get() / 2),
        46 => "by operator".to_owned(),
        _ => "by loop".to_owned(),
    }
}

fn play(replicas: usize, draws: &[Draw]) -> Play {
    let mut play = Play::new();
    let mut run = |line: &str| play.line(line).map(drop).expect("a command");
    run(&format!("create {replicas} split m"));
    for draw in draws {
        let line = command(&play, *draw);
        play.line(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
    play
}

proptest! {
    #[test]
    fn every_command_keeps_every_rule(replicas in 1..4_usize, draws in draws()) {
        let play = play(replicas, &draws);
        play.witness.every_version_reaches_the_newest();
        play.witness.replays_alike();
    }
}

/// The property above means something only if the random commands get anywhere.
#[test]
fn random_commands_reach_every_action_and_every_rule() {
    let mut runner = TestRunner::deterministic();
    let mut actions = BTreeSet::new();
    let mut rules = BTreeSet::new();
    for replicas in (1..4).cycle().take(120) {
        let tree = draws().new_tree(&mut runner).expect("draws");
        let mut play = play(replicas, &tree.current());
        actions.extend(play.witness.state.events().map(|e| e.action.clone()));
        // Applied once more, each command of the log may be refused: with which rule?
        play.by = Controller::Membership;
        for draw in tree.current() {
            let line = command(&play, draw);
            let Some(why) = play.line(&line).ok().and_then(|l| l.into_iter().next()) else {
                continue;
            };
            for rule in ["M1", "M2", "M3", "M4", "C4", "look again"] {
                if why.starts_with("refused") && why.contains(rule) {
                    rules.insert(rule);
                }
            }
        }
    }
    let wanted = [
        "create-cluster",
        "register",
        "readdress",
        "new-disk",
        "create-chains",
        "serve",
        "confirm-in-sync",
        "lose-sync",
        "remove-member",
        "append-member",
        "reissue",
        "recover",
        "add-learner",
        "drop-learner",
        "want-member",
        "unwant-member",
        "settings",
        "pause",
        "resume",
        "hold",
    ];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|w| !actions.contains(*w))
        .collect();
    assert!(missing.is_empty(), "never reached: {missing:?}");
    assert_eq!(rules.len(), 6, "only {rules:?} were met");
}
