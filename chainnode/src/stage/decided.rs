//! Configs that masters decide: judged by what the oracle knows of all disks at once, and not by what was reported.

use catena_proto::config::{ChainConfig, ChainPhase, Member};
use catena_proto::ids::{DiskId, Incarnation, NodeId};
use catena_proto::limits::LEASE_MAX;

use super::world::World;

impl World {
    /// Masters have decided on this config. Rules C1, M1 and M2 are held against the truth: breaking one is a finding.
    /// Nobody is told: that is up to the masters.
    pub fn decide(&mut self, chain: ChainConfig) {
        if let Some(old) = self.chain.take() {
            self.judge_decision(&old, &chain);
        }
        self.made.push(chain.clone());
        self.chain = Some(chain);
    }

    fn judge_decision(&mut self, old: &ChainConfig, new: &ChainConfig) {
        if new.epoch <= old.epoch {
            let what = format!("epoch {} was decided after {}", new.epoch, old.epoch);
            self.oracle.on_rule("C1: epochs never go back", what);
        }
        if old.phase == ChainPhase::Creating {
            // C4: nobody has served yet, so there is nothing to lose.
            return;
        }
        let kept = |m: &&Member| new.members.contains(m);
        let stay: Vec<Member> = old.members.iter().filter(kept).copied().collect();
        let joins = new.members.len() - stay.len();
        let removes = stay.len() < old.members.len();
        let in_order = new.members.starts_with(&stay);
        let nodes = |chain: &ChainConfig| -> Vec<u64> {
            chain.members.iter().map(|m| m.node.get()).collect()
        };
        let (before, after) = (nodes(old), nodes(new));
        if !in_order || joins > 1 || (removes && joins > 0) {
            let what = format!("{before:?} became {after:?}");
            let rule = "M1: a change removes members, or appends one tail";
            self.oracle.on_rule(rule, what);
        }
        if removes && !stay.iter().any(|m| self.holds_all(m)) {
            let what = format!("{before:?} became {after:?}: no disk that stays holds everything");
            self.oracle.on_rule("M2: never the last in sync", what);
        }
        let waits = old.members.iter().find(|m| !self.was_in_sync(m));
        if let Some(waits) = waits.filter(|_| joins > 0) {
            let what = format!(
                "{before:?} became {after:?}, and node {} was not in sync yet",
                waits.node
            );
            let rule = "M1: nobody is appended until the previous joiner is in sync";
            self.oracle.on_rule(rule, what);
        }
    }

    fn was_in_sync(&self, member: &Member) -> bool {
        self.stints.contains(member)
    }

    /// Notes for which stint a node's disk says that it is synced (S1).
    pub(super) fn note_stint(&mut self, n: u64) {
        let synced = self
            .nodes
            .get(&n)
            .and_then(|node| node.disk.synced_for())
            .map(|(disk, joined_epoch)| Member {
                node: NodeId::new(n),
                disk,
                joined_epoch,
            });
        self.stints.extend(synced);
    }

    /// R2: an answered read, against what the fellows are known to have left behind.
    pub(super) fn judge_lease(&mut self, n: u64) {
        let node = self.nodes.get(&n).and_then(|node| node.replica.as_ref());
        let Some(chain) = node.and_then(|r| r.chain()) else {
            return;
        };
        if chain.members.len() == 1 {
            return;
        }
        let others = chain.members.iter().filter(|m| m.node.get() != n);
        let moved = others.filter_map(|m| self.oracle.moved_beyond(m.node, chain.epoch));
        // ρ at both clocks.
        let lease = LEASE_MAX + LEASE_MAX / 500;
        if let Some(at) = moved.min().filter(|at| self.now.since(*at) > lease) {
            let what = format!(
                "node {n} answered in epoch {}, {:?} after a fellow of it had gone on",
                chain.epoch,
                self.now.since(at)
            );
            let rule = "R2: no read by a removed node after its lease";
            self.oracle.on_rule(rule, what);
        }
    }

    /// The id of the disk that a node has now.
    #[must_use]
    pub fn disk_of(&self, n: u64) -> Option<DiskId> {
        self.nodes.get(&n).map(|node| node.disk_id)
    }

    /// A node's newest start.
    #[must_use]
    pub fn incarnation_of(&self, n: u64) -> Option<Incarnation> {
        let node = self.nodes.get(&n)?;
        Some(Incarnation::new(node.incarnation))
    }
}
