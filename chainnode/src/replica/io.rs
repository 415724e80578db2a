//! The one way into a replica and the one way out: plain data both ways.
//!
//! `Input` is everything that can happen to a replica; `Outputs` is everything
//! it asks its runtime to do. The disk is asynchronous in this model: a
//! [`Persist`] goes out, an [`Input::Persisted`] comes in, and a crash can fall
//! between them. Nothing that has to wait for durability goes out before that
//! input came in, so a runtime may carry outputs out in any order, except that
//! `persist` and `apply` are queues, and messages to one node stay in order.

use bytes::Bytes;
use catena_proto::config::{ChainConfig, ConfigError};
use catena_proto::ids::{
    DiskId, Epoch, Incarnation, LinkId, LogGeneration, LogTime, NodeId, Origin, Seq, ShardId,
};
use catena_proto::message::{Message, OriginSpan, SessionState, StatePage, StateRow};
use catena_proto::op::{Command, Outcome, RequestId};
use catena_proto::record::Group;
use catena_proto::time::Mono;

use super::meta::Meta;

/// Who a replica is: constant while its process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Its folder.
    pub disk: DiskId,
    /// This start.
    pub incarnation: Incarnation,
    /// The shard that it replicates.
    pub shard: ShardId,
}

/// The lease settings in force (rules R); they may change at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// L, in milliseconds; at most `L_max`.
    pub lease_ms: u32,
    /// Time between rounds, in milliseconds.
    pub round_ms: u32,
}

/// Numbers the metadata that a replica asks to persist, from 1, rising.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MetaNo(pub u64);

/// What a process finds of a replica when it starts.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The newest persisted metadata; `None` if this disk never held the replica.
    pub meta: Option<Meta>,
    /// The state's progress, from the engine.
    pub state: StateProgress,
    /// The sessions at the state's applied position, from the engine.
    pub sessions: Vec<SessionState>,
    /// The log holds records after this position.
    pub log_start: Seq,
    /// The end of the log; already made durable (rule L5). `log_start` if it is empty.
    pub log_end: Seq,
    /// Origins of the retained log, in order, and of `log_start` if the log knows it.
    pub origins: Vec<OriginSpan>,
    /// The log's groups after `state.applied`, contiguous up to `log_end`.
    pub groups: Vec<Group>,
    /// The log's generation.
    pub generation: LogGeneration,
    /// What the log or the engine found damaged; the replica starts unsynced.
    pub damage: Option<String>,
}

/// How far the state in the engine has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateProgress {
    /// Records up to here are in the state.
    pub applied: Seq,
    /// The origin of the record at `applied`.
    pub applied_origin: Option<Origin>,
    /// The replicated clock at `applied`.
    pub log_time: LogTime,
    /// Rows may be newer than `applied`, up to here.
    pub merge_until: Seq,
    /// A scan is under way.
    pub scan: Option<ScanCursor>,
}

/// Where a scan goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanCursor {
    /// The last key copied; `None` before the first.
    pub after: Option<Bytes>,
    /// The next page's number.
    pub page_no: u64,
}

/// Everything that can happen to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A chain config is offered, from whatever source; rules C1 and C2 are checked here.
    Config(ChainConfig),
    /// The node is (or is no longer) asked to follow this chain as a learner (rule M4).
    Learn(bool),
    /// A fellow's message arrived.
    Message {
        /// The fellow; the runtime has checked cluster and node.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// The stream to this fellow broke: messages sent to it may be lost.
    LinkLost {
        /// The fellow.
        to: NodeId,
    },
    /// Clients' requests, in order; all that the inbox holds.
    Requests(Vec<Request>),
    /// The log has made durable everything asked for up to and including these.
    Persisted {
        /// The generation that `durable` counts in; an older one is ignored (rule L3).
        generation: LogGeneration,
        /// The last `seq` of the newest durable group of that generation (or the cut's or reset's position).
        durable: Seq,
        /// The newest metadata that is durable.
        meta: MetaNo,
    },
    /// The engine has applied records up to `applied`; those up to `flushed` survive a crash (none while a scan
    /// is under way: a copy that is not whole is nothing).
    Applied {
        /// Visible to reads.
        applied: Seq,
        /// Survives a crash.
        flushed: Seq,
    },
    /// The engine has written a scan's page (see [`Apply::Page`]).
    PageApplied {
        /// The page.
        page_no: u64,
    },
    /// The answer to a [`LogRead`].
    LogRead {
        /// The link that wanted it.
        link: LinkId,
        /// Contiguous groups, starting with the one after the position asked for; empty if the log no longer has it.
        groups: Vec<Group>,
    },
    /// The answer to a [`PageRead`].
    PageRead {
        /// The follower.
        to: NodeId,
        /// The page.
        page: Box<StatePage>,
    },
    /// The runtime trimmed the log: it holds records after this position only.
    LogTrimmed {
        /// The new start.
        start: Seq,
    },
    /// The disk has no room for more (or has again): the head refuses writes early.
    ReadOnly(bool),
    /// Settings changed.
    Settings(LeaseSettings),
    /// A timer that [`Outputs::timers`] set has come due.
    Timer(Timer),
}

