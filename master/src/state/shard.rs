//! What the masters know of a shard beyond what nodes see: who is in sync, and whom an operator wants.

use std::collections::BTreeSet;

use catena_proto::config::ChainConfig;
use catena_proto::ids::NodeId;
use serde::{Deserialize, Serialize};

/// A shard's record. Its chain and its learners are in the cluster config.
///
/// # Why "in sync" outlives an epoch
///
/// A member is confirmed once, for a stint (disk and `joined_epoch`), and stays
/// so in every later epoch in which that stint goes on. That is safe: at the
/// moment of S2 its log was durable up to a point that covers all that was
/// committed, and a commit in any epoch since needed every member of that epoch,
/// itself among them, to be durable; L2 never cuts at or below what is
/// committed. So it holds all that is committed for as long as its disk does and
/// its stint lasts. The model (`jepsen/src/model/fine`) takes the same notion:
/// there, too, a stint is synced, not an epoch.
///
/// Three things end it: the stint (a removal), the disk (a registration with
/// another one, C4), and a report that the replica is damaged (S1, `LoseSync`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// Members confirmed in sync for their present stint (M2); a subset of the chain's members.
    pub(super) in_sync: BTreeSet<NodeId>,
    /// Removed by an operator: the loop does not bring these back. Never shares a node with `wanted`.
    pub(super) unwanted: BTreeSet<NodeId>,
    /// Asked for by an operator and not appended yet.
    pub(super) wanted: BTreeSet<NodeId>,
}

impl ShardRecord {
    /// Members that are in sync for their present stint (M2).
    #[must_use]
    pub const fn in_sync(&self) -> &BTreeSet<NodeId> {
        &self.in_sync
    }

    /// Nodes that an operator removed: the membership loop leaves them out.
    #[must_use]
    pub const fn unwanted(&self) -> &BTreeSet<NodeId> {
        &self.unwanted
    }

    /// Nodes that an operator asked for and that are not members yet.
    #[must_use]
    pub const fn wanted(&self) -> &BTreeSet<NodeId> {
        &self.wanted
    }

    /// Takes over what still holds when `next` follows `held`: only stints that go on.
    pub(super) fn carry_over(&mut self, held: &ChainConfig, next: &ChainConfig) {
        self.in_sync.retain(|node| {
            let stint =
                |chain: &ChainConfig| chain.members.iter().find(|m| m.node == *node).copied();
            stint(next).is_some() && stint(next) == stint(held)
        });
    }
}
