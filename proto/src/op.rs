//! What a client can ask for and what it is told.

use bytes::Bytes;

use crate::ids::{RequestNo, Seq, SessionId, SlotNo};

/// The condition of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// The key's version is this one.
    Version(Seq),
    /// The key's value is this one.
    Value(Bytes),
    /// The key does not exist.
    Absent,
}

/// A change of one key, as a client asks for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum WriteOp {
    /// Sets the value.
    Put {
        /// The new value.
        value: Bytes,
    },
    /// Removes the key; a missing one is no error.
    Delete,
    /// Sets the value if the condition holds.
    Cas {
        /// The condition.
        expect: Expect,
        /// The new value.
        value: Bytes,
    },
    /// Adds to a decimal 64-bit integer; absent counts as 0.
    Incr {
        /// What is added; may be negative.
        by: i64,
    },
    /// Appends to the value; absent counts as empty.
    Append {
        /// What is appended.
        suffix: Bytes,
    },
}

impl WriteOp {
    /// Whether the head must know the key's present value to decide the effect.
    #[must_use]
    pub const fn needs_prior(&self) -> bool {
        !matches!(self, Self::Put { .. })
    }
}

/// Names one request for ever, so that it is executed at most once (DESIGN §3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// The session, inside the request's shard.
    pub session: SessionId,
    /// The slot.
    pub slot: SlotNo,
    /// Rising in the slot.
    pub no: RequestNo,
}

/// What a replica has a client's write do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// A change of one key.
    Write {
        /// The key.
        key: Bytes,
        /// The change.
        op: WriteOp,
    },
    /// Opens a session; its id is the record's `seq`.
    OpenSession,
    /// Closes a session and forgets its results.
    CloseSession(SessionId),
}

/// The decided result of a command: small, logged with the record, kept by the session's slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key was written with this version.
    Written {
        /// The record's `seq`.
        version: Seq,
    },
    /// The key is gone.
    Deleted {
        /// The record's `seq`.
        version: Seq,
        /// Whether it existed.
        existed: bool,
    },
    /// The condition did not hold; nothing was changed.
    CasFailed {
        /// The key's version, or `None` if it does not exist.
        actual: Option<Seq>,
    },
    /// The counter was changed.
    Incremented {
        /// The record's `seq`.
        version: Seq,
        /// The new value.
        value: i64,
    },
    /// The value is not a decimal 64-bit integer; nothing was changed.
    NotANumber,
    /// The sum does not fit 64 bits; nothing was changed.
    Overflow,
    /// The value would exceed its limit; nothing was changed.
    ValueTooLarge,
    /// The session is open.
    SessionOpened {
        /// Its id.
        session: SessionId,
    },
    /// The session is closed.
    SessionClosed,
}

/// A row as a read returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// The value.
    pub value: Bytes,
    /// The `seq` of the record that wrote it.
    pub version: Seq,
}