/// A replica's timers; setting one again replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// The head starts the next lease round.
    Round,
    /// Something unanswered is said again: Hello, Announce, Follow.
    Retry,
    /// A debt runs out.
    Debt,
}

/// Where an answer goes: chosen by the runtime, opaque here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyTo {
    /// The connection.
    pub connection: u64,
    /// The request on it.
    pub request: u64,
}

/// A client's request to the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Where the answer goes.
    pub reply_to: ReplyTo,
    /// Its name for exactly-once; `None` is at most once.
    pub id: Option<RequestId>,
    /// What to do.
    pub command: Command,
    /// The key's row as the runtime read it, for commands that need it ([`catena_proto::op::WriteOp::needs_prior`]).
    pub prior: Option<Prior>,
    /// When it is worth nothing any more: it is refused before any work.
    pub deadline: Mono,
}

/// A key's row as read from the engine before a request was handed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prior {
    /// The replica's applied position *before* the engine was read: the row is at least this new.
    pub as_of: Seq,
    /// Value and version; `None` if the key is absent.
    pub row: Option<catena_proto::op::Row>,
}

/// Everything a replica asks for. Reused by the caller from step to step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// For the log, in order.
    pub persist: Vec<Persist>,
    /// For fellows; messages to one node stay in order.
    pub send: Vec<Send>,
    /// For the engine, in order.
    pub apply: Vec<Apply>,
    /// For clients.
    pub replies: Vec<Reply>,
    /// Timers to set.
    pub timers: Vec<(Timer, Mono)>,
    /// Parts of the log to read for a follower that is far behind.
    pub log_reads: Vec<LogRead>,
    /// Pages of state to read for a follower that scans.
    pub page_reads: Vec<PageRead>,
    /// What an operator would want in the log; alarms among them.
    pub events: Vec<Event>,
}

impl Outputs {
    /// Empties every queue and keeps their memory.
    pub fn clear(&mut self) {
        self.persist.clear();
        self.send.clear();
        self.apply.clear();
        self.replies.clear();
        self.timers.clear();
        self.log_reads.clear();
        self.page_reads.clear();
        self.events.clear();
    }
}

/// Something to make durable. The order in the queue is the order in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Persist {
    /// Append a group.
    Append(Group),
    /// Everything after this position is void (rule L2).
    Cut {
        /// The last position kept.
        after: Seq,
        /// The log's generation from here on (rule L3).
        generation: LogGeneration,
    },
    /// The log starts anew behind this position: a scan replaces the state.
    Reset {
        /// The next record is the one after it.
        base: Seq,
        /// The origin of the record at `base`.
        origin: Origin,
        /// The log's generation from here on.
        generation: LogGeneration,
    },
    /// New metadata.
    Meta {
        /// Its number, for [`Input::Persisted`].
        no: MetaNo,
        /// The metadata.
        meta: Meta,
    },
}

/// A message to a fellow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Send {
    /// The fellow.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// Something for the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// Committed records, in `seq` order; answered by [`Input::Applied`].
    Groups {
        /// The records. Consecutive outputs are contiguous.
        groups: Vec<Group>,
        /// Rows may be newer than these records: compare versions up to here.
        merge_until: Seq,
    },
    /// Forget the state: a scan begins. Its sessions come with page 0.
    Wipe,
    /// A page of a scan; answered by [`Input::PageApplied`].
    Page {
        /// The rows.
        rows: Vec<StateRow>,
        /// All sessions, with the first page.
        sessions: Option<Vec<SessionState>>,
        /// The progress that stands once the page is in (with the cursor behind it; without one after the last page).
        progress: StateProgress,
        /// The page's number.
        page_no: u64,
    },
}

/// An answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Where it goes.
    pub to: ReplyTo,
    /// The committed outcome, or why there is none.
    pub result: Result<Outcome, Refusal>,
}

