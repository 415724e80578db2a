//! What can be asked of the master's state, and what comes of it.
//!
//! Commands are what Raft replicates: self-contained, with the evidence that
//! they rest on, so that applying one is pure and gives the same on every
//! master. They are stored as JSON: a new field needs a serde default.

use std::time::Duration;

use catena_proto::config::{ConfigPosition, Delta, Settings};
use catena_proto::ids::{ClusterId, DiskId, Epoch, Incarnation, NodeId, ShardId};
use serde::{Deserialize, Serialize};

/// A reading of the wall clock, milliseconds since 1970: for people and for budgets, never for safety.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallMs(pub u64);

/// Who wants something done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Controller {
    /// The membership loop.
    Membership,
    /// A person, by the CLI.
    Operator,
    /// The cluster's own beginnings: registration, creation.
    System,
}

/// One command with its cause; the cause goes into the event log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// When the leader proposed it.
    pub at: WallMs,
    /// Who wants it.
    pub by: Controller,
    /// Why, in words for an operator.
    pub cause: String,
    /// What.
    pub change: Change,
}

impl Command {
    /// The same command with other words for the event log.
    pub(super) fn told(&self, cause: &str) -> Self {
        Self {
            cause: cause.to_owned(),
            ..self.clone()
        }
    }
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// The cluster's first command: its name, how its key space is cut, how many copies it wants.
    /// Refused when the state has a cluster of another name already; the same one was only proposed twice.
    CreateCluster {
        /// Its name.
        cluster: ClusterId,
        /// Where one shard ends and the next begins: rising, none empty.
        split_keys: Vec<bytes::Bytes>,
        /// Members wanted in each chain. The chains are created (C4) once as many nodes have registered.
        replicas: usize,
        /// Settings in force from the start.
        settings: Settings,
    },
    /// A node says who and where it is. A new disk id makes it a stranger to the chains that name the old one (C4).
    RegisterNode {
        /// The node.
        node: NodeId,
        /// The disk its folder has now.
        disk: DiskId,
        /// Its gRPC address.
        addr: String,
        /// Its HTTP address.
        http: String,
        /// Its failure domain.
        zone: String,
    },
    /// Every member of a creating chain is confirmed in sync: the next epoch serves (C4). Refused otherwise.
    BeginServing {
        /// The shard.
        shard: ShardId,
        /// Refused if the epoch moved.
        expected_epoch: Epoch,
    },
    /// A member has passed S2. Counts only if all three are the newest (M2).
    ConfirmInSync {
        /// The shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
        /// The epoch in which it is in sync.
        epoch: Epoch,
        /// Its stint.
        joined_epoch: Epoch,
        /// Its disk.
        disk: DiskId,
    },
    /// A confirmed member reports that it is not synced for its present stint any more: its replica was damaged (S1).
    /// It counts as in sync nowhere until it is confirmed again; done already if stint or disk are not the newest.
    /// Whoever proposes this and `ConfirmInSync` keeps the order of the node's reports.
    LoseSync {
        /// The shard.
        shard: ShardId,
        /// The member.
        node: NodeId,
        /// Its stint.
        joined_epoch: Epoch,
        /// Its disk.
        disk: DiskId,
    },
    /// Rules M1 to M3.
    ReconfigureChain {
        /// The shard.
        shard: ShardId,
        /// Refused at apply if the epoch moved.
        expected_epoch: Epoch,
        /// The change.
        step: ChainStep,
    },
    /// A node follows the chain from outside (M4).
    AddLearner {
        /// The shard.
        shard: ShardId,
        /// The node; with the disk that it registered.
        node: NodeId,
    },
    /// It follows no more.
    DropLearner {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// An operator asked for this node as a member: the loop appends it once it has caught up.
    WantMember {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// An operator removed this node from the chain: the loop does not bring it back by itself.
    UnwantMember {
        /// The shard.
        shard: ShardId,
        /// The node.
        node: NodeId,
    },
    /// New settings.
    SetSettings(Settings),
    /// Switches a controller off or on.
    SwitchController {
        /// Its name: `membership`.
        name: String,
        /// Off?
        paused: bool,
    },
    /// The loop saw something that it does not act on (a hold, an alarm), or that is over.
    Note {
        /// What it is about.
        subject: String,
        /// Such as `hold`, `hold-over`, `alarm`, `alarm-over`.
        what: String,
    },
    /// A snapshot of this position is safe in the store: the delta history may be trimmed up to it.
    SnapshotStored(ConfigPosition),
}

/// How a chain changes (M1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChainStep {
    /// Takes members out; a subset of any size, as long as M2 holds for each.
    Remove(Vec<Removal>),
    /// Appends the learner as tail, for a new stint. The previous joiner must be in sync.
    Append {
        /// The node.
        node: NodeId,
        /// The disk that was seen to catch up; refused if another is registered by now.
        disk: DiskId,
    },
    /// The same members in a newer epoch: what a stale last member is brought along with (DESIGN §4.3).
    Reissue,
    /// An operator's way out when every in-sync member is gone (M3): the chain becomes this member alone, in a new
    /// stint that counts as in sync by decree, and what only the others had is lost. Never automatic.
    ///
    /// The chain config carries the epoch as `recovered`. The chosen member takes that as its decree together with the
    /// config; everybody else's log and state count for nothing until they have copied the chain's state anew
    /// (`obey_decree` in `chainnode/src/replica/epochs.rs`). That it is a *new* stint matters: no earlier confirmation
    /// of the member, and no earlier epoch of whoever lost its place, can be taken for one of this.
    Recover {
        /// The member whose data shall count.
        node: NodeId,
    },
}

/// One member to be removed, and why that is safe (M2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// The member.
    pub node: NodeId,
    /// What allows it.
    pub evidence: Evidence,
}

