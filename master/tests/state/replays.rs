//! Commands that come twice, late, or before their time.

use catena_master::state::{Applied, MasterState};

use crate::script::Play;

fn outcomes(lines: &[&str]) -> Vec<String> {
    let mut play = Play::new();
    let told = lines.iter().flat_map(|l| play.line(l).expect("a command"));
    let told = told.collect();
    play.witness.replays_alike();
    told
}

#[test]
fn nothing_but_creation_is_possible_without_a_cluster() {
    for line in [
        "register 1",
        "pause membership",
        "note hold cluster",
        "lease 300",
        "stored 1",
    ] {
        let told = outcomes(&[line]);
        assert!(
            told[0].starts_with("refused: there is no cluster yet"),
            "{told:?}"
        );
    }
    assert_eq!(MasterState::new().delta_since(Default::default()), None);
}

#[test]
fn a_second_cluster_is_refused_and_the_same_one_is_kept() {
    let told = outcomes(&["create 2", "create 2", "create 2 cluster 8"]);
    assert_eq!(told[1], "kept");
    assert!(told[2].starts_with("refused: the masters have cluster"));
}

#[test]
fn limits_are_refused_before_anything_is_done() {
    for line in ["create 0", "create 8", "create 2 split b a"] {
        assert!(outcomes(&[line])[0].starts_with("refused"), "{line}");
    }
    let told = outcomes(&["create 2", "register 0", "register 1 port 0", "lease 5"]);
    assert!(
        told[1..].iter().all(|t| t.starts_with("refused")),
        "{told:?}"
    );
}

#[test]
fn every_command_that_is_applied_again_changes_nothing() {
    let mut play = Play::new();
    for line in [
        "create 2",
        "register 1",
        "register 2",
        "confirm 1.1",
        "confirm 1.2",
        "begin 1",
        "register 3",
        "learner 1.3",
        "append 1 3",
        "confirm 1.3",
        "remove 1 2 lives by 1",
        "reissue 1",
        "lease 300",
        "pause membership",
        "stored 5",
    ] {
        let told = play.line(line).expect("a command");
        assert!(!told[0].starts_with("refused"), "{line}: {told:?}");
    }
    // The whole log once more, at the end: what an old leader may have left behind.
    let log = play.witness.log.clone();
    let before = play.witness.state.config().cloned();
    for command in log {
        let applied = play.witness.apply(command);
        assert!(!matches!(applied, Applied::Changed(_)), "{applied:?}");
    }
    assert_eq!(play.witness.state.config().cloned(), before);
}