/// Why a request was not answered with an outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This node does not take writes for the shard. Nothing was done.
    #[error("this node is not the head of shard {shard}: send writes to the head")]
    NotInCharge {
        /// The shard.
        shard: ShardId,
    },
    /// The key belongs to another shard. Nothing was done.
    #[error("the key is outside the range of shard {shard}: refresh the routes")]
    OutOfRange {
        /// The shard.
        shard: ShardId,
    },
    /// The replica cannot work at present. Nothing was done.
    #[error("shard {shard} is not ready: {why}; retry")]
    NotReady {
        /// The shard.
        shard: ShardId,
        /// What it waits for.
        why: &'static str,
    },
    /// Too much is under way. Nothing was done.
    #[error("shard {shard} has too many writes under way: retry later")]
    Overloaded {
        /// The shard.
        shard: ShardId,
    },
    /// The session does not exist. Nothing was done under this session by this try.
    #[error("session unknown: it expired, was closed, or never existed")]
    UnknownSession,
    /// The slot has seen a later request.
    #[error("the session's slot has seen a later request")]
    Superseded,
    /// The shard holds as many sessions as it may. Nothing was done.
    #[error(
        "shard {shard} holds {max} sessions, as many as it may: close some, or wait for idle ones to expire"
    )]
    SessionsExhausted {
        /// The shard.
        shard: ShardId,
        /// The limit.
        max: usize,
    },
    /// The shard's sessions use as many slots as they may. Nothing was done.
    #[error(
        "the sessions of shard {shard} use {max} slots, as many as they may: use fewer at once, or wait for idle sessions to expire"
    )]
    SlotsExhausted {
        /// The shard.
        shard: ShardId,
        /// The limit.
        max: usize,
    },
    /// The deadline had passed before any work was done.
    #[error("the deadline passed before the request was looked at")]
    DeadlinePassed,
    /// The disk is full. Nothing was done.
    #[error("the node's disk is full: free space; reads go on")]
    ReadOnly,
    /// The request was appended, and this node lost its part before it was committed.
    #[error("the chain changed while the write was under way: it may or may not take effect")]
    Interrupted,
    /// The row that the runtime read is too old to decide by: read it again and hand the request in again. Nothing was done.
    #[error("the row was read too early: read again")]
    ReadAgain,
}

/// A part of the log to read for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRead {
    /// The link that wants it; echoed in [`Input::LogRead`].
    pub link: LinkId,
    /// Records after this position.
    pub after: Seq,
    /// Bytes, at most, but at least one group.
    pub bytes_max: usize,
}

/// A page of state to read for a follower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRead {
    /// The follower; echoed in [`Input::PageRead`].
    pub to: NodeId,
    /// The link.
    pub link: LinkId,
    /// The page's number.
    pub page_no: u64,
    /// Keys after this one; `None` asks for the first page, which brings the sessions.
    pub after: Option<Bytes>,
}

/// Something that an operator, a test or a controller wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A config was accepted and persisted, and is in force.
    EpochEntered {
        /// Its epoch.
        epoch: Epoch,
    },
    /// An offered config was refused.
    ConfigRefused(ConfigError),
    /// The replica is in sync in this epoch (rule S2).
    InSync {
        /// The epoch.
        epoch: Epoch,
        /// The start of its stint.
        joined_epoch: Epoch,
    },
    /// All debts are paid (rule R3).
    DebtsPaid {
        /// The epoch.
        epoch: Epoch,
    },
    /// The log was cut by a handshake.
    LogCut {
        /// The end before.
        from: Seq,
        /// The end now.
        to: Seq,
    },
    /// A link downwards is up.
    LinkUp {
        /// The follower.
        to: NodeId,
        /// It is a learner.
        learner: bool,
    },
    /// A scan of the source's state began or ended.
    Scan {
        /// It ended.
        done: bool,
    },
    /// A peer sent what makes no sense; it was refused.
    PeerRefused {
        /// The peer.
        from: NodeId,
        /// Why.
        why: String,
    },
    /// An alarm: the replica stops and keeps everything (rules C2, L2).
    Fenced {
        /// The evidence.
        evidence: String,
    },
    /// An operator chose this replica's data (rule M3): the alarm is over.
    Unfenced {
        /// What it was.
        evidence: String,
    },
    /// The replica starts unsynced because something is damaged.
    Damaged {
        /// What.
        what: String,
    },
}
