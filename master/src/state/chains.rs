//! What happens to one shard: confirmations, changes of its chain, learners, and what operators want.

use std::collections::BTreeSet;
use std::sync::Arc;

use catena_proto::config::{ChainConfig, DeltaItem, Learner, NodeInfo};
use catena_proto::ids::{DiskId, Epoch, NodeId, ShardId};

use super::command::{Applied, ChainStep, Command, Controller, Evidence, Refused, Removal};
use super::shape::{self, Facts};
use super::{MasterState, Mutant, ShardRecord};

/// Learners of one shard, an operator's included: a source serves no more than that (`chainnode/src/replica/downlink.rs`).
pub const LEARNERS_PER_SHARD_MAX: usize = 4;
/// Learners of one shard that the membership loop adds: one copy at a time is what a chain is slowed down by least.
pub const LEARNERS_PER_SHARD_BY_LOOP: usize = 1;

impl MasterState {
    pub(super) fn begin_serving(
        &mut self,
        command: &Command,
        shard: ShardId,
        expected: Epoch,
    ) -> Result<Applied, Refused> {
        let chain = self.chain_at(shard, expected)?;
        let next = shape::begin_serving(chain, self.record(shard)?.in_sync())?;
        let delta = self.replace_chain(next, None)?;
        self.log(command, "serve", &format!("shard {shard}"));
        Ok(delta)
    }

    /// M2: counts only if epoch, stint and disk are the newest.
    pub(super) fn confirm_in_sync(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
        epoch: Epoch,
        stint: (DiskId, Epoch),
    ) -> Result<Applied, Refused> {
        let chain = self.chain_at(shard, epoch)?;
        let is_stint = |entry: &catena_proto::config::Member| {
            entry.node == node && (entry.disk, entry.joined_epoch) == stint
        };
        let disk = self.seen().nodes.get(&node).map(|info| info.disk);
        if !chain.members.iter().any(is_stint) || disk != Some(stint.0) {
            return Err(shape::rule(
                "M2",
                format!(
                    "node {node} with disk {} and a stint from epoch {} is no member of shard {shard} now: it reports \
                     again once it is in sync for its newest stint",
                    stint.0, stint.1
                ),
            ));
        }
        if self.record_mut(shard)?.in_sync.insert(node) {
            self.log_member(command, "confirm-in-sync", shard, node);
        }
        Ok(Applied::Kept)
    }

    pub(super) fn lose_sync(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
        (disk, joined_epoch): (DiskId, Epoch),
    ) -> Result<Applied, Refused> {
        let member = self.chain(shard)?.member(node, disk);
        let is_stint = member.is_some_and(|m| m.joined_epoch == joined_epoch);
        if is_stint && self.record_mut(shard)?.in_sync.remove(&node) {
            self.log_member(command, "lose-sync", shard, node);
        }
        Ok(Applied::Kept)
    }

    pub(super) fn reconfigure_chain(
        &mut self,
        command: &Command,
        shard: ShardId,
        expected: Epoch,
        step: &ChainStep,
    ) -> Result<Applied, Refused> {
        let chain = self.chain_at(shard, expected)?;
        if let ChainStep::Append { node, .. } = step {
            self.check_unwanted(command, shard, *node)?;
        }
        let config = self.seen();
        let everybody: BTreeSet<NodeId> = chain.members.iter().map(|m| m.node).collect();
        let planted = match step {
            ChainStep::Append { .. } => self.planted(Mutant::AppendBeforeInSync),
            ChainStep::Remove(_) => self.planted(Mutant::LastInSyncRemoved),
            _ => false,
        };
        let facts = Facts {
            in_sync: match planted {
                true => &everybody,
                false => self.record(shard)?.in_sync(),
            },
            by: &command.by,
            nodes: &config.nodes,
            learners: &config.learners,
        };
        let next = shape::next_shape(chain, step, &facts)?;
        let learners = match step {
            ChainStep::Append { node, .. } | ChainStep::Recover { node } => {
                Some(self.learners_without(shard, *node))
            }
            _ => None,
        };
        let applied = self.replace_chain(next, learners)?;
        match step {
            ChainStep::Remove(removals) => {
                for removal in removals {
                    self.log_removal(command, shard, removal);
                }
            }
            ChainStep::Append { node, .. } => {
                let record = self.record_mut(shard)?;
                record.wanted.remove(node);
                record.unwanted.remove(node);
                self.log_member(command, "append-member", shard, *node);
            }
            ChainStep::Reissue => self.log(command, "reissue", &format!("shard {shard}")),
            ChainStep::Recover { node } => {
                // M3: in sync by decree: its data counts from now on, and no step may leave it out (M2).
                let record = self.record_mut(shard)?;
                record.in_sync.insert(*node);
                record.wanted.remove(node);
                record.unwanted.remove(node);
                self.log_member(command, "recover", shard, *node);
            }
        }
        Ok(applied)
    }

