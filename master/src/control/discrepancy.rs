//! Differences between what is desired and what is observed, and since when.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use catena_proto::config::ConfigPosition;
use catena_proto::ids::{DiskId, Epoch, NodeId, ShardId};
use catena_proto::time::Mono;

/// What the leader misses of a node that seems dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignGone {
    /// It never subscribed to this leader.
    NeverCame,
    /// Its subscription broke.
    Broken,
    /// It is connected and reports nothing.
    Silent,
}

impl SignGone {
    /// As it stands in a cause, after "node 3".
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverCame => "has not subscribed to this leader",
            Self::Broken => "has lost its subscription",
            Self::Silent => "is connected and reports nothing",
        }
    }
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discrepancy {
    /// A creating chain is whole and in sync, and does not serve yet (C4).
    Created {
        /// The shard.
        shard: ShardId,
        /// Its epoch.
        epoch: Epoch,
    },
    /// A member reported in sync, and the state does not know (M2).
    InSyncUnconfirmed {
        /// The shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
        /// The epoch of the chain and of the report.
        epoch: Epoch,
        /// Its stint.
        joined_epoch: Epoch,
        /// Its disk.
        disk: DiskId,
    },
    /// A member that counts as in sync reports that it is not, for the same stint: it found its data damaged (S1).
    SyncLost {
        /// The shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
        /// Its stint.
        joined_epoch: Epoch,
        /// Its disk.
        disk: DiskId,
    },
    /// A member gives no sign of life; whether it is dead needs a witness.
    SeemsDead {
        /// The node.
        node: NodeId,
        /// What is missed.
        sign: SignGone,
    },
    /// Neighbours that both report, of which at least one does not hear the other (FAULTS 19).
    LinkBroken {
        /// The one with the lower id.
        low: NodeId,
        /// The other.
        high: NodeId,
    },
    /// A connected node holds, or has in force, an older state than the desired one.
    Stale {
        /// The node.
        node: NodeId,
        /// The desired state.
        wanted: ConfigPosition,
        /// What it has persisted.
        acked: ConfigPosition,
        /// What is in force there.
        effective: ConfigPosition,
    },
    /// A connected member's replica is in an older epoch than its chain, whatever the node has acked.
    ReplicaStale {
        /// The node.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The chain's epoch.
        wanted: Epoch,
        /// The replica's; zero when the node reports no such replica.
        held: Epoch,
    },
    /// A connected node refuses what it is sent.
    Refusing {
        /// The node.
        node: NodeId,
        /// The state that the push led to.
        to: ConfigPosition,
        /// Its reason.
        reason: String,
    },
    /// A member entry names a disk that its node has no more: it never comes back as it is (C4).
    WrongDisk {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
        /// The disk that the chain names.
        named: DiskId,
        /// The disk that is registered.
        registered: DiskId,
    },
    /// The head is not synced and others are: it never becomes so by itself (S2), and the chain waits for it.
    HeadUnsynced {
        /// The shard.
        shard: ShardId,
        /// The head.
        node: NodeId,
    },
    /// A chain has fewer members than wanted.
    Short {
        /// The shard.
        shard: ShardId,
        /// Members it has.
        members: usize,
        /// Members wanted.
        wanted: usize,
    },
    /// A learner has caught up and may become the tail (M4).
    CaughtUp {
        /// The shard.
        shard: ShardId,
        /// The learner.
        node: NodeId,
        /// Its disk.
        disk: DiskId,
        /// Records that it lacks, by the latest reports.
        lag: u64,
    },
    /// A learner that will never be, or need not be, a member.
    UselessLearner {
        /// The shard.
        shard: ShardId,
        /// The learner.
        node: NodeId,
        /// Why.
        why: UselessWhy,
    },
    /// The last member in sync is stale or refuses: it is never excluded (DESIGN §4.3).
    LastInSyncStale {
        /// The shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
    },
    /// No member in sync gives a sign of life: the chain waits for one (M3).
    Blocked {
        /// The shard.
        shard: ShardId,
    },
}

