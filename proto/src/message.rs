//! What nodes say to each other about a shard: the messages of `docs/PROTOCOL.md`, as domain types.
//!
//! Each carries the epoch of its sender; one of another epoch is refused
//! (rule C3). Handlers in `chainnode::replica` mirror these names.

use bytes::Bytes;

use crate::config::ChainConfig;
use crate::ids::{
    DiskId, Epoch, Incarnation, LinkId, LogTime, Origin, RequestNo, RoundNo, Seq, SessionId,
    ShardId, SlotNo,
};
use crate::op::Outcome;
use crate::record::Group;

/// A message between the replicas of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The shard that it concerns.
    pub shard: ShardId,
    /// The epoch that its sender has persisted.
    pub epoch: Epoch,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Predecessor or source → follower: begins a link (rule L2).
    Hello(Hello),
    /// Follower → predecessor: the log is cut, go on from here.
    Welcome(Welcome),
    /// Down a link: records, watermark, rounds.
    Forward(Forward),
    /// Up a link: commit point, received and durable positions, rounds.
    Commit(CommitUp),
    /// "I have persisted this epoch" (rule C5).
    Announce {
        /// The sender is in debt and waits for the same from the receiver.
        reply_wanted: bool,
    },
    /// "Your epoch is not mine, here is mine" (rule C3).
    Refuse(Box<ChainConfig>),
    /// Learner → member: be my source (rule M4).
    Follow {
        /// The learner's disk.
        disk: DiskId,
        /// The learner's incarnation.
        incarnation: Incarnation,
    },
    /// Follower → source: send a page of your state.
    PullPage(PullPage),
    /// Source → follower: a page of state.
    StatePage(Box<StatePage>),
    /// An end gives the link up.
    Unlink {
        /// The link.
        link: LinkId,
    },
    /// The follower found a real fork: both ends stop (rule L2).
    Fork {
        /// The link.
        link: LinkId,
        /// The last position on which both logs agree, as far as is known.
        at: Seq,
        /// What was found, for the alarm.
        evidence: String,
    },
}

impl Body {
    /// The message's name in logs, transcripts and the protocol table.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Forward(_) => "Forward",
            Self::Commit(_) => "Commit",
            Self::Announce { .. } => "Announce",
            Self::Refuse(_) => "Refuse",
            Self::Follow { .. } => "Follow",
            Self::PullPage(_) => "PullPage",
            Self::StatePage(_) => "StatePage",
            Self::Unlink { .. } => "Unlink",
            Self::Fork { .. } => "Fork",
        }
    }
}

/// A stretch of a log made by one head: from `first` to before the next span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginSpan {
    /// Who made the records.
    pub origin: Origin,
    /// The first `seq` of the stretch.
    pub first: Seq,
}

/// Begins a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The new link's id.
    pub link: LinkId,
    /// The receiver is a learner: it gets committed records only (rule L4).
    pub learner: bool,
    /// The sender's disk.
    pub from_disk: DiskId,
    /// The disk that the sender's config names for the receiver (rule C4).
    pub to_disk: DiskId,
    /// The sender can send records after this position.
    pub retained_after: Seq,
    /// The end of what it will send: its log's end, or its commit point to a learner.
    pub last: Seq,
    /// Its commit point.
    pub commit: Seq,
    /// The origins of positions from `retained_after` (included) to `last`, in order.
    pub origins: Vec<OriginSpan>,
}

/// Answers a [`Hello`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Welcome {
    /// The link.
    pub link: LinkId,
    /// The follower's incarnation.
    pub incarnation: Incarnation,
    /// The follower's disk.
    pub disk: DiskId,
    /// The follower's log agrees with the sender's up to here and ends here.
    pub resume_after: Seq,
    /// The follower cannot go on from the log: it will pull the state page by page.
    pub scan_wanted: bool,
}

/// A lease round (rule R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Round {
    /// The head that started it.
    pub incarnation: Incarnation,
    /// Its number at that head in this epoch.
    pub no: RoundNo,
    /// L in milliseconds, which promise and lease both use.
    pub lease_ms: u32,
}

/// What flows down a link.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Forward {
    /// The link.
    pub link: LinkId,
    /// Records, contiguous with what the link carried before.
    pub groups: Vec<Group>,
    /// Everybody above the receiver is durable up to here.
    pub watermark: Seq,
    /// To learners: the sender's commit point. Zero to a successor.
    pub commit: Seq,
    /// A round on its way down.
    pub round: Option<Round>,
    /// The newest round that is known to be complete.
    pub completed: Option<Round>,
}

/// What flows up a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommitUp {
    /// The link.
    pub link: LinkId,
    /// The sender's commit point (rule L5: at most its own log's end).
    pub commit: Seq,
    /// The sender's log reaches to here, durable or not; opens the sending window.
    pub received: Seq,
    /// The sender's log is durable up to here; for status and the learner's lag.
    pub durable: Seq,
    /// A round on its way up.
    pub round: Option<Round>,
}

/// Asks for a page of state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullPage {
    /// The link.
    pub link: LinkId,
    /// Counts pages of this link's scan; echoed.
    pub page_no: u64,
    /// Keys after this one; `None` for the first page.
    pub after: Option<Bytes>,
}

/// A row of state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StateRow {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The `seq` that wrote it.
    pub version: Seq,
    /// When it expires.
    pub expires: Option<LogTime>,
}

/// A session with its slots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionState {
    /// Its id.
    pub session: SessionId,
    /// When it was last used.
    pub used: LogTime,
    /// Its slots that hold a result, in order.
    pub slots: Vec<SlotState>,
}

/// A slot's newest result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotState {
    /// The slot.
    pub slot: SlotNo,
    /// The request.
    pub no: RequestNo,
    /// The record that holds its result.
    pub seq: Seq,
    /// The result.
    pub outcome: Outcome,
}

/// A page of a source's state, all of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatePage {
    /// The link.
    pub link: LinkId,
    /// The page's number.
    pub page_no: u64,
    /// The state's position at that moment.
    pub applied: Seq,
    /// The origin of the record at `applied`.
    pub applied_origin: Origin,
    /// The replicated clock at `applied`.
    pub log_time: LogTime,
    /// Rows in key order.
    pub rows: Vec<StateRow>,
    /// No rows follow.
    pub last: bool,
    /// All sessions, as of `applied`; with the first page only.
    pub sessions: Vec<SessionState>,
}
