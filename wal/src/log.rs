//! The log itself: its layout, its state in memory, and its figures.

use std::collections::VecDeque;

use catena_proto::ids::{Seq, ShardId};

use crate::disk::{Disk, DiskError};
use crate::entry::ENTRY_BYTES_MAX;
use crate::error::LogError;
use crate::frame::{HEADER_BYTES, Position};
use crate::index::Index;
use crate::segment::{self, FIRST_OFFSET, SEGMENT_HEADER_BYTES, Segment};
use crate::spare;

/// Smallest segment of a node, in bytes: one largest entry, the reserve, and what surrounds them.
pub const SEGMENT_BYTES_MIN: u32 =
    (ENTRY_BYTES_MAX + 2 * HEADER_BYTES + SEGMENT_HEADER_BYTES + (64 << 10)).next_multiple_of(4096)
        as u32;

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Names the log (the disk id): segments of another one are refused.
    pub log_id: u128,
    /// Length of a new segment; at least [`SEGMENT_BYTES_MIN`], so that every entry fits (4 KiB in tests).
    pub segment_bytes: u32,
    /// What is kept for followers before the oldest segments go.
    pub retained_bytes: u64,
}

impl LogOptions {
    /// The usual layout of a log with this id.
    #[must_use]
    pub const fn new(log_id: u128) -> Self {
        Self {
            log_id,
            // Two of the largest entries fit, and making the next one takes well under a second.
            segment_bytes: 32 << 20,
            retained_bytes: catena_proto::limits::LOG_RETAINED_BYTES_DEFAULT,
        }
    }

    /// Largest payload that an entry may have.
    pub(crate) const fn payload_bytes_max(&self) -> usize {
        let room = segment::limit(self.segment_bytes, true) - SEGMENT_HEADER_BYTES - HEADER_BYTES;
        if room < ENTRY_BYTES_MAX {
            room
        } else {
            ENTRY_BYTES_MAX
        }
    }
}

const _: () = assert!(LogOptions::new(0).segment_bytes >= SEGMENT_BYTES_MIN);
const _: () = assert!(
    segment::limit(SEGMENT_BYTES_MIN, true)
        >= SEGMENT_HEADER_BYTES + HEADER_BYTES + ENTRY_BYTES_MAX
);

/// Figures for metrics and admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments.
    pub total_bytes: u64,
    /// Bytes left in the segment that is written now.
    pub segment_left_bytes: u64,
    /// Bytes that can be appended without asking the disk for more, about.
    pub room_bytes: u64,
    /// A next segment is ready.
    pub spare: bool,
    /// The last trim was held up by this shard: its records in the oldest segment are still needed, or damaged.
    pub pinned_by: Option<ShardId>,
}

/// The log of one node. One thread owns it.
#[derive(Debug)]
pub struct Log<D> {
    pub(crate) disk: D,
    pub(crate) options: LogOptions,
    pub(crate) index: Index,
    /// Oldest first; the last one is written. Never empty once the log is open.
    pub(crate) segments: VecDeque<Segment>,
    /// Where the next frame goes.
    pub(crate) next: Position,
    /// Everything before this is durable: `said <= synced <= next`.
    pub(crate) synced: Position,
    /// What the newest frame says is durable.
    pub(crate) said: Position,
    /// Something else than a mark was written since the last sync.
    pub(crate) fresh: bool,
    /// Segments written since the last sync.
    pub(crate) dirty: Vec<u32>,
    pub(crate) buffer: Vec<u8>,
    /// Counts appends, for their check.
    pub(crate) appends: u64,
    pub(crate) broken: bool,
    /// The disk had no room for a segment: trimming goes below what is to be retained.
    pub(crate) pressed: bool,
    pub(crate) pinned_by: Option<ShardId>,
}

impl<D: Disk> Log<D> {
    /// The disk, for a simulation that crashes it.
    pub fn into_disk(self) -> D {
        self.disk
    }

    /// The disk, for faults and figures.
    pub const fn disk_mut(&mut self) -> &mut D {
        &mut self.disk
    }

    /// The position the shard's log starts after, and that of its last record; `None` if nothing was ever said of it.
    #[must_use]
    pub fn range(&self, shard: ShardId) -> Option<(Seq, Seq)> {
        let index = self.index.get(&shard).filter(|s| !s.is_blank())?;
        Some((index.start, index.end()))
    }

    /// Figures for metrics and admission; it looks at the folder.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let spares = spare::ready(&self.disk, self.options.segment_bytes).map_or(0, |s| s.len());
        let written = self.segments.back().map_or(0, |s| s.bytes);
        let segment_left_bytes =
            (segment::limit(written, true) as u64).saturating_sub(u64::from(self.next.offset));
        let fresh = (segment::limit(self.options.segment_bytes, true) as u64)
            .saturating_sub(u64::from(FIRST_OFFSET));
        Usage {
            total_bytes: self.total_bytes(),
            segment_left_bytes,
            room_bytes: segment_left_bytes + spares as u64 * fresh,
            spare: spares > 0,
            pinned_by: self.pinned_by,
        }
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.bytes)).sum()
    }

    /// The segment with this number, if it is there.
    pub(crate) fn segment(&self, number: u32) -> Option<Segment> {
        let found = self
            .segments
            .binary_search_by_key(&number, |s| s.number)
            .ok()?;
        self.segments.get(found).copied()
    }

    /// After a failure that leaves it unknown what the disk holds, nothing more is tried (fsyncgate).
    pub(crate) fn must<T>(&mut self, result: Result<T, DiskError>) -> Result<T, LogError> {
        result.map_err(|error| {
            self.broken = true;
            LogError::Broken(error)
        })
    }

    pub(crate) const fn refuse_if_broken(&self) -> Result<(), LogError> {
        if self.broken {
            Err(LogError::AlreadyBroken)
        } else {
            Ok(())
        }
    }
}
