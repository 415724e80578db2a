//! Appending, syncing, reading and trimming.

use std::collections::VecDeque;

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};

use crate::disk::{Disk, DiskError};
use crate::frame::{self, HEADER_BYTES, Header, Kind, Position};
use crate::index::{Index, ShardIndex};
use crate::segment::{self, SEGMENT_HEADER_BYTES};

/// The name of a file that is ready to become the next segment.
pub(crate) const SPARE: &str = "spare";
/// Under this name the log itself makes a spare when nobody else has.
const SPARE_OWN: &str = "spare.own";
/// Largest payload of a frame: a group of the largest size that replicas accept.
pub const ENTRY_BYTES_MAX: usize = catena_proto::limits::GROUP_BYTES_MAX;
/// Smallest segment: one largest entry and what surrounds it.
pub const SEGMENT_BYTES_MIN: u32 =
    (ENTRY_BYTES_MAX + 2 * HEADER_BYTES + SEGMENT_HEADER_BYTES).next_multiple_of(4096) as u32;
/// A shard whose whole log is at most this long is copied forward when it holds up a trim.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// How a log is laid out.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// Names the log (the disk id): segments of another one are refused.
    pub log_id: u128,
    /// Length of a segment; at least [`SEGMENT_BYTES_MIN`] outside tests.
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
            segment_bytes: 32 << 20,
            retained_bytes: catena_proto::limits::LOG_RETAINED_BYTES_DEFAULT,
        }
    }
}

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
        /// The records.
        records: Bytes,
    },
    /// Everything of the shard after `after` is void.
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
        /// The metadata.
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

/// Why the log could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No room for another segment. Nothing of this append was written; what is stored is safe.
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
    /// An entry is larger than any segment, or does not follow the shard's end.
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
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// They were trimmed.
    #[error("the log of shard {shard} begins after {start}")]
    Trimmed {
        /// The shard.
        shard: ShardId,
        /// Records after this position are held.
        start: Seq,
    },
    /// They fail their checksum, or cannot be read.
    #[error("the log of shard {shard} is damaged at {at}: {why}")]
    Damaged {
        /// The shard.
        shard: ShardId,
        /// The first record that cannot be read.
        at: Seq,
        /// What was found.
        why: String,
    },
}

/// Figures for metrics and admission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all segments.
    pub total_bytes: u64,
    /// Bytes left in the segment that is written now.
    pub segment_left_bytes: u64,
    /// A next segment is ready.
    pub spare: bool,
}