/// Why a learner makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UselessWhy {
    /// Its node is not registered, or gives no sign of life.
    Gone,
    /// Its disk is not the registered one.
    DiskChanged,
    /// The chain has its length.
    ChainFull,
    /// An operator removed it.
    Unwanted,
}

impl UselessWhy {
    /// As it stands in a cause.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "its node is gone",
            Self::DiskChanged => "its node has another disk by now",
            Self::ChainFull => "the chain has all the members that it wants",
            Self::Unwanted => "an operator removed it",
        }
    }
}

/// What makes two discrepancies of different moments the same one. What a node *holds* is part of it: a node that
/// moves forward, however late, is not stuck, and its time starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: &'static str,
    shard: Option<ShardId>,
    node: Option<NodeId>,
    detail: Detail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Detail {
    None,
    Held(ConfigPosition),
    Epoch(Epoch),
    Fellow(NodeId),
    Why(UselessWhy),
}

impl Discrepancy {
    /// Its kind in a word, for tables and metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::InSyncUnconfirmed { .. } => "in-sync-unconfirmed",
            Self::SyncLost { .. } => "sync-lost",
            Self::SeemsDead { .. } => "seems-dead",
            Self::LinkBroken { .. } => "link-broken",
            Self::Stale { .. } => "stale",
            Self::ReplicaStale { .. } => "replica-stale",
            Self::Refusing { .. } => "refusing",
            Self::WrongDisk { .. } => "wrong-disk",
            Self::HeadUnsynced { .. } => "head-unsynced",
            Self::Short { .. } => "short",
            Self::CaughtUp { .. } => "caught-up",
            Self::UselessLearner { .. } => "useless-learner",
            Self::LastInSyncStale { .. } => "last-in-sync-stale",
            Self::Blocked { .. } => "blocked",
        }
    }

    /// The shard that it concerns, if it is one shard's.
    #[must_use]
    pub const fn shard(&self) -> Option<ShardId> {
        match self {
            Self::SeemsDead { .. }
            | Self::LinkBroken { .. }
            | Self::Stale { .. }
            | Self::Refusing { .. } => None,
            Self::Created { shard, .. }
            | Self::InSyncUnconfirmed { shard, .. }
            | Self::SyncLost { shard, .. }
            | Self::ReplicaStale { shard, .. }
            | Self::WrongDisk { shard, .. }
            | Self::HeadUnsynced { shard, .. }
            | Self::Short { shard, .. }
            | Self::CaughtUp { shard, .. }
            | Self::UselessLearner { shard, .. }
            | Self::LastInSyncStale { shard, .. }
            | Self::Blocked { shard } => Some(*shard),
        }
    }

    /// The node that it concerns, if it is one node's.
    #[must_use]
    pub const fn node(&self) -> Option<NodeId> {
        match self {
            Self::Created { .. } | Self::Short { .. } | Self::Blocked { .. } => None,
            Self::LinkBroken { low, .. } => Some(*low),
            Self::InSyncUnconfirmed { node, .. }
            | Self::SyncLost { node, .. }
            | Self::SeemsDead { node, .. }
            | Self::Stale { node, .. }
            | Self::ReplicaStale { node, .. }
            | Self::Refusing { node, .. }
            | Self::WrongDisk { node, .. }
            | Self::HeadUnsynced { node, .. }
            | Self::CaughtUp { node, .. }
            | Self::UselessLearner { node, .. }
            | Self::LastInSyncStale { node, .. } => Some(*node),
        }
    }

    fn key(&self) -> Key {
        let detail = match self {
            // The lesser: a node that accepts everything and puts nothing in force does not move.
            Self::Stale {
                acked, effective, ..
            } => Detail::Held((*acked).min(*effective)),
            Self::ReplicaStale { held, .. } => Detail::Epoch(*held),
            Self::LinkBroken { high, .. } => Detail::Fellow(*high),
            Self::UselessLearner { why, .. } => Detail::Why(*why),
            _ => Detail::None,
        };
        Key {
            kind: self.kind(),
            shard: self.shard(),
            node: self.node(),
            detail,
        }
    }
}

