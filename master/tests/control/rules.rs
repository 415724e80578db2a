//! What the loop may never do, checked at every call of every scenario and property, from the observations and not
//! from the loop's own words.

use std::collections::BTreeSet;

use catena_master::control::{Action, MEMBERSHIP, Observed, limits};
use catena_master::state::{ChainStep, Change, Evidence, MasterState, WallMs};
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::time::Mono;

/// What must be remembered between calls.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    exclusions: Vec<(WallMs, NodeId, ShardId)>,
}

impl Rules {
    pub(crate) fn check(
        &mut self,
        state: &MasterState,
        observed: &Observed,
        now: Mono,
        wall: WallMs,
        actions: &[Action],
    ) {
        let commands = actions.iter().filter_map(|action| match action {
            Action::Propose(command) => Some(command),
            Action::PushAgain(_) => None,
        });
        let mut reconfigured = BTreeSet::new();
        let mut gone: BTreeSet<NodeId> = BTreeSet::new();
        for command in commands {
            let takes_over = matches!(
                command.change,
                Change::ConfirmInSync { .. }
                    | Change::LoseSync { .. }
                    | Change::BeginServing { .. }
            );
            assert!(
                takes_over || !state.is_paused(MEMBERSHIP),
                "a paused loop proposes nothing of its own: {command:?}"
            );
            let Change::ReconfigureChain {
                shard,
                expected_epoch,
                step,
            } = &command.change
            else {
                continue;
            };
            assert!(reconfigured.insert(*shard), "one change a shard");
            let chain = &state.config().expect("created").chains[shard];
            assert_eq!(*expected_epoch, chain.epoch);
            let ChainStep::Remove(removals) = step else {
                continue;
            };
            for removal in removals {
                let node = removal.node;
                gone.insert(node);
                assert_ne!(command.cause, "");
                never_the_last_in_sync(state, *shard, node);
                witnessed(state, observed, now, *shard, node, &removal.evidence);
                self.within_budget(state, wall, node, &removal.evidence);
                self.exclusions.push((wall, node, *shard));
            }
        }
        assert!(gone.len() <= 1, "never two at once: {gone:?}");
    }

    fn within_budget(&self, state: &MasterState, wall: WallMs, node: NodeId, evidence: &Evidence) {
        for (at, other, shard) in &self.exclusions {
            let recent = u128::from(wall.0.abs_diff(at.0)) < limits::EXCLUSION_EVERY.as_millis();
            let config = state.config().expect("created");
            let chain = &config.chains[shard];
            let in_sync = state.shard(*shard).expect("a record").in_sync();
            let whole = chain.members.len() >= state.replicas_wanted()
                && chain.members.iter().all(|m| in_sync.contains(&m.node));
            assert!(
                *other == node || !recent || whole,
                "budget: node {node} goes while node {other} went lately from shard {shard}: {chain:?}"
            );
        }
        if *evidence == Evidence::Unsynced {
            return; // It is no loss, and may be what keeps its chain from healing.
        }
        let config = state.config().expect("created");
        let serves = |n: &NodeId| config.chains.values().any(|c| c.position(*n).is_some());
        // Once it is gone everywhere, at most half of the nodes (one in any case) may have been taken out for good.
        let taken: BTreeSet<NodeId> = self.exclusions.iter().map(|(_, n, _)| *n).collect();
        let out = taken.iter().filter(|n| **n != node && !serves(n)).count();
        let unhealed = config
            .chains
            .values()
            .any(|c| c.members.len() < state.replicas_wanted());
        assert!(
            !unhealed || out < limits::out_max(config.nodes.len()).max(1),
            "budget: {out} nodes are out already, and node {node} would go as well"
        );
    }
}

fn never_the_last_in_sync(state: &MasterState, shard: ShardId, node: NodeId) {
    let in_sync = state.shard(shard).expect("a record").in_sync();
    let chain = &state.config().expect("created").chains[&shard];
    let creating = chain.phase == catena_proto::config::ChainPhase::Creating;
    let stays = in_sync.iter().any(|n| *n != node);
    assert!(
        stays || creating,
        "M2: shard {shard} would lose node {node}, its last in-sync member"
    );
}

/// A node that is gone goes only with a witness and without a contradiction; one that reports only if a report (its
/// own, or a fellow's about the link to it) shows what is wrong with it.
fn witnessed(
    state: &MasterState,
    observed: &Observed,
    now: Mono,
    shard: ShardId,
    node: NodeId,
    evidence: &Evidence,
) {
    let config = state.config().expect("created");
    let chain = &config.chains[&shard];
    let registered = config.nodes.get(&node).map(|info| info.disk);
    if chain
        .members
        .iter()
        .any(|m| m.node == node && Some(m.disk) != registered)
    {
        return; // C4: it said itself that it is another one by now.
    }
    let about: Vec<bool> = observed
        .nodes()
        .filter(|(n, seen)| *n != node && seen.is_reporting(now))
        .filter(|(_, seen)| {
            let at = seen.last.as_ref().map_or(Mono::ZERO, |r| r.at);
            at > observed.last_sign(node) || observed.is_reporting(node, now)
        })
        .filter_map(|(_, seen)| seen.link(node).map(|l| l.alive))
        .collect();
    if observed.is_reporting(node, now) {
        let seen = observed.node(node).expect("it reports");
        let behind = seen.acked < state.position() || seen.effective < state.position();
        let replica = seen.replica(shard).map(|r| r.epoch) != Some(chain.epoch);
        let own = seen
            .last
            .as_ref()
            .is_some_and(|r| r.report.links.iter().any(|l| !l.alive));
        let cut = own || about.contains(&false);
        let refuses = seen.refusal.is_some();
        // S2: a head that says that it lost its data repairs from nobody.
        let is_head = chain.members.first().is_some_and(|m| m.node == node);
        let lost = is_head && seen.replica(shard).is_some_and(|r| !r.synced);
        assert!(
            behind || replica || cut || refuses || lost,
            "node {node} is well and is excluded from shard {shard}"
        );
    } else {
        assert!(
            about.contains(&false) && !about.contains(&true),
            "node {node} is excluded without a witness, or against one: {about:?}"
        );
        let in_service: BTreeSet<NodeId> = config
            .chains
            .values()
            .flat_map(|c| c.members.iter().map(|m| m.node))
            .collect();
        let unseen = in_service.iter().filter(|n| {
            let seen = observed.node(**n);
            seen.is_none_or(|s| !s.is_connected() || s.is_silent(now))
        });
        assert!(
            unseen.count() * 2 <= in_service.len(),
            "FAULTS 20: most nodes are out of this leader's sight and it acts on node {node}"
        );
    }
    if let Evidence::SeemsDead {
        survivor,
        survivor_reported,
        last_sign,
        ..
    } = evidence
    {
        assert!(survivor_reported > last_sign, "M2");
        let in_sync = state.shard(shard).expect("a record").in_sync();
        assert!(in_sync.contains(survivor) && *survivor != node, "M2");
    }
}
