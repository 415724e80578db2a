//! Why the log, or a read of it, failed; and what has to be done about it.

use catena_proto::ids::{Seq, ShardId};

use crate::disk::DiskError;

/// Why the log could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No room for another segment. Nothing of this append was written; what is stored is safe, and reads go on.
    #[error("the log has no room for {bytes} more bytes: free space on the disk")]
    Full {
        /// Bytes that were to be appended.
        bytes: u64,
    },
    /// A write or a sync failed: what the disk holds is not known, and the process must stop (status 4).
    #[error("the log's disk failed, the node stops: {0}")]
    Broken(#[source] DiskError),
    /// It broke before and refuses everything since.
    #[error("the log's disk failed before; the node must be restarted")]
    AlreadyBroken,
    /// An entry is too large, or does not follow the shard's end. Nothing of this append was written.
    #[error("an entry of shard {shard} is refused: {why}")]
    Entry {
        /// The shard.
        shard: ShardId,
        /// What is wrong with it.
        why: String,
    },
    /// The folder cannot be used at all.
    #[error("the log in this folder cannot be opened: {0}")]
    Open(String),
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// They were trimmed: the reader needs a copy of the state.
    #[error("the log of shard {shard} begins after {start}")]
    Trimmed {
        /// The shard.
        shard: ShardId,
        /// Records after this position are held.
        start: Seq,
    },
    /// They fail their checksum, or cannot be read: the replica has to be repaired from a fellow.
    #[error("the log of shard {shard} is damaged at {at}: {why}")]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The first record that cannot be read.
        at: Seq,
        /// What was found.
        why: String,
    },
    /// The log broke: what it holds is not known.
    #[error("the log's disk failed before; the node must be restarted")]
    Broken,
}
