//! A scripted source of configs that keeps to rules M1 to M4, and likes bad moments.

use std::collections::BTreeSet;

use catena_chainnode::stage::World;
use catena_proto::config::Member;
use catena_proto::ids::NodeId;

use super::dice::Dice;

/// What the source remembers.
#[derive(Debug, Default)]
pub(super) struct Configs {
    /// Nodes that were asked to follow.
    learners: BTreeSet<u64>,
    /// Longest chain that it makes.
    length_max: usize,
    /// It appends whoever is outside, without waiting for it to follow first.
    hasty: bool,
}

/// Members of the newest config.
pub(super) fn members(world: &World) -> Vec<u64> {
    world
        .chain()
        .map(|c| c.members.iter().map(|m| m.node.get()).collect())
        .unwrap_or_default()
}

/// The head of the newest config.
pub(super) fn head(world: &World) -> Option<u64> {
    world.chain()?.head().map(|m| m.node).map(NodeId::get)
}

/// Members whose disks hold all that is committed.
pub(super) fn whole(world: &World) -> Vec<u64> {
    let of = |m: &&Member| world.holds_all(m);
    world
        .chain()
        .map(|c| c.members.iter().filter(of).map(|m| m.node.get()).collect())
        .unwrap_or_default()
}

/// Nodes as a script lists them.
pub(super) fn list(nodes: &[u64]) -> String {
    let words: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    words.join(",")
}

fn nodes(world: &World) -> Vec<u64> {
    world.nodes.keys().copied().collect()
}

impl Configs {
    pub(super) fn new(dice: &mut Dice) -> Self {
        Self {
            learners: BTreeSet::new(),
            length_max: 2 + dice.index(4),
            hasty: dice.one_in(4),
        }
    }

    /// Something that a master may do now, or a delivery of something that it did; as a command.
    pub(super) fn act(&mut self, world: &World, dice: &mut Dice) -> Option<String> {
        match dice.below(16) {
            0..=3 => Self::remove(world, dice),
            4..=7 => self.append(world, dice),
            8..=11 => Some(format!("offer {}", dice.pick(&nodes(world))?)),
            12 | 13 => {
                // An older config finds its way to somebody (FAULTS 5).
                let newest = world.chain()?.epoch.get();
                let epoch = 1 + dice.below(newest);
                Some(format!("again {} {epoch}", dice.pick(&nodes(world))?))
            }
            _ => self.follow(world, dice),
        }
    }

    /// M2: any subset goes, as long as somebody who holds everything stays.
    fn remove(world: &World, dice: &mut Dice) -> Option<String> {
        let members = members(world);
        let one = dice.pick(&members);
        let way = dice.below(4);
        let hears =
            |n: u64| one.is_some_and(|m| n == m || !(world.is_cut(n, m) || world.is_cut(m, n)));
        let goes = |n: &u64, dice: &mut Dice| match way {
            0 | 1 => Some(*n) == one,
            // As a master on one side of a cut does: whoever it does not hear goes.
            2 => !hears(*n),
            _ => dice.one_in(2),
        };
        let stay: Vec<u64> = members.iter().copied().filter(|n| !goes(n, dice)).collect();
        let whole = whole(world);
        let safe = whole.iter().any(|n| stay.contains(n));
        (safe && stay.len() < members.len()).then(|| Self::make(world, dice, &stay))
    }

    /// M1, M4: one tail at a time, only when everybody before it is in sync, and mostly one that has followed.
    fn append(&mut self, world: &World, dice: &mut Dice) -> Option<String> {
        let mut members = members(world);
        if members.len() >= self.length_max || whole(world).len() < members.len() {
            return None;
        }
        let outside: Vec<u64> = nodes(world)
            .into_iter()
            .filter(|n| !members.contains(n) && world.is_up(*n))
            .filter(|n| self.hasty || self.learners.contains(n))
            .collect();
        let joiner = dice.pick(&outside)?;
        members.push(joiner);
        self.learners.remove(&joiner);
        Some(Self::make(world, dice, &members))
    }

    /// M4: a node outside follows.
    fn follow(&mut self, world: &World, dice: &mut Dice) -> Option<String> {
        let members = members(world);
        let outside: Vec<u64> = nodes(world)
            .into_iter()
            .filter(|n| !members.contains(n) && world.is_up(*n))
            .collect();
        let n = dice.pick(&outside)?;
        if self.learners.contains(&n) && dice.one_in(4) {
            self.learners.remove(&n);
            return Some(format!("learn {n} off"));
        }
        self.learners.insert(n);
        Some(format!("learn {n}"))
    }

    fn make(world: &World, dice: &mut Dice, members: &[u64]) -> String {
        // Some hear of it at once, others later or from each other (C3); now and then nobody.
        let few = 1 + dice.below(4);
        let to: Vec<u64> = nodes(world)
            .into_iter()
            .filter(|_| !dice.one_in(few))
            .collect();
        let to = if to.is_empty() {
            "nobody".to_owned()
        } else {
            list(&to)
        };
        format!("config {} to {to}", list(members))
    }

    /// A started process is asked to follow again, as its config says.
    pub(super) fn restarted(&self, n: u64) -> Option<String> {
        self.learners.contains(&n).then(|| format!("learn {n}"))
    }

    /// Everybody is told the newest config; who cannot become in sync by itself is taken out: a replaced disk (C4),
    /// and whoever has nobody whole above it (M3).
    pub(super) fn heal(&self, world: &World) -> Vec<String> {
        let all = list(&nodes(world));
        let mut commands = vec![format!("offer {all}")];
        let Some(chain) = world.chain() else {
            return commands;
        };
        let first = chain.members.iter().position(|m| world.holds_all(m));
        let stays = |m: &&Member| world.is_disk_of(m);
        let above = chain.members.iter().skip(first.unwrap_or(0));
        let stay: Vec<u64> = above.filter(stays).map(|m| m.node.get()).collect();
        if first.is_some() && stay.len() < chain.members.len() {
            commands.push(format!("config {} to {all}", list(&stay)));
        }
        commands
    }
}
