//! Reading records back, for followers and for recovery.

use catena_proto::ids::{Seq, ShardId};

use crate::disk::{Disk, DiskError};
use crate::entry::StoredGroup;
use crate::error::ReadError;
use crate::frame::{self, HEADER_BYTES, Header, Kind, Position};
use crate::index::Extent;
use crate::log::Log;
use crate::segment::{self, Segment};

/// Read at once while frames of many shards are walked over.
const WINDOW_BYTES: usize = 64 << 10;

impl<D: Disk> Log<D> {
    /// Reads records after `after`, in order: groups of about `bytes_max` bytes together, at least one if there
    /// is any. The first group may begin at or before `after`; no group holds what was cut beyond `valid_to`.
    ///
    /// # Errors
    /// [`ReadError`]; what could be read before damage is left out, so that it is asked for again by itself.
    pub fn read(
        &self,
        shard: ShardId,
        after: Seq,
        bytes_max: usize,
    ) -> Result<Vec<StoredGroup>, ReadError> {
        if self.broken {
            return Err(ReadError::Broken);
        }
        let mut read = Read {
            log_id: self.options.log_id,
            shard,
            after,
            bytes_max,
            bytes: 0,
            groups: Vec::new(),
        };
        let Some(index) = self.index.get(&shard) else {
            return Ok(read.groups);
        };
        if after < index.start {
            return Err(ReadError::Trimmed {
                shard,
                start: index.start,
            });
        }
        let from = index.extents.partition_point(|e| e.last <= after);
        for extent in &index.extents[from..] {
            let segment = self
                .segment(extent.segment)
                .ok_or_else(|| read.damaged("its segment is gone"))?;
            if read.extent(&self.disk, segment, extent)? {
                break;
            }
        }
        Ok(read.groups)
    }
}

struct Read {
    log_id: u128,
    shard: ShardId,
    after: Seq,
    bytes_max: usize,
    bytes: usize,
    groups: Vec<StoredGroup>,
}

impl Read {
    /// Walks one stretch; whether enough was read.
    fn extent<D: Disk>(
        &mut self,
        disk: &D,
        segment: Segment,
        extent: &Extent,
    ) -> Result<bool, ReadError> {
        let mut window = Window::new(disk, segment);
        let mut offset = extent.from;
        while offset <= extent.to {
            let at = Position {
                segment: segment.number,
                offset,
            };
            let raw = window
                .bytes(offset, HEADER_BYTES)
                .map_err(|e| self.damaged(&e.to_string()))?;
            let header = Header::decode(self.log_id, at, raw)
                .ok_or_else(|| self.damaged("a frame's header is not valid"))?;
            offset = offset.saturating_add(header.frame_bytes() as u32);
            let Kind::Group {
                origin,
                first,
                last,
            } = header.kind
            else {
                continue;
            };
            // Groups behind the extent's last record are void.
            if header.shard != self.shard || last <= self.after || first > extent.last {
                continue;
            }
            let payload = at.offset.saturating_add(HEADER_BYTES as u32);
            let records = window
                .bytes(payload, header.payload_bytes as usize)
                .map_err(|e| self.damaged(&e.to_string()))?;
            if frame::payload_crc(self.log_id, at, records) != header.payload_crc {
                return Err(self.damaged("a frame does not match its checksum"));
            }
            self.bytes += records.len();
            self.groups.push(StoredGroup {
                origin,
                first,
                last,
                valid_to: last.min(extent.last),
                records: records.to_vec().into(),
            });
            if self.bytes >= self.bytes_max {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn damaged(&self, why: &str) -> ReadError {
        let read = self.groups.last().map_or(self.after, |g| g.valid_to);
        ReadError::Damaged {
            shard: self.shard,
            at: read.next(),
            why: why.to_owned(),
        }
    }
}

/// A piece of a segment in memory.
struct Window<'a, D> {
    disk: &'a D,
    file: String,
    segment: Segment,
    from: u32,
    held: Vec<u8>,
}

impl<'a, D: Disk> Window<'a, D> {
    fn new(disk: &'a D, segment: Segment) -> Self {
        Self {
            disk,
            file: segment::name(segment.number),
            segment,
            from: 0,
            held: Vec::new(),
        }
    }

    /// Bytes of the segment; more are read along if they are not held yet.
    fn bytes(&mut self, offset: u32, len: usize) -> Result<&[u8], DiskError> {
        let inside = offset
            .checked_sub(self.from)
            .map(|skip| skip as usize)
            .filter(|skip| skip + len <= self.held.len());
        if let Some(skip) = inside {
            return Ok(&self.held[skip..skip + len]);
        }
        let left = self.segment.bytes.saturating_sub(offset) as usize;
        // Beyond the end the disk itself refuses.
        self.held.resize(WINDOW_BYTES.min(left).max(len), 0);
        self.from = offset;
        self.disk
            .read_at(&self.file, u64::from(offset), &mut self.held)?;
        Ok(&self.held[..len])
    }
}
