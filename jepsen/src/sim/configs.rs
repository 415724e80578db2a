//! A scripted source of configs that keeps to rules M1 to M3, and chooses bad moments.

use std::collections::BTreeSet;

use catena_chainnode::replica::Input;
use catena_chainnode::stage::World;
use catena_proto::config::{ChainConfig, ChainPhase};
use catena_proto::ids::NodeId;

use super::dice::Dice;

/// What the source remembers: every config that it ever made, for late and doubled deliveries.
#[derive(Debug, Default)]
pub(super) struct Configs {
    made: Vec<ChainConfig>,
    learners: BTreeSet<u64>,
}

/// Members of the newest config.
pub(super) fn members(world: &World) -> Vec<u64> {
    world
        .chain()
        .map(|c| c.members.iter().map(|m| m.node.get()).collect())
        .unwrap_or_default()
}

/// Members that hold all that is committed: synced for the stint that the newest config names, and up.
pub(super) fn synced(world: &World) -> Vec<u64> {
    let Some(chain) = world.chain() else {
        return Vec::new();
    };
    chain
        .members
        .iter()
        .filter(|m| {
            let replica = world
                .nodes
                .get(&m.node.get())
                .and_then(|n| n.replica.as_ref());
            replica.is_some_and(|r| r.is_synced_for(m.disk, m.joined_epoch))
        })
        .map(|m| m.node.get())
        .collect()
}

impl Configs {
    /// The first chain: created, then served.
    pub(super) fn begin(&mut self, world: &mut World, members: &[u64]) {
        world.configure(members, ChainPhase::Creating, members);
        self.remember(world);
        world.stabilize();
        world.configure(members, ChainPhase::Serving, members);
        self.remember(world);
        world.run(250);
    }

    fn remember(&mut self, world: &World) {
        self.made.extend(world.chain().cloned());
    }

    /// Something that a master may do now, or a delivery of something that it did.
    pub(super) fn act(&mut self, world: &mut World, dice: &mut Dice) {
        match dice.below(10) {
            0..=2 => self.remove(world, dice),
            3..=5 => self.append(world, dice),
            6 | 7 => {
                let nodes: Vec<u64> = world.nodes.keys().copied().collect();
                if let Some(n) = dice.pick(&nodes) {
                    world.offer(&[n]);
                }
            }
            8 => {
                // An older config finds its way to somebody (FAULTS 5).
                let nodes: Vec<u64> = world.nodes.keys().copied().collect();
                let at = usize::try_from(dice.below(self.made.len() as u64)).unwrap_or(0);
                if let (Some(n), Some(old)) = (dice.pick(&nodes), self.made.get(at).cloned()) {
                    world.offer_config(n, old);
                }
            }
            _ => self.follow(world, dice),
        }
    }

    /// M1, M2: any subset goes, as long as somebody who is in sync stays.
    fn remove(&mut self, world: &mut World, dice: &mut Dice) {
        let members = members(world);
        let gone: BTreeSet<u64> = members.iter().copied().filter(|_| dice.one_in(3)).collect();
        let stay: Vec<u64> = members
            .iter()
            .copied()
            .filter(|n| !gone.contains(n))
            .collect();
        let safe = synced(world).iter().any(|n| stay.contains(n));
        if gone.is_empty() || !safe {
            return;
        }
        self.make(world, dice, &stay);
    }

    /// M1, M4: one tail at a time, and only when the joiner before it is in sync.
    fn append(&mut self, world: &mut World, dice: &mut Dice) {
        let mut members = members(world);
        if members.len() >= 4 || synced(world).len() < members.len() {
            return;
        }
        let candidates: Vec<u64> = world
            .nodes
            .keys()
            .copied()
            .filter(|n| !members.contains(n))
            .collect();
        // Caught up or not: a joiner far behind is slow, never unsafe.
        let Some(joiner) = dice.pick(&candidates) else {
            return;
        };
        if world.nodes.get(&joiner).is_none_or(|n| n.replica.is_none()) {
            return;
        }
        members.push(joiner);
        self.learners.remove(&joiner);
        self.make(world, dice, &members);
    }

    /// M4: a node outside follows.
    fn follow(&mut self, world: &mut World, dice: &mut Dice) {
        let members = members(world);
        let outside: Vec<u64> = world
            .nodes
            .keys()
            .copied()
            .filter(|n| !members.contains(n))
            .collect();
        if let Some(n) = dice.pick(&outside) {
            self.learners.insert(n);
            world.offer(&[n]);
            world.step(n, Input::Learn(true));
        }
    }

    fn make(&mut self, world: &mut World, dice: &mut Dice, members: &[u64]) {
        // Some hear of it at once, others later or from each other (C3).
        let nodes: Vec<u64> = world.nodes.keys().copied().collect();
        let to: Vec<u64> = nodes.into_iter().filter(|_| !dice.one_in(3)).collect();
        world.configure(members, ChainPhase::Serving, &to);
        self.remember(world);
    }

    /// A started process is asked to follow again, as its config says.
    pub(super) fn restarted(&self, world: &mut World, n: u64) {
        if self.learners.contains(&n) {
            world.step(n, Input::Learn(true));
        }
    }

    /// After the faults: what cannot become in sync is taken out, so that the rest serves (M3 needs somebody synced).
    pub(super) fn heal(&mut self, world: &mut World) {
        let all: Vec<u64> = world.nodes.keys().copied().collect();
        world.offer(&all);
        world.run(3_000);
        let (members, synced) = (members(world), synced(world));
        if synced.len() < members.len() && !synced.is_empty() {
            world.configure(&synced, ChainPhase::Serving, &all);
            self.remember(world);
        }
        world.run(3_000);
    }
}

/// The head of the newest config.
pub(super) fn head(world: &World) -> Option<u64> {
    world.chain()?.head().map(|m| m.node).map(NodeId::get)
}