/// The log of one node.
#[derive(Debug)]
pub struct Log<D> {
    pub(crate) disk: D,
    pub(crate) options: LogOptions,
    pub(crate) index: Index,
    /// Segment numbers, oldest first; the last one is written.
    pub(crate) segments: VecDeque<u32>,
    /// Where the next frame goes.
    pub(crate) next: Position,
    /// Everything before this is durable.
    pub(crate) synced: Position,
    /// Segments written since the last sync.
    pub(crate) dirty: Vec<u32>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) broken: bool,
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

    /// The position of the shard's last record, and the position its log starts after.
    #[must_use]
    pub fn range(&self, shard: ShardId) -> Option<(Seq, Seq)> {
        self.index.get(&shard).map(|s| (s.start, s.end()))
    }

    /// Figures for metrics and admission.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let spare = self
            .disk
            .list()
            .is_ok_and(|files| files.iter().any(|(name, _)| name == SPARE));
        Usage {
            total_bytes: self.segments.len() as u64 * u64::from(self.options.segment_bytes),
            segment_left_bytes: u64::from(self.options.segment_bytes - self.next.offset),
            spare,
        }
    }

    /// Writes entries, in order. They are durable after the next [`Log::sync`].
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Entry`]: nothing was written. [`LogError::Broken`]: stop the process.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::AlreadyBroken);
        }
        self.check(entries)?;
        self.make_room(entries)?;
        self.buffer.clear();
        let mut start = self.next;
        for entry in entries {
            let bytes = frame::frame_bytes(payload_of(entry).len());
            if !self.fits(bytes) {
                self.flush_buffer(start)?;
                self.roll()?;
                start = self.next;
            }
            self.encode(entry);
        }
        self.flush_buffer(start)
    }

    /// Makes everything that was appended durable; one call serves every shard.
    ///
    /// # Errors
    /// [`LogError::Broken`]: stop the process, never sync again (fsyncgate).
    pub fn sync(&mut self) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::AlreadyBroken);
        }
        for segment in std::mem::take(&mut self.dirty) {
            let done = self.disk.sync(&segment::name(segment));
            self.must(done)?;
        }
        self.synced = self.next;
        Ok(())
    }

    fn must<T>(&mut self, result: Result<T, DiskError>) -> Result<T, LogError> {
        result.map_err(|error| {
            self.broken = true;
            LogError::Broken(error)
        })
    }

    fn fits(&self, frame: usize) -> bool {
        // Room for an `End` frame is kept behind every frame.
        self.next.offset as usize + frame + HEADER_BYTES <= self.options.segment_bytes as usize
    }

    /// Refuses what would make the log unreadable.
    fn check(&self, entries: &[Entry]) -> Result<(), LogError> {
        let room = self.options.segment_bytes as usize - SEGMENT_HEADER_BYTES - HEADER_BYTES;
        let mut ends: Vec<(ShardId, Seq)> = Vec::new();
        for entry in entries {
            let shard = shard_of(entry);
            let refuse = |why: String| Err(LogError::Entry { shard, why });
            let bytes = frame::frame_bytes(payload_of(entry).len());
            if bytes > room {
                return refuse(format!("{bytes} bytes exceed a segment's {room}"));
            }
            let known = ends
                .iter()
                .rev()
                .find(|(s, _)| *s == shard)
                .map(|(_, end)| *end);
            let end =
                known.unwrap_or_else(|| self.index.get(&shard).map_or(Seq::ZERO, ShardIndex::end));
            match entry {
                Entry::Group { first, last, .. } => {
                    if *first != end.next() || last < first {
                        return refuse(format!("records {first}..={last} do not follow {end}"));
                    }
                    ends.push((shard, *last));
                }
                Entry::Cut { after, .. } => ends.push((shard, end.min(*after))),
                Entry::Reset { base, .. } => ends.push((shard, *base)),
                Entry::Meta { .. } => {}
            }
        }
        Ok(())
    }

    /// Makes sure that every segment that will be needed is ready before anything is written.
    fn make_room(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let (mut at, mut rolls, mut total) = (self.next.offset as usize, 0, 0);
        for entry in entries {
            let bytes = frame::frame_bytes(payload_of(entry).len());
            if at + bytes + HEADER_BYTES > self.options.segment_bytes as usize {
                rolls += 1;
                at = SEGMENT_HEADER_BYTES;
            }
            at += bytes;
            total += bytes;
        }
        let bytes = self.options.segment_bytes;
        for number in 0..rolls {
            match make_file(&mut self.disk, SPARE_OWN, &spare_name(number), bytes) {
                Ok(()) => {}
                Err(DiskError::Full { .. }) => {
                    return Err(LogError::Full {
                        bytes: total as u64,
                    });
                }
                Err(error) => return self.must(Err(error)),
            }
        }
        Ok(())
    }

    fn encode(&mut self, entry: &Entry) {
        let payload = payload_of(entry);
        let shard = shard_of(entry);
        let index = self.index.entry(shard).or_default();
        let at = self.next;
        let bytes = frame::frame_bytes(payload.len());
        let kind = match entry {
            Entry::Group {
                origin,
                first,
                last,
                ..
            } => {
                let (origin, first, last) = (*origin, *first, *last);
                index.group(at.segment, at.offset, bytes as u64, origin, (first, last));
                Kind::Group {
                    origin,
                    first,
                    last,
                }
            }
            Entry::Cut {
                after, generation, ..
            } => {
                index.cut(*after, *generation);
                index.mark_segment = at.segment;
                Kind::Cut { after: *after }
            }
            Entry::Reset {
                base,
                origin,
                generation,
                ..
            } => {
                let (base, origin) = (*base, *origin);
                index.reset(base, origin, *generation);
                index.mark_segment = at.segment;
                Kind::Reset { base, origin }
            }
            Entry::Meta { blob, .. } => {
                index.meta = Some(blob.clone());
                index.meta_segment = at.segment;
                Kind::Meta
            }
        };
        let generation = index.generation;
        let header = Header {
            shard,
            generation,
            kind,
            payload_bytes: payload.len() as u32,
            payload_crc: frame::payload_crc(self.options.log_id, at, payload),
            synced_to: self.synced,
        };
        self.buffer
            .extend_from_slice(&header.encode(self.options.log_id, at));
        self.buffer.extend_from_slice(payload);
        self.buffer
            .resize(self.buffer.len().next_multiple_of(frame::ALIGN), 0);
        self.next.offset += bytes as u32;
    }

    /// One write for all frames of a segment.
    fn flush_buffer(&mut self, start: Position) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let done = self.disk.write_at(
            &segment::name(start.segment),
            u64::from(start.offset),
            &self.buffer,
        );
        self.must(done)?;
        self.buffer.clear();
        if self.dirty.last() != Some(&start.segment) {
            self.dirty.push(start.segment);
        }
        Ok(())
    }

    /// Closes the segment and goes on in the next one.
    fn roll(&mut self) -> Result<(), LogError> {
        let at = self.next;
        let end = Header {
            shard: ShardId::ZERO,
            generation: LogGeneration::ZERO,
            kind: Kind::End,
            payload_bytes: 0,
            payload_crc: frame::payload_crc(self.options.log_id, at, &[]),
            synced_to: self.synced,
        };
        self.buffer
            .extend_from_slice(&end.encode(self.options.log_id, at));
        self.flush_buffer(at)?;
        self.next_segment(at.segment + 1)
    }

    /// Opens a new segment; the spare, if there is one.
    pub(crate) fn next_segment(&mut self, number: u32) -> Result<(), LogError> {
        let bytes = self.options.segment_bytes;
        let spare = self.disk.list().map(|files| {
            let whole = |(_, len): &&(String, u64)| *len == u64::from(bytes);
            let spare = |(name, _): &(String, u64)| name.starts_with(SPARE) && name != SPARE_OWN;
            files
                .iter()
                .filter(whole)
                .rfind(|f| spare(f))
                .map(|(name, _)| name.clone())
        });
        let spare = match self.must(spare)? {
            Some(spare) => spare,
            None => {
                let made = make_spare(&mut self.disk, SPARE_OWN, bytes);
                self.must(made)?;
                SPARE.to_owned()
            }
        };
        let name = segment::name(number);
        let header = segment::header(self.options.log_id, number);
        let done = self
            .disk
            .rename(&spare, &name)
            .and_then(|()| self.disk.write_at(&name, 0, &header))
            .and_then(|()| self.disk.sync(&name))
            .and_then(|()| self.disk.sync_folder());
        self.must(done)?;
        self.segments.push_back(number);
        self.next = Position {
            segment: number,
            offset: SEGMENT_HEADER_BYTES as u32,
        };
        Ok(())
    }

    /// Reads records after `after`, in order, about `bytes_max` of them but at least one group.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(
        &self,
        shard: ShardId,
        after: Seq,
        bytes_max: usize,
    ) -> Result<Vec<StoredGroup>, ReadError> {
        let mut found = Vec::new();
        let Some(index) = self.index.get(&shard) else {
            return Ok(found);
        };
        if after < index.start {
            return Err(ReadError::Trimmed {
                shard,
                start: index.start,
            });
        }
        let mut bytes = 0;
        for extent in index.extents.iter().filter(|e| e.last > after) {
            let name = segment::name(extent.segment);
            let mut offset = extent.from;
            while offset <= extent.to {
                let at = Position {
                    segment: extent.segment,
                    offset,
                };
                let damaged = |seq: Seq, why: &str| ReadError::Damaged {
                    shard,
                    at: seq,
                    why: why.to_owned(),
                };
                let reached = found.last().map_or(after, |g: &StoredGroup| g.last);
                let mut raw = [0; HEADER_BYTES];
                self.disk
                    .read_at(&name, u64::from(offset), &mut raw)
                    .map_err(|e| damaged(reached.next(), &e.to_string()))?;
                let header = Header::decode(self.options.log_id, at, &raw)
                    .ok_or_else(|| damaged(reached.next(), "a frame's header is not valid"))?;
                offset += frame::frame_bytes(header.payload_bytes as usize) as u32;
                let Kind::Group {
                    origin,
                    first,
                    last,
                } = header.kind
                else {
                    continue;
                };
                if header.shard != shard || last <= after || first > extent.last {
                    continue;
                }
                let mut payload = vec![0; header.payload_bytes as usize];
                self.disk
                    .read_at(
                        &name,
                        u64::from(at.offset) + HEADER_BYTES as u64,
                        &mut payload,
                    )
                    .map_err(|e| damaged(first, &e.to_string()))?;
                if frame::payload_crc(self.options.log_id, at, &payload) != header.payload_crc {
                    return Err(damaged(first, "a frame does not match its checksum"));
                }
                bytes += payload.len();
                found.push(StoredGroup {
                    origin,
                    first,
                    last,
                    valid_to: last.min(extent.last),
                    records: payload.into(),
                });
                if bytes >= bytes_max {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// Frees the oldest segments while the log is longer than it is to retain; `floor` says up to where a
    /// shard's records are needed neither for recovery nor for a follower. Returns the shards whose log now
    /// starts later, with their new start.
    ///
    /// # Errors
    /// [`LogError`], as for append and sync.
    pub fn trim(
        &mut self,
        floor: impl Fn(ShardId) -> Seq,
    ) -> Result<Vec<(ShardId, Seq)>, LogError> {
        let mut moved = Vec::new();
        while self.segments.len() > 1
            && self.segments.len() as u64 * u64::from(self.options.segment_bytes)
                > self.options.retained_bytes
        {
            let oldest = self.segments[0];
            let Some(copies) = self.copies_for(oldest, &floor) else {
                break;
            };
            if !copies.is_empty() {
                match self.append(&copies) {
                    Err(LogError::Full { .. }) => break,
                    done => done?,
                }
                self.sync()?;
            }
            for (shard, index) in &mut self.index {
                if index.extents.first().is_some_and(|e| e.segment == oldest) {
                    index.drop_segment(oldest);
                    moved.push((*shard, index.start));
                }
            }
            self.segments.pop_front();
            let gone = self.disk.remove(&segment::name(oldest));
            self.must(gone)?;
            let done = self.disk.sync_folder();
            self.must(done)?;
        }
        Ok(moved)
    }

    /// What has to be appended again before a segment may go; `None` if it may not.
    fn copies_for(&self, segment: u32, floor: &impl Fn(ShardId) -> Seq) -> Option<Vec<Entry>> {
        let mut copies = Vec::new();
        for (shard, index) in &self.index {
            let shard = *shard;
            let here: Vec<_> = index
                .extents
                .iter()
                .filter(|e| e.segment == segment)
                .collect();
            let needed = here.last().is_some_and(|e| e.last > floor(shard));
            // Nothing of the shard's log is left elsewhere.
            let all_here = here.len() == index.extents.len();
            let small = here.iter().map(|e| e.bytes).sum::<u64>() <= COPY_BYTES_MAX;
            if needed && !(all_here && small) {
                return None;
            }
            let generation = index.generation;
            let marked_here = index.mark_segment == segment;
            if all_here && (marked_here || !here.is_empty()) {
                // Where its log stands is said anew: else a start would take it for one that has nothing.
                let base = if needed { index.start } else { index.end() };
                let before = |(_, first): &&(Origin, Seq)| *first <= base;
                let known = index.spans.iter().rfind(before).or(index.spans.first());
                if let Some((origin, _)) = known.copied() {
                    copies.push(Entry::Reset {
                        shard,
                        base,
                        origin,
                        generation,
                    });
                }
                if needed {
                    for group in self.read(shard, index.start, usize::MAX).ok()? {
                        if group.valid_to < group.last {
                            return None;
                        }
                        let StoredGroup {
                            origin,
                            first,
                            last,
                            records,
                            ..
                        } = group;
                        copies.push(Entry::Group {
                            shard,
                            origin,
                            first,
                            last,
                            records,
                        });
                    }
                }
            }
            let blob = index.meta.clone().filter(|_| index.meta_segment == segment);
            copies.extend(blob.map(|blob| Entry::Meta { shard, blob }));
        }
        Some(copies)
    }
}

/// Prepares the file that becomes the next segment, so that no append waits for it. A background thread may
/// call this with a disk and a name of its own.
///
/// # Errors
/// [`DiskError::Full`] if there is no room: the node should refuse writes early.
pub fn make_spare(
    disk: &mut impl Disk,
    working_name: &str,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    make_file(disk, working_name, SPARE, segment_bytes)
}

fn make_file(
    disk: &mut impl Disk,
    working_name: &str,
    name: &str,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    let want = u64::from(segment_bytes);
    if disk
        .list()?
        .iter()
        .any(|(found, len)| found == name && *len == want)
    {
        return Ok(());
    }
    disk.create(working_name, want)?;
    disk.rename(working_name, name)
}

/// The first spare is the one that others may make as well.
fn spare_name(number: usize) -> String {
    if number == 0 {
        SPARE.to_owned()
    } else {
        format!("{SPARE}-{number}")
    }
}

const fn shard_of(entry: &Entry) -> ShardId {
    match entry {
        Entry::Group { shard, .. }
        | Entry::Cut { shard, .. }
        | Entry::Reset { shard, .. }
        | Entry::Meta { shard, .. } => *shard,
    }
}

fn payload_of(entry: &Entry) -> &[u8] {
    match entry {
        Entry::Group { records, .. } => records,
        Entry::Meta { blob, .. } => blob,
        Entry::Cut { .. } | Entry::Reset { .. } => &[],
    }
}
