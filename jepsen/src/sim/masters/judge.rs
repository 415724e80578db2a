//! What the masters must never do, held against the truth: the real processes, disks and links, not what was reported.
//!
//! Chains themselves (C1, M1, M2) are judged by the stage when they are decided.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_chainnode::stage::World;
use catena_master::control::SignGone;
use catena_master::control::limits::{EXCLUSION_EVERY, LEARNER_LAG_RECORDS_MAX, out_max};
use catena_master::state::{
    Applied, ChainStep, Change, Command, Controller, Evidence, MasterState, Removal, WallMs,
};
use catena_proto::config::{ChainPhase, ClusterConfig, ConfigPosition};
use catena_proto::ids::{DiskId, Epoch, NodeId, Seq};
use catena_proto::limits::LEASE_MAX;
use catena_proto::time::Mono;

use super::SHARD;
use super::agent::Agent;

/// A witness's link was broken at most this long ago: a report counts for 1.5 s, and travels.
const WITNESSED_WITHIN: Duration = Duration::from_secs(4);
/// A leader that nobody has reached for this long knows it.
const UNREACHED_AFTER: Duration = Duration::from_secs(2);
/// Two turns: what a clock of ours and one of the loop's may differ by.
const TOLERANCE: Duration = Duration::from_millis(50);
/// A process that has been away this long is of no use in anybody's eyes.
const AWAY_AFTER: Duration = Duration::from_secs(4);

/// What is remembered for the rules that look at more than one moment.
#[derive(Debug, Default)]
pub(super) struct Judge {
    /// When each node last reached each master.
    reached: BTreeMap<(u64, usize), Mono>,
    /// Exclusions by the loop since the chain was whole last.
    unhealed: Vec<(WallMs, NodeId)>,
    /// Nodes that the loop took out and nobody appended since.
    out: BTreeSet<NodeId>,
    /// The newest config that each disk held.
    held: BTreeMap<(u64, DiskId), (ConfigPosition, Epoch)>,
    position: ConfigPosition,
}

/// What a leader proposes, with what is true at that moment.
pub(super) struct Proposed<'a> {
    pub(super) master: usize,
    pub(super) state: &'a MasterState,
    pub(super) command: &'a Command,
    pub(super) agents: &'a BTreeMap<u64, Agent>,
    pub(super) cut: &'a BTreeSet<(u64, usize)>,
    /// Messages of some node take their time.
    pub(super) delayed: bool,
}

/// Whether a node's reports truly reach this master now.
fn reaches(
    world: &World,
    agents: &BTreeMap<u64, Agent>,
    cut: &BTreeSet<(u64, usize)>,
    (n, master): (u64, usize),
) -> bool {
    let subscribed = agents.get(&n).and_then(|a| a.subscribed);
    subscribed.is_some_and(|s| s.master == master)
        && !cut.contains(&(n, master))
        && world.is_running(n)
}

/// M4, R4: who is appended by the loop has been up for longer than `L_max`, and is close.
fn judge_append(world: &mut World, proposed: &Proposed<'_>) {
    let Change::ReconfigureChain {
        step: ChainStep::Append { node, .. },
        ..
    } = &proposed.command.change
    else {
        return;
    };
    let n = node.get();
    let Some(agent) = proposed.agents.get(&n) else {
        return;
    };
    // Otherwise the leader may not have heard yet of a start, or of a crash.
    if !reaches(world, proposed.agents, proposed.cut, (n, proposed.master)) || proposed.delayed {
        return;
    }
    let up = world.now.since(agent.started);
    if up + TOLERANCE < LEASE_MAX {
        let what = format!("node {n} is appended {up:?} after its start");
        let rule = "M4, R4: a joiner is up for longer than L_max";
        world.oracle.on_rule(rule, what);
    }
    let durable = world.nodes.get(&n).map_or(Seq::ZERO, |o| o.disk.durable());
    let committed = world
        .oracle
        .committed()
        .last()
        .map_or(Seq::ZERO, |(s, _)| *s);
    let lag = committed.since(durable);
    // Twice what the loop allows: reports are a second old, and a run commits slowly.
    if lag > 2 * LEARNER_LAG_RECORDS_MAX {
        let what = format!("node {n} is appended {lag} records behind");
        world.oracle.on_rule("M4: a joiner is close", what);
    }
}

/// The removals of a command of the loop.
fn exclusions(command: &Command) -> &[Removal] {
    match &command.change {
        Change::ReconfigureChain {
            step: ChainStep::Remove(removals),
            ..
        } if command.by == Controller::Membership => removals,
        _ => &[],
    }
}

impl Judge {
    /// A leader's turn begins: who reaches it?
    pub(super) fn reached(
        &mut self,
        world: &World,
        master: usize,
        agents: &BTreeMap<u64, Agent>,
        cut: &BTreeSet<(u64, usize)>,
    ) {
        for n in agents.keys() {
            if reaches(world, agents, cut, (*n, master)) {
                self.reached.insert((*n, master), world.now);
            }
        }
    }

    fn last_reached(&self, master: usize, of: impl Fn(u64) -> bool) -> Mono {
        let pairs = self.reached.iter();
        let of = pairs.filter(|((n, m), _)| *m == master && of(*n));
        of.map(|(_, at)| *at).max().unwrap_or(Mono::ZERO)
    }

