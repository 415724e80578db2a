//! The configs of a stage: made, offered, and held to rules M as a master would.

use catena_proto::config::{ChainConfig, ChainPhase, KeyRange, Member, accept_chain};
use catena_proto::ids::{Epoch, NodeId, Seq};

use super::world::{SHARD, World};
use crate::replica::Input;

impl World {
    /// The newest config that was made.
    #[must_use]
    pub const fn chain(&self) -> Option<&ChainConfig> {
        self.chain.as_ref()
    }

    /// Makes the next config (members that stay keep their stint) and offers it to some nodes.
    pub fn configure(&mut self, members: &[u64], phase: ChainPhase, to: &[u64]) {
        let epoch = self
            .chain
            .as_ref()
            .map_or(Epoch::new(1), |c| c.epoch.next());
        let old = self.chain.take();
        let member = |n: &u64| {
            let (node, disk) = (NodeId::new(*n), self.nodes.get(n)?.disk_id);
            // C4: whoever stays keeps its entry, also when its disk was replaced meanwhile.
            let stays = old
                .as_ref()
                .and_then(|c| c.members.iter().find(|m| m.node == node))
                .copied();
            Some(stays.unwrap_or(Member {
                node,
                disk,
                joined_epoch: epoch,
            }))
        };
        let members: Vec<Member> = members.iter().filter_map(member).collect();
        if let Some(old) = &old {
            self.judge(old, &members);
        }
        let range = KeyRange::all();
        let chain = ChainConfig {
            shard: SHARD,
            epoch,
            range,
            phase,
            recovered: old.as_ref().map_or(Epoch::ZERO, |c| c.recovered),
            members,
        };
        self.made.push(chain.clone());
        self.chain = Some(chain);
        self.offer(to);
    }

    /// M3: an operator makes this member's data count, and offers that to everybody.
    pub fn recover(&mut self, node: u64) -> Option<()> {
        let old = self.chain.take()?;
        let epoch = old.epoch.next();
        let member = old.members.iter().find(|m| m.node.get() == node)?;
        let chain = ChainConfig {
            epoch,
            recovered: epoch,
            members: vec![Member {
                joined_epoch: epoch,
                ..*member
            }],
            ..old
        };
        self.made.push(chain.clone());
        self.chain = Some(chain);
        let all: Vec<u64> = self.nodes.keys().copied().collect();
        self.offer(&all);
        Some(())
    }

    /// Rules M1 and M2, as a master would keep them.
    fn judge(&mut self, old: &ChainConfig, members: &[Member]) {
        let synced = |m: &Member| self.holds_all(m);
        let kept = members.iter().filter(|m| old.members.contains(m)).count();
        let in_order = old
            .members
            .iter()
            .filter(|m| members.contains(m))
            .eq(members.iter().take(kept));
        let removes = kept < old.members.len();
        let foul = if !in_order || members.len() > kept + 1 || (removes && members.len() > kept) {
            Some("M1: a change removes members, or appends one tail")
        } else if removes && !members.iter().any(synced) {
            Some("M2: a removal leaves a member that is in sync")
        } else if members.len() > kept && !old.members.iter().all(synced) {
            Some("M1: nobody is appended until the previous joiner is in sync")
        } else {
            None
        };
        self.foul = self.foul.or(foul);
    }

    /// Whether the member's disk holds all that is committed: synced for the stint that its entry names (S1).
    #[must_use]
    pub fn holds_all(&self, member: &Member) -> bool {
        self.nodes.get(&member.node.get()).is_some_and(|node| {
            let synced = node.disk.synced_for();
            // A process that found damage knows it before its disk does.
            let knows_better = node
                .replica
                .as_ref()
                .is_some_and(|r| !r.is_synced_for(member.disk, member.joined_epoch));
            node.disk_id == member.disk
                && synced == Some((member.disk, member.joined_epoch))
                && !knows_better
        })
    }

    /// Whether the node still has the disk that the member's entry names (C4).
    #[must_use]
    pub fn is_disk_of(&self, member: &Member) -> bool {
        let node = self.nodes.get(&member.node.get());
        node.is_some_and(|node| node.disk_id == member.disk)
    }

    /// A disk's content is about to be lost: that is only survivable while another member holds everything.
    pub(super) fn judge_loss(&mut self, n: u64) {
        let chain = self.chain.as_ref();
        let others = chain.map_or(0, |c| {
            let others = c.members.iter().filter(|m| m.node.get() != n);
            others.filter(|m| self.holds_all(m)).count()
        });
        let member = chain.is_some_and(|c| c.position(NodeId::new(n)).is_some());
        if member && others == 0 {
            self.foul = self.foul.or(Some("M3: the last copy is lost"));
        }
    }

    /// A runtime trims no log above what the replica needs.
    pub(super) fn judge_trim(&mut self, n: u64, to: Seq) {
        let replica = self.nodes.get(&n).and_then(|node| node.replica.as_ref());
        if replica.is_none_or(|r| to > r.log_floor()) {
            self.foul = self.foul.or(Some("a log is trimmed above its floor"));
        }
    }

    /// What was done against rules M, if anything: a rule that breaks afterwards proves nothing.
    #[must_use]
    pub const fn foul(&self) -> Option<&'static str> {
        self.foul
    }

    /// The config of an epoch, if one was made.
    #[must_use]
    pub fn made(&self, epoch: Epoch) -> Option<&ChainConfig> {
        self.made.iter().find(|c| c.epoch == epoch)
    }

    /// Offers the newest config to some nodes.
    pub fn offer(&mut self, to: &[u64]) {
        let Some(chain) = self.chain.clone() else {
            return;
        };
        for n in to {
            self.step(*n, Input::Config(chain.clone()));
        }
    }

    /// Offers a config of any epoch, as an older or a wrong source would.
    pub fn offer_config(&mut self, n: u64, chain: ChainConfig) {
        debug_assert!(
            accept_chain(None, &chain).is_ok(),
            "a stage plays well-formed configs"
        );
        self.step(n, Input::Config(chain));
    }
}
