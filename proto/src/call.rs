//! What clients ask nodes, and what they are answered, in domain words.
//!
//! The same calls travel one by one (`Kv`) and batched (`KvStream.Pipe`); how
//! they travel is in `conversion::kv` and `conversion::pipe`.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{ChainConfig, KeyRange, NodeInfo};
use crate::errors::Refusal;
use crate::ids::{ClusterId, Epoch, Seq, SessionId, ShardId};
use crate::op::{Command, Outcome, RequestId, Row, WriteOp};

/// A request's name on one pipe: chosen by the client, echoed in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CallId(u64);

impl CallId {
    /// Wraps a raw number.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// How old the answer to a stale read may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StaleBound {
    /// The greatest lag allowed, in milliseconds; `None` sets no bound.
    pub lag_ms_max: Option<u64>,
}

/// The state that a stale read was answered from; zero for linearizable reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Everything up to this `seq` is in it.
    pub applied: Seq,
    /// How long the node had not been told of anything newer, in milliseconds.
    pub lag_ms: u64,
}

/// One request on a pipe; the client has routed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name on this pipe.
    pub id: CallId,
    /// The shard that the client takes to hold the key.
    pub shard: ShardId,
    /// The chain epoch that the client routed by, if it knows one.
    pub epoch: Option<Epoch>,
    /// What is left until the client's deadline; `None` leaves it to the node.
    pub timeout: Option<Duration>,
    /// What is asked.
    pub body: CallBody,
}

/// What a request on a pipe asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallBody {
    /// A read of one key.
    Get {
        /// The key.
        key: Bytes,
        /// `None`: linearizable.
        stale: Option<StaleBound>,
    },
    /// A command for the head.
    Command {
        /// The request's name for ever; `None`: at most once.
        request: Option<RequestId>,
        /// What to do.
        command: Command,
    },
}

/// What a request on a pipe is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The key exists.
    Row {
        /// Its value and version.
        row: Row,
        /// Of stale reads.
        freshness: Freshness,
    },
    /// The key does not exist.
    Absent {
        /// Of stale reads.
        freshness: Freshness,
    },
    /// The command was decided and committed.
    Outcome(Outcome),
    /// There is no answer.
    Refused(Refusal),
}

/// What every unary request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The cluster that the sender means; optional from clients, checked when present.
    pub cluster: Option<ClusterId>,
    /// Whether a node has forwarded it already; it is forwarded once at most.
    pub forwarded: bool,
}

/// A read of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetCall {
    /// Cluster and hops.
    pub header: Header,
    /// The key.
    pub key: Bytes,
    /// `None`: linearizable.
    pub stale: Option<StaleBound>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteCall {
    /// Cluster and hops.
    pub header: Header,
    /// The request's name for ever; `None`: at most once.
    pub request: Option<RequestId>,
    /// The key.
    pub key: Bytes,
    /// The change.
    pub op: WriteOp,
}

/// A visit of a range of keys, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanCall {
    /// Cluster and hops.
    pub header: Header,
    /// The keys; an empty range has no rows.
    pub range: KeyRange,
    /// Most rows; `None` for all.
    pub limit: Option<u64>,
    /// From the last key to the first.
    pub reverse: bool,
    /// `None`: each page is linearizable.
    pub stale: Option<StaleBound>,
}

/// The opening of a session in a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSessionCall {
    /// Cluster and hops.
    pub header: Header,
    /// The shard.
    pub shard: ShardId,
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloseSessionCall {
    /// Cluster and hops.
    pub header: Header,
    /// The shard.
    pub shard: ShardId,
    /// The session.
    pub session: SessionId,
}

/// A question for routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesCall {
    /// Cluster and hops.
    pub header: Header,
    /// The chain that holds this key comes first.
    pub start: Bytes,
    /// Most chains wanted; `None`: as many as fit a page.
    pub chains_max: Option<usize>,
}

/// The answer to a read of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetAnswer {
    /// The shard that holds the key.
    pub shard: ShardId,
    /// Value and version; `None` when the key does not exist.
    pub row: Option<Row>,
    /// Of stale reads.
    pub freshness: Freshness,
}

/// The answer to a change of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteAnswer {
    /// The shard that holds the key.
    pub shard: ShardId,
    /// What was decided and committed.
    pub outcome: Outcome,
}

/// A key, its value and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanRow {
    /// The key.
    pub key: Bytes,
    /// Its value and version.
    pub row: Row,
}

/// One page of a scan; linearizable as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanPage {
    /// The shard that the rows are of.
    pub shard: ShardId,
    /// The rows, in the scan's order.
    pub rows: Vec<ScanRow>,
}

/// A page of routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesPage {
    /// The cluster that the answering node belongs to.
    pub cluster: ClusterId,
    /// Chains in the order of their ranges.
    pub chains: Vec<ChainConfig>,
    /// The nodes that the chains name.
    pub nodes: Vec<NodeInfo>,
    /// Where the next page starts; `None`: this was the last one.
    pub next: Option<Bytes>,
}
