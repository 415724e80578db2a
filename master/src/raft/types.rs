//! The words of Raft as masters use them: what is replicated, by whom, and what they call a term.

use std::fmt;
use std::io::Cursor;

use catena_proto::ids::MasterId;
use serde::{Deserialize, Serialize};

use crate::state::{Applied, Command};

/// Largest command, in bytes of its JSON. The largest is the cluster's creation, whose split keys take four bytes
/// each byte; everything else is far below a kilobyte.
pub const COMMAND_BYTES_MAX: usize = 4 << 20;
/// Largest message between masters that is encoded or decoded, in bytes: one largest command and its envelope.
pub const RAFT_MESSAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of a snapshot that one message carries. JSON writes a byte in at most four characters.
pub(super) const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Largest snapshot of the masters' state that is written or received: the cluster's largest configuration with as
/// much again, and twice that, for its history and events.
pub const SNAPSHOT_BYTES_MAX: usize = 4 * catena_proto::limits::CONFIG_BYTES_MAX;

const _: () = assert!(COMMAND_BYTES_MAX + (1 << 20) <= RAFT_MESSAGE_BYTES_MAX);
const _: () = assert!(4 * SNAPSHOT_CHUNK_BYTES + (1 << 20) <= RAFT_MESSAGE_BYTES_MAX);
const _: () = assert!(COMMAND_BYTES_MAX + (64 << 10) <= catena_wal::ENTRY_BYTES_MAX);

/// Where a master is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterNode {
    /// Its gRPC address.
    pub addr: String,
    /// Its HTTP address; empty if it is not known.
    pub http: String,
}

/// A term of leadership: at most one master leads in it, and a later one is higher.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

impl Term {
    /// Wraps a raw number; for conversion at a boundary.
    #[must_use]
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number; for conversion at a boundary.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Term({})", self.0)
    }
}

openraft::declare_raft_types!(
    /// What openraft replicates for us.
    pub MasterRaft:
        D = Command,
        R = Applied,
        NodeId = MasterId,
        Node = MasterNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// An entry of the Raft log.
pub type Entry = openraft::Entry<MasterRaft>;
/// An entry's term, leader and index.
pub type LogId = openraft::LogId<MasterId>;
/// What a master voted for.
pub type Vote = openraft::Vote<MasterId>;
/// Who votes, and since which entry.
pub type Membership = openraft::StoredMembership<MasterId, MasterNode>;
/// What a snapshot holds.
pub type SnapshotMeta = openraft::SnapshotMeta<MasterId, MasterNode>;
/// Why storage failed; openraft stops on any.
pub type StorageError = openraft::StorageError<MasterId>;
/// The same, in openraft's inner form.
pub(super) type StorageIoError = openraft::StorageIOError<MasterId>;
