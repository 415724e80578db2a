//! What happens to the masters of a random run, and to the ways to them.

use super::cluster::Cluster;
use super::dice::Dice;
use super::masters::Masters;

/// The masters of a run.
const MASTERS: u64 = 3;

/// Nodes and masters of a run, and its chain's wanted length.
pub(super) fn beginning(dice: &mut Dice) -> Vec<String> {
    let count = 2 + dice.below(4);
    let replicas = 2 + dice.below(count.min(3) - 1);
    let nodes: Vec<u64> = (1..=count).collect();
    let mut commands: Vec<String> = (1..=count)
        .map(|n| format!("clock {n} {}", [-1_000, 0, 1_000][dice.index(3)]))
        .collect();
    commands.push(format!("nodes {}", super::configs::list(&nodes)));
    commands.push(format!("masters {MASTERS} {replicas}"));
    commands.push("run 1500".to_owned());
    commands
}

/// Something happens to the masters, or is over.
pub(super) fn act(world: &Cluster, dice: &mut Dice) -> Option<String> {
    let masters = world.masters.as_ref()?;
    let m = dice.index(masters.count());
    let nodes: Vec<u64> = world.nodes.keys().copied().collect();
    let n = dice.pick(&nodes)?;
    let late = match dice.below(3) {
        0 => String::new(),
        _ => format!(" late {}", 1 + dice.below(3)),
    };
    Some(match dice.below(26) {
        0..=2 => format!("lead {m}{late}"),
        3 | 4 => format!("usurp {m}{late}"),
        5 => "deposed".to_owned(),
        6 => format!("mcrash {m}"),
        7 => format!("mcut {n} {m}"),
        8 => format!("alone {}", masters.leader().unwrap_or(m)),
        9 => format!("mode {n} {}", ["deaf", "nack"][dice.index(2)]),
        10 => format!(
            "store {}",
            ["down", "empty", "garbage", "back"][dice.index(4)]
        ),
        11 => format!("delay {n} {}", [0, 30, 200, 800][dice.index(4)]),
        12 => format!("commits {}", [0, 50, 400, 1_500][dice.index(4)]),
        13 => format!("mlag {m}"),
        14 => format!("mgo {m}"),
        15 => format!("mheal {n} {m}"),
        16 => "mheal".to_owned(),
        17 | 18 => format!("mode {n} normal"),
        19 => "store up".to_owned(),
        20 | 21 => format!("mstart {m}"),
        // An operator is no faster than the news of a member that lost what it had: M2's evidence is what was reported.
        22 if masters.in_flight() == 0 && masters.knows_all(world) => format!("op remove {n}"),
        22 => return None,
        23 => format!("op add {n}"),
        _ => match masters.leader() {
            Some(_) => "mheal".to_owned(),
            None => format!("lead {m}"),
        },
    })
}

/// All that was done to the masters ends.
pub(super) fn heal(world: &Cluster) -> Vec<String> {
    let Some(masters) = world.masters.as_ref() else {
        return Vec::new();
    };
    let mut commands = vec!["mheal".to_owned(), "store up".into(), "commits 0".into()];
    for m in 0..masters.count() {
        commands.push(format!("mstart {m}"));
        commands.push(format!("mgo {m}"));
    }
    if masters.leader().is_none() {
        commands.push("lead 0".to_owned());
    }
    for n in world.nodes.keys() {
        commands.push(format!("mode {n} normal"));
        commands.push(format!("delay {n} 0"));
    }
    commands
}

/// Another member holds everything, and the leader hears it; nothing is under way that would take it out: then this
/// node's disk may be lost. M2 promises no more: a member that reported and was lost in the same moment is what its
/// evidence cannot know.
pub(super) fn can_lose(masters: &Masters, world: &Cluster, n: u64) -> bool {
    let others = super::configs::whole(world);
    let sound = |o: &u64| *o != n && world.is_running(*o) && masters.is_subscribed(*o);
    masters.in_flight() == 0 && others.iter().any(sound)
}
