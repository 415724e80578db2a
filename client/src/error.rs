//! What a caller is told when an operation has no answer.
//!
//! An outcome is `Ok`, [`Error::Failed`] (nothing was done and nothing will be)
//! or [`Error::Unknown`]. Nothing turns one into another; the rule that decides
//! between them is `plan::retry`.

use std::time::Duration;

/// An operation without an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was done, and nothing will be: it is safe to ask again. Reads never end otherwise.
    #[error("{0}")]
    Failed(Cause),
    /// The write may have happened, may happen yet, or may never happen: read before asking again.
    #[error("it is unknown whether the write happened: {0}")]
    Unknown(Cause),
}

/// Why an operation has no answer; each message names the thing and the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// No node that could answer was reached.
    #[error("no node could be reached: {0}")]
    Unreachable(String),
    /// No master that leads was reached, so nobody can decide a change.
    #[error("the masters cannot be asked: {0}")]
    NoLeader(String),
    /// The chain does not serve: a lease, a barrier, a debt or a blocked chain.
    #[error("the chain is not ready: {0}")]
    NotReady(String),
    /// A node, or this client's own queue, refused work that it could not have finished in time.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The deadline passed.
    #[error("no answer within {after:?}{}", last_words(.last))]
    TimedOut {
        /// The operation's time-out.
        after: Duration,
        /// What the last try had met, if it met anything.
        last: Option<String>,
    },
    /// The connection, or the node, went away while it held the request.
    #[error("interrupted: {0}")]
    Interrupted(String),
    /// The session under which an earlier try was sent is gone, and with it the memory of what that try did.
    #[error("the session is gone, and with it the record of what an earlier try did: {0}")]
    SessionLost(String),
    /// The request breaks a limit or makes no sense.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// `increment` met a value that is not a decimal 64-bit integer.
    #[error("the value is not a decimal 64-bit integer")]
    NotANumber,
    /// `increment` would leave the range of 64-bit integers.
    #[error("the sum does not fit into 64 bits")]
    Overflow,
    /// `append` would make the value longer than its limit.
    #[error(
        "the value would exceed {} bytes",
        catena_proto::limits::VALUE_BYTES_MAX
    )]
    ValueTooLarge,
    /// An endpoint belongs to another cluster than the one this client met first.
    #[error("foreign cluster: {0}")]
    ForeignCluster(String),
    /// The node takes no writes: its disk is full, or its engine refuses.
    #[error("read-only: {0}")]
    ReadOnly(String),
    /// A stale read could not keep the bound it was asked to keep.
    #[error("too stale: {0}")]
    TooStale(String),
    /// The master refuses a change: a rule, or the state, forbids it.
    #[error("refused: {0}")]
    Refused(String),
    /// There is no such chain, node or master.
    #[error("{0}")]
    NoSuch(String),
    /// The node failed in a way that it did not foresee, or its answer makes no sense.
    #[error("internal: {0}")]
    Internal(String),
}

fn last_words(last: &Option<String>) -> String {
    last.as_ref()
        .map_or_else(String::new, |last| format!("; the last try met: {last}"))
}

impl Error {
    /// Why.
    #[must_use]
    pub const fn cause(&self) -> &Cause {
        match self {
            Self::Failed(cause) | Self::Unknown(cause) => cause,
        }
    }

    /// Whether the write may have happened (exit status 6 of the CLI).
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }

    /// Whether nothing was done because nobody was there to do it (exit status 5 of the CLI).
    #[must_use]
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Failed(cause) if cause.is_passing())
    }

    /// Whether asking again later can succeed *and* cannot do the work twice.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        self.is_unavailable()
    }

    /// A stable word for scripts (`error.code` of the CLI's JSON).
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown",
            Self::Failed(cause) => cause.code(),
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Unknown(_) => {
                "read the key to learn whether the write happened before you write again"
            }
            Self::Failed(cause) => cause.help(),
        }
    }
}

impl Cause {
    /// A stable word for scripts.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::NoLeader(_) => "no_leader",
            Self::NotReady(_) => "not_ready",
            Self::Overloaded(_) => "overloaded",
            Self::TimedOut { .. } => "timed_out",
            Self::Interrupted(_) => "interrupted",
            Self::SessionLost(_) => "session_lost",
            Self::Invalid(_) => "invalid",
            Self::NotANumber => "not_a_number",
            Self::Overflow => "overflow",
            Self::ValueTooLarge => "value_too_large",
            Self::ForeignCluster(_) => "foreign_cluster",
            Self::ReadOnly(_) => "read_only",
            Self::TooStale(_) => "too_stale",
            Self::Refused(_) => "refused",
            Self::NoSuch(_) => "not_found",
            Self::Internal(_) => "internal",
        }
    }

    /// Whether the cause lies in the moment, not in the request.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable(_)
            | Self::NoLeader(_)
            | Self::NotReady(_)
            | Self::Overloaded(_)
            | Self::TimedOut { .. }
            | Self::Interrupted(_)
            | Self::SessionLost(_)
            | Self::ReadOnly(_)
            | Self::TooStale(_) => true,
            Self::Invalid(_)
            | Self::NotANumber
            | Self::Overflow
            | Self::ValueTooLarge
            | Self::ForeignCluster(_)
            | Self::Refused(_)
            | Self::NoSuch(_)
            | Self::Internal(_) => false,
        }
    }

    /// What to do about it.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "check the endpoints, and that a node listens there",
            Self::NoLeader(_) => {
                "start the masters that are down; `catena status` shows them, and reads and writes go on"
            }
            Self::NotReady(_) | Self::Interrupted(_) | Self::SessionLost(_) => {
                "try again; `catena status` shows what the chain waits for"
            }
            Self::Overloaded(_) => "send less at once, or try again later",
            Self::TimedOut { .. } => "try again, or allow more time",
            Self::Invalid(_) => "mend the request; the message names the limit",
            Self::NotANumber => "put a decimal integer first, or use another key",
            Self::Overflow => "use a smaller step, or put the counter back",
            Self::ValueTooLarge => "continue in another key",
            Self::ForeignCluster(_) => "use the endpoints of one cluster only",
            Self::ReadOnly(_) => "make room on the node's disk",
            Self::TooStale(_) => "allow a larger lag, or read linearizably",
            Self::Refused(_) => "the message names the rule; `catena status` shows the chain",
            Self::NoSuch(_) => "`catena chain list` and `catena node list` name those there are",
            Self::Internal(_) => "look into the node's log",
        }
    }
}