    pub(super) fn add_learner(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
    ) -> Result<Applied, Refused> {
        let chain = self.chain(shard)?;
        let info = self.registered(node)?;
        if chain.position(node).is_some() {
            return Err(shape::entry_exists(chain, info));
        }
        if chain.members.len() >= catena_proto::limits::CHAIN_MEMBERS_MAX {
            return Err(shape::full(chain));
        }
        self.check_unwanted(command, shard, node)?;
        let disk = info.disk;
        let of_shard = self.seen().learners.iter().filter(|l| l.shard == shard);
        let mut learners: Vec<Learner> = of_shard.copied().collect();
        if learners.iter().any(|l| l.node == node) {
            return Ok(Applied::Kept);
        }
        let most = match command.by {
            Controller::Operator => LEARNERS_PER_SHARD_MAX,
            Controller::Membership | Controller::System => LEARNERS_PER_SHARD_BY_LOOP,
        };
        if learners.len() >= most {
            return Err(Refused::Invalid(format!(
                "shard {shard} has {} learners, of at most {most}: wait until one is a member, or drop one",
                learners.len()
            )));
        }
        learners.push(Learner { shard, node, disk });
        learners.sort();
        let delta = self.publish(vec![DeltaItem::Learners(shard, learners)]);
        self.log_member(command, "add-learner", shard, node);
        Ok(Applied::Changed(delta))
    }

    pub(super) fn drop_learner(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
    ) -> Result<Applied, Refused> {
        self.chain(shard)?;
        let mut learners = self.seen().learners.iter();
        if !learners.any(|l| l.shard == shard && l.node == node) {
            return Ok(Applied::Kept);
        }
        let delta = self.publish(vec![self.learners_without(shard, node)]);
        self.log_member(command, "drop-learner", shard, node);
        Ok(Applied::Changed(delta))
    }

    pub(super) fn want_member(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
    ) -> Result<Applied, Refused> {
        let disk = self.registered(node)?.disk;
        let is_member = self.chain(shard)?.member(node, disk).is_some();
        let record = self.record_mut(shard)?;
        let forgiven = record.unwanted.remove(&node);
        let wanted = !is_member && record.wanted.insert(node);
        if forgiven || wanted {
            self.log_member(command, "want-member", shard, node);
        }
        Ok(Applied::Kept)
    }

    pub(super) fn unwant_member(
        &mut self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
    ) -> Result<Applied, Refused> {
        self.registered(node)?;
        let record = self.record_mut(shard)?;
        record.wanted.remove(&node);
        if record.unwanted.insert(node) {
            self.log_member(command, "unwant-member", shard, node);
        }
        Ok(Applied::Kept)
    }

    /// The loop does not bring back by itself what an operator removed, whatever it has on its way.
    fn check_unwanted(
        &self,
        command: &Command,
        shard: ShardId,
        node: NodeId,
    ) -> Result<(), Refused> {
        if command.by != Controller::Operator && self.record(shard)?.unwanted.contains(&node) {
            return Err(Refused::Invalid(format!(
                "an operator removed node {node} from shard {shard}: `catena chain add-member` takes that back"
            )));
        }
        Ok(())
    }

    /// C1: puts the next config of a chain in force; whoever stays in the same stint stays in sync.
    fn replace_chain(
        &mut self,
        next: ChainConfig,
        learners: Option<DeltaItem>,
    ) -> Result<Applied, Refused> {
        let held = self.chain(next.shard)?.clone();
        assert_eq!(
            next.epoch,
            held.epoch.next(),
            "C1: each change of a chain raises its epoch by one"
        );
        self.record_mut(next.shard)?.carry_over(&held, &next);
        let items = std::iter::once(DeltaItem::Chain(next)).chain(learners);
        Ok(Applied::Changed(self.publish(items.collect())))
    }

    fn chain_at(&self, shard: ShardId, expected: Epoch) -> Result<&ChainConfig, Refused> {
        let chain = self.chain(shard)?;
        if chain.epoch != expected {
            return Err(Refused::EpochMoved {
                shard,
                held: chain.epoch,
                expected,
            });
        }
        Ok(chain)
    }

    fn registered(&self, node: NodeId) -> Result<&NodeInfo, Refused> {
        let config: &Arc<_> = self.seen();
        config.nodes.get(&node).ok_or(Refused::NoNode(node))
    }

    fn record(&self, shard: ShardId) -> Result<&ShardRecord, Refused> {
        self.shards.get(&shard).ok_or(Refused::NoShard(shard))
    }

    fn record_mut(&mut self, shard: ShardId) -> Result<&mut ShardRecord, Refused> {
        self.shards.get_mut(&shard).ok_or(Refused::NoShard(shard))
    }

    fn log_member(&mut self, command: &Command, action: &str, shard: ShardId, node: NodeId) {
        self.log(command, action, &format!("shard {shard} node {node}"));
    }

    /// The log says what the removal rested on: whoever asks why has it all in one line.
    fn log_removal(&mut self, command: &Command, shard: ShardId, removal: &Removal) {
        let evidence = match &removal.evidence {
            Evidence::SeemsDead {
                survivor,
                survivor_reported,
                last_sign,
                witness,
            } => format!(
                "seems dead: last sign at {} ms, node {survivor} reported at {} ms, witness node {witness}",
                last_sign.as_millis(),
                survivor_reported.as_millis()
            ),
            Evidence::Lives { fellow, epoch, .. } => {
                format!("node {fellow} is in sync and reported epoch {epoch}")
            }
            Evidence::Unsynced => "not in sync".to_owned(),
        };
        let told = command.told(&format!("{} ({evidence})", command.cause));
        self.log_member(&told, "remove-member", shard, removal.node);
    }
}
