//! Admissions: spares and returning nodes follow as learners, and are appended when they have caught up (M4).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use catena_proto::config::{ChainConfig, ChainPhase};
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::limits::CHAIN_MEMBERS_MAX;

use super::act::Turn;
use super::discrepancy::Discrepancy;
use super::limits::{LEARNERS_PER_NODE_MAX, SPARE_AFTER};
use crate::state::{ChainStep, Change, ShardRecord};

/// Drops learners that make no sense, appends those that have caught up, and looks for new ones where members lack.
pub(super) fn run(turn: &mut Turn<'_>) {
    let dropped = drop_useless(turn);
    append(turn);
    let mut load = Load::of(turn, &dropped);
    wanted(turn, &mut load);
    fill(turn, &dropped, &mut load);
}

fn drop_useless(turn: &mut Turn<'_>) -> BTreeSet<(ShardId, NodeId)> {
    let mut dropped = BTreeSet::new();
    for discrepancy in turn.found {
        if let Discrepancy::UselessLearner { shard, node, .. } = discrepancy {
            let (shard, node) = (*shard, *node);
            dropped.insert((shard, node));
            turn.propose(discrepancy.to_string(), Change::DropLearner { shard, node });
        }
    }
    dropped
}

fn append(turn: &mut Turn<'_>) {
    for discrepancy in turn.found {
        let Discrepancy::CaughtUp {
            shard, node, disk, ..
        } = discrepancy
        else {
            continue;
        };
        if turn.is_well(*node) {
            let step = ChainStep::Append {
                node: *node,
                disk: *disk,
            };
            turn.reconfigure(*shard, discrepancy.to_string(), step);
        }
    }
}

/// What each node has to carry, with what this call adds.
struct Load {
    /// Chains that it is a member or a learner of.
    chains: BTreeMap<NodeId, usize>,
    /// Chains that it follows.
    follows: BTreeMap<NodeId, usize>,
    /// Shards that have a learner.
    begun: BTreeSet<ShardId>,
}

impl Load {
    fn of(turn: &Turn<'_>, dropped: &BTreeSet<(ShardId, NodeId)>) -> Self {
        let mut load = Self {
            chains: BTreeMap::new(),
            follows: BTreeMap::new(),
            begun: BTreeSet::new(),
        };
        let chains = turn.config.chains.values();
        for member in chains.flat_map(|chain| &chain.members) {
            *load.chains.entry(member.node).or_default() += 1;
        }
        for learner in &turn.config.learners {
            if !dropped.contains(&(learner.shard, learner.node)) {
                load.add(learner.node);
                load.begun.insert(learner.shard);
            }
        }
        load
    }

    fn add(&mut self, node: NodeId) {
        *self.chains.entry(node).or_default() += 1;
        *self.follows.entry(node).or_default() += 1;
    }

    fn chains(&self, node: NodeId) -> usize {
        self.chains.get(&node).copied().unwrap_or(0)
    }

    fn may_follow(&self, node: NodeId) -> bool {
        self.follows.get(&node).copied().unwrap_or(0) < LEARNERS_PER_NODE_MAX
    }
}

/// Nodes that an operator asked for follow, whatever the chain's length.
fn wanted(turn: &mut Turn<'_>, load: &mut Load) {
    let shards: Vec<(ShardId, NodeId)> = turn
        .desired
        .shards()
        .flat_map(|(shard, record)| record.wanted().iter().map(|node| (*shard, *node)))
        .collect();
    for (shard, node) in shards {
        let Some(chain) = turn.config.chains.get(&shard) else {
            continue;
        };
        // One copy at a time is what a chain is slowed down by least; the state holds the loop to it.
        if !load.begun.contains(&shard)
            && is_free(turn, chain, node)
            && load.may_follow(node)
            && turn.is_well(node)
        {
            load.add(node);
            load.begun.insert(shard);
            let cause = format!("an operator wants node {node} as a member of shard {shard}");
            turn.propose(cause, Change::AddLearner { shard, node });
        }
    }
}

/// A node for each chain that lacks members: one that was there lately (its log is close), else the spare with the
/// fewest chains, in another zone if there is one.
fn fill(turn: &mut Turn<'_>, dropped: &BTreeSet<(ShardId, NodeId)>, load: &mut Load) {
    for discrepancy in turn.found {
        let Discrepancy::Short { shard, .. } = discrepancy else {
            continue;
        };
        let shard = *shard;
        let Some((chain, record)) = turn
            .config
            .chains
            .get(&shard)
            .zip(turn.desired.shard(shard))
        else {
            continue;
        };
        if turn.is_changed(shard) || load.begun.contains(&shard) {
            continue;
        }
        let spares_too = turn.lasting(discrepancy) >= SPARE_AFTER || record.in_sync().len() < 2;
        let Some((node, lately)) = choose(turn, chain, record, dropped, load, spares_too) else {
            continue;
        };
        load.add(node);
        load.begun.insert(shard);
        let what = if lately {
            "was a member lately"
        } else {
            "is spare"
        };
        let cause = format!("{discrepancy}; node {node} reports and {what}");
        turn.propose(cause, Change::AddLearner { shard, node });
    }
}

/// Who is to follow, and whether it was a member lately.
fn choose(
    turn: &Turn<'_>,
    chain: &ChainConfig,
    record: &ShardRecord,
    dropped: &BTreeSet<(ShardId, NodeId)>,
    load: &Load,
    spares_too: bool,
) -> Option<(NodeId, bool)> {
    let shard = chain.shard;
    let zones: BTreeSet<&str> = chain
        .members
        .iter()
        .filter_map(|m| turn.config.nodes.get(&m.node))
        .map(|info| info.zone.as_str())
        .filter(|zone| !zone.is_empty())
        .collect();
    let candidates = turn.config.nodes.values().filter_map(|info| {
        let node = info.node;
        let left = turn.history.left.get(&(shard, node)).copied();
        let may = (left.is_some() || spares_too)
            && is_free(turn, chain, node)
            && !dropped.contains(&(shard, node))
            && !record.unwanted().contains(&node)
            && load.may_follow(node)
            && turn.history.flap_wait(node, turn.wall).is_none()
            && turn.is_well(node);
        may.then_some((
            Reverse(left),
            zones.contains(info.zone.as_str()),
            load.chains(node),
            node,
        ))
    });
    let (left, _, _, node) = candidates.min()?;
    Some((node, left.0.is_some()))
}

/// Neither a member (under any disk) nor a learner of a chain that serves and has room.
fn is_free(turn: &Turn<'_>, chain: &ChainConfig, node: NodeId) -> bool {
    let mut learners = turn.config.learners.iter();
    chain.phase == ChainPhase::Serving
        && chain.members.len() < CHAIN_MEMBERS_MAX
        && chain.position(node).is_none()
        && !learners.any(|l| l.shard == chain.shard && l.node == node)
}