/// What a removal rests on. Times are the proposing leader's monotonic clock, as spans since it became leader:
/// they are compared with each other only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Evidence {
    /// It seems dead: a member that is in sync and stays has reported since its last sign of life.
    SeemsDead {
        /// The member that stays and is in sync.
        survivor: NodeId,
        /// When that one's last report came.
        survivor_reported: Duration,
        /// The suspect's last sign of life.
        last_sign: Duration,
        /// Who says that its link to the suspect is broken.
        witness: NodeId,
    },
    /// It lives (stale, drained, by hand): a fellow that stays and is in sync has reported the current epoch.
    Lives {
        /// The fellow.
        fellow: NodeId,
        /// The epoch that it reported; must be the current one.
        epoch: Epoch,
        /// The start of the fellow that reported.
        incarnation: Incarnation,
    },
    /// It is not in sync: such a member may always be removed.
    Unsynced,
}

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It changed what nodes see: the way from the state before.
    Changed(Delta),
    /// It changed only what masters keep, or nothing (it was done already).
    Kept,
    /// It was refused; the state is as before.
    Refused(Refused),
}

/// Why a command was refused: names the rule and what would help.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    /// The chain moved on since the command was made.
    #[error("shard {shard} is at epoch {held}, the command expected {expected}: look again")]
    EpochMoved {
        /// The shard.
        shard: ShardId,
        /// The epoch it has.
        held: Epoch,
        /// The epoch that was expected.
        expected: Epoch,
    },
    /// No such shard.
    #[error("there is no shard {0}: see `catena chain list`")]
    NoShard(ShardId),
    /// No such node.
    #[error("node {0} is not registered: see `catena node list`")]
    NoNode(NodeId),
    /// Not allowed by a rule.
    #[error("{rule} forbids it: {why}")]
    Rule {
        /// Such as `M2`.
        rule: String,
        /// What would break, and what would help.
        why: String,
    },
    /// It makes no sense in this state.
    #[error("{0}")]
    Invalid(String),
}