    /// No exclusion for death without a witness, and none by a leader that is cut off.
    pub(super) fn proposed(&self, world: &mut World, proposed: &Proposed<'_>) {
        let Some(config) = proposed.state.config() else {
            return;
        };
        let Some(chain) = config.chains.get(&SHARD) else {
            return;
        };
        judge_append(world, proposed);
        for removal in exclusions(proposed.command) {
            let node = removal.node;
            let n = node.get();
            let registered = config.nodes.get(&node).map(|info| info.disk);
            let entry = chain.members.iter().find(|m| m.node == node);
            let other_disk = entry.map(|m| m.disk) != registered;
            if other_disk || chain.phase == ChainPhase::Creating {
                continue;
            }
            let why = &proposed.command.cause;
            let reached = self.last_reached(proposed.master, |_| true);
            if world.now.since(reached) > UNREACHED_AFTER {
                let what = format!(
                    "nobody reaches master {}, it excludes node {n}: {why}",
                    proposed.master
                );
                let rule = "SUSPICION_HOLD: a leader that is cut off excludes nobody";
                world.oracle.on_rule(rule, what);
            }
            // A death by the loop's own word, or of somebody that it cannot have heard for long.
            let signs = [SignGone::NeverCame, SignGone::Broken, SignGone::Silent];
            let death = signs.iter().any(|sign| why.contains(sign.as_str()));
            let lately = self.last_reached(proposed.master, |o| o == n);
            if !death && world.now.since(lately) <= WITNESSED_WITHIN {
                continue;
            }
            let recent = |at: &Mono| world.now.since(*at) <= WITNESSED_WITHIN;
            let saw = |agent: &Agent| agent.found_broken.get(&n).is_some_and(recent);
            let mut fellows = proposed.agents.iter().filter(|(f, _)| **f != n);
            let witnessed = fellows.any(|(_, agent)| saw(agent));
            if !witnessed {
                let what =
                    format!("node {n} is excluded, and no fellow's link to it was broken: {why}");
                world
                    .oracle
                    .on_rule("a death needs a witness (DESIGN §4.3)", what);
            }
        }
    }

    /// A command was committed: budgets, and the state's own positions.
    pub(super) fn committed(
        &mut self,
        world: &mut World,
        agents: &BTreeMap<u64, Agent>,
        after: &MasterState,
        before: Option<&ClusterConfig>,
        command: &Command,
        applied: &Applied,
    ) {
        let position = after.position();
        if position < self.position {
            let what = format!("{:?} came after {:?}", position, self.position);
            world.oracle.on_rule("C1: positions never go back", what);
        }
        self.position = position;
        if !matches!(applied, Applied::Changed(_)) {
            return self.heal(after);
        }
        if let Change::ReconfigureChain {
            step: ChainStep::Append { node, .. },
            ..
        } = &command.change
        {
            self.out.remove(node);
        }
        let creating = before
            .and_then(|c| c.chains.get(&SHARD))
            .is_none_or(|c| c.phase == ChainPhase::Creating);
        for removal in exclusions(command) {
            if !creating {
                self.excluded(world, agents, after, command, removal);
            }
        }
        self.heal(after);
    }

    fn excluded(
        &mut self,
        world: &mut World,
        agents: &BTreeMap<u64, Agent>,
        after: &MasterState,
        command: &Command,
        removal: &Removal,
    ) {
        let node = removal.node;
        let every = u64::try_from(EXCLUSION_EVERY.as_millis()).unwrap_or(u64::MAX);
        let soon = |at: &WallMs| command.at.0.abs_diff(at.0) < every;
        let other = self
            .unhealed
            .iter()
            .find(|(at, other)| *other != node && soon(at));
        if let Some((at, other)) = other {
            let ms = command.at.0.abs_diff(at.0);
            let what = format!(
                "node {node} is excluded {ms} ms after node {other}: {}",
                command.cause
            );
            world
                .oracle
                .on_rule("budget: one exclusion each 10 s", what);
        }
        self.unhealed.push((command.at, node));
        self.out.insert(node);
        let away = |n: &NodeId| {
            let looked = agents.get(&n.get()).map_or(Mono::ZERO, |a| a.looked);
            world.now.since(looked) > AWAY_AFTER
        };
        let others = self.out.iter().filter(|n| **n != node && away(n)).count();
        let registered = after.config().map_or(0, |c| c.nodes.len());
        if others >= out_max(registered) && removal.evidence != Evidence::Unsynced {
            let what = format!(
                "node {node} is excluded while {others} of {registered} nodes are out and away"
            );
            world
                .oracle
                .on_rule("budget: never past half of the nodes", what);
        }
    }

    /// A chain that is whole has healed.
    fn heal(&mut self, after: &MasterState) {
        let chain = after.config().and_then(|c| c.chains.get(&SHARD));
        let record = after.shard(SHARD);
        let whole = chain.zip(record).is_some_and(|(chain, record)| {
            let in_sync = chain
                .members
                .iter()
                .all(|m| record.in_sync().contains(&m.node));
            chain.members.len() >= after.replicas_wanted() && in_sync
        });
        if whole {
            self.unhealed.clear();
        }
    }

    /// What nodes hold never goes back (C1).
    pub(super) fn look(&mut self, world: &mut World, agents: &BTreeMap<u64, Agent>) {
        for (n, agent) in agents {
            let epoch = agent
                .config
                .chains
                .get(&SHARD)
                .map_or(Epoch::ZERO, |c| c.epoch);
            let now = (agent.config.position, epoch);
            let held = self.held.entry((*n, agent.disk)).or_insert(now);
            if now.0 < held.0 || now.1 < held.1 {
                let what = format!("node {n} went from {held:?} back to {now:?}");
                world
                    .oracle
                    .on_rule("C1: a node's config never goes back", what);
            }
            *held = now;
        }
    }
}
