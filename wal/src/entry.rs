//! What is appended, and what is read back.

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};

use crate::frame::{self, Kind};

/// Largest payload of a frame, in bytes: a group of the largest size that replicas accept.
pub const ENTRY_BYTES_MAX: usize = catena_proto::limits::GROUP_BYTES_MAX;

/// Something to append. The order of entries is the order of recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A contiguous batch of records; the log does not look inside.
    Group {
        /// The shard.
        shard: ShardId,
        /// Who made them.
        origin: Origin,
        /// The first one's position: the one after the shard's end.
        first: Seq,
        /// The last one's position.
        last: Seq,
        /// The records, at most [`ENTRY_BYTES_MAX`].
        records: Bytes,
    },
    /// Everything of the shard after `after` is void; groups go on behind it.
    Cut {
        /// The shard.
        shard: ShardId,
        /// The last position kept.
        after: Seq,
        /// The replica's log generation from here on (rule L3).
        generation: LogGeneration,
    },
    /// The shard's log starts anew behind `base`.
    Reset {
        /// The shard.
        shard: ShardId,
        /// The next record is the one after it.
        base: Seq,
        /// The origin of the record at `base`.
        origin: Origin,
        /// The replica's log generation from here on.
        generation: LogGeneration,
    },
    /// The shard's metadata; the newest one counts and is never trimmed away.
    Meta {
        /// The shard.
        shard: ShardId,
        /// The metadata, at most [`ENTRY_BYTES_MAX`]; it should be small.
        blob: Bytes,
    },
}

/// Records read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGroup {
    /// Who made them.
    pub origin: Origin,
    /// The first one's position.
    pub first: Seq,
    /// The last one's position.
    pub last: Seq,
    /// Records after this position were cut; the caller slices them off.
    pub valid_to: Seq,
    /// The records.
    pub records: Bytes,
}

static NOTHING: Bytes = Bytes::new();

/// A frame to be written: an entry, or something of the log's own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) shard: ShardId,
    pub(crate) kind: Kind,
    /// The shard's log generation becomes at least this.
    pub(crate) generation: LogGeneration,
    pub(crate) payload: &'a Bytes,
}

impl Draft<'_> {
    pub(crate) fn of(entry: &Entry) -> Draft<'_> {
        match entry {
            Entry::Group {
                shard,
                origin,
                first,
                last,
                records,
            } => {
                let kind = Kind::Group {
                    origin: *origin,
                    first: *first,
                    last: *last,
                };
                Draft::with(*shard, kind, records)
            }
            Entry::Cut {
                shard,
                after,
                generation,
            } => Draft {
                generation: *generation,
                ..Draft::bare(*shard, Kind::Cut { after: *after })
            },
            Entry::Reset {
                shard,
                base,
                origin,
                generation,
            } => {
                let kind = Kind::Reset {
                    base: *base,
                    origin: *origin,
                };
                Draft {
                    generation: *generation,
                    ..Draft::bare(*shard, kind)
                }
            }
            Entry::Meta { shard, blob } => Draft::with(*shard, Kind::Meta, blob),
        }
    }

    /// A frame without a payload.
    pub(crate) const fn bare(shard: ShardId, kind: Kind) -> Self {
        Self {
            shard,
            kind,
            generation: LogGeneration::ZERO,
            payload: &NOTHING,
        }
    }

    pub(crate) const fn frame_bytes(&self) -> usize {
        frame::frame_bytes(self.payload.len())
    }
}

impl<'a> Draft<'a> {
    /// A frame that leaves the generation as it is.
    pub(crate) const fn with(shard: ShardId, kind: Kind, payload: &'a Bytes) -> Self {
        Self {
            shard,
            kind,
            generation: LogGeneration::ZERO,
            payload,
        }
    }
}
