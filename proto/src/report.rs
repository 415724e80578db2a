//! What a node tells the master about itself: the *monitor* of the closed loop (DESIGN §4.3).
//!
//! A report is a statement of one incarnation at one moment. The master never
//! takes it for more: what counts as in sync names epoch, stint and disk (M2).

use std::time::Duration;

use crate::config::{ConfigPosition, Role};
use crate::ids::{ClusterId, DiskId, Epoch, Incarnation, NodeId, Seq, ShardId};

/// Who opens a subscription, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOpen {
    /// Its cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// The disk that its folder has now.
    pub disk: DiskId,
    /// The present start.
    pub incarnation: Incarnation,
    /// Its gRPC address, `host:port`.
    pub addr: String,
    /// Its HTTP address, `host:port`.
    pub http: String,
    /// Its failure domain; empty when unset.
    pub zone: String,
    /// The state it holds; deltas are wanted from here on.
    pub position: ConfigPosition,
    /// The version of its program.
    pub version: String,
}

/// What a replica is to its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// A member with this role.
    Member(Role),
    /// It follows from outside.
    Learner,
    /// It was removed, or its disk is not the one that the chain names.
    Outside,
}

impl Standing {
    /// The word used in JSON, tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Member(role) => role.as_str(),
            Self::Learner => "learner",
            Self::Outside => "none",
        }
    }
}

/// One replica of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaReport {
    /// The shard.
    pub shard: ShardId,
    /// The epoch in force on the replica.
    pub epoch: Epoch,
    /// `joined_epoch` of its entry in that epoch; zero when it has none.
    pub joined_epoch: Epoch,
    /// What it is to its chain.
    pub standing: Standing,
    /// Synced for its present stint (S1).
    pub synced: bool,
    /// In sync in this epoch (S2).
    pub in_sync: bool,
    /// The end of its log.
    pub last: Seq,
    /// Durable up to here.
    pub durable: Seq,
    /// Its commit point.
    pub commit: Seq,
    /// In the state up to here.
    pub applied: Seq,
    /// Stopped by an alarm (C2, L2).
    pub fenced: bool,
    /// Would answer a linearizable read now.
    pub serving_reads: bool,
    /// What it waits for; empty when nothing.
    pub why: String,
}

/// How a node sees the link to a fellow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// The fellow.
    pub fellow: NodeId,
    /// Something was heard within the link's silence limit.
    pub alive: bool,
    /// Since the last frame; `None` when nothing was ever heard.
    pub silent: Option<Duration>,
}

/// The state of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Counts the reports of an incarnation from 1.
    pub no: u64,
    /// The newest state that it accepted and persisted.
    pub acked: ConfigPosition,
    /// The newest state that is in force on every replica that it names.
    pub effective: ConfigPosition,
    /// Where its config came from: `disk`, `snapshot`, `push` or `peer`.
    pub config_source: String,
    /// Its replicas, by shard.
    pub replicas: Vec<ReplicaReport>,
    /// Its links with fellows of its chains.
    pub links: Vec<LinkReport>,
    /// Its disk is full: it takes no writes.
    pub read_only: bool,
    /// Since the start of this incarnation.
    pub uptime: Duration,
    /// Alarms: name and detail.
    pub alarms: Vec<(String, String)>,
}

/// An item of a push that a node did not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemRefused {
    /// Its place in the delta.
    pub index: usize,
    /// Why, for people.
    pub reason: String,
}

/// What became of a push; items that are not named were accepted and persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOutcome {
    /// The state that the push led to.
    pub to: ConfigPosition,
    /// What was refused.
    pub refused: Vec<ItemRefused>,
}

/// What a node says on its subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFrame {
    /// First of all: who it is.
    Open(NodeOpen),
    /// How it is.
    Report(Report),
    /// What became of a push.
    Outcome(PushOutcome),
}

/// What the master says on a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MasterFrame {
    /// The way to a newer state.
    Push(crate::config::Delta),
    /// The history does not reach back far enough: read the snapshot store, or fetch.
    ReadSnapshot(ConfigPosition),
    /// Nothing to push.
    Alive,
}