impl fmt::Display for Discrepancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Created { shard, epoch } => write!(
                f,
                "every member of shard {shard} is in sync in its creating epoch {epoch}"
            ),
            Self::InSyncUnconfirmed {
                shard, node, epoch, ..
            } => write!(f, "node {node} is in sync in shard {shard}, epoch {epoch}"),
            Self::SyncLost { shard, node, .. } => write!(
                f,
                "node {node} reports that its replica of shard {shard} is not synced any more (S1)"
            ),
            Self::SeemsDead { node, sign } => write!(f, "node {node} {}", sign.as_str()),
            Self::LinkBroken { low, high } => {
                write!(f, "the link of nodes {low} and {high} is broken")
            }
            Self::Stale {
                node,
                wanted,
                acked,
                effective,
                ..
            } => write!(
                f,
                "node {node} stays behind: version {} is wanted, it has accepted {} and {} is in force",
                wanted.version, acked.version, effective.version
            ),
            Self::ReplicaStale {
                node,
                shard,
                wanted,
                held,
                ..
            } => write!(
                f,
                "node {node} stays behind: its replica of shard {shard} is in epoch {held}, the chain in {wanted}"
            ),
            Self::Refusing { node, to, reason } => {
                write!(f, "node {node} refuses version {}: {reason}", to.version)
            }
            Self::WrongDisk {
                shard,
                node,
                named,
                registered,
            } => write!(
                f,
                "node {node} has disk {registered} by now, shard {shard} names disk {named} (C4)"
            ),
            Self::HeadUnsynced { shard, node } => write!(
                f,
                "node {node} heads shard {shard} and is not synced: it has nobody to repair from (S2)"
            ),
            Self::Short {
                shard,
                members,
                wanted,
            } => write!(f, "shard {shard} has {members} of {wanted} wanted members"),
            Self::CaughtUp {
                shard, node, lag, ..
            } => write!(
                f,
                "learner {node} of shard {shard} has caught up to {lag} records"
            ),
            Self::UselessLearner { shard, node, why } => {
                write!(f, "learner {node} of shard {shard}: {}", why.as_str())
            }
            Self::LastInSyncStale { shard, node } => write!(
                f,
                "node {node} stays behind and is the last in-sync member of shard {shard}"
            ),
            Self::Blocked { shard } => {
                write!(f, "no in-sync member of shard {shard} gives a sign of life")
            }
        }
    }
}

/// Since when each present discrepancy has been there. The caller holds it and gives it every comparison.
#[derive(Clone, Debug, Default)]
pub struct Since {
    first_seen: BTreeMap<Key, Mono>,
}

impl Since {
    /// Takes in a comparison of `now`: what is new begins, what is not among them any more is forgotten.
    pub fn note(&mut self, found: &[Discrepancy], now: Mono) {
        let before = std::mem::take(&mut self.first_seen);
        self.first_seen = found
            .iter()
            .map(|d| {
                let key = d.key();
                (key, before.get(&key).copied().unwrap_or(now))
            })
            .collect();
    }

    /// When it was first seen without a break since; `None` if the last comparison did not have it.
    #[must_use]
    pub fn of(&self, discrepancy: &Discrepancy) -> Option<Mono> {
        self.first_seen.get(&discrepancy.key()).copied()
    }

    /// How long it has been there; zero if it is new.
    #[must_use]
    pub fn lasting(&self, discrepancy: &Discrepancy, now: Mono) -> Duration {
        self.of(discrepancy)
            .map_or(Duration::ZERO, |since| now.since(since))
    }
}
