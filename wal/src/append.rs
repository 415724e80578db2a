//! Appending and syncing: one write per segment, one sync for everybody.

use catena_proto::ids::{LogGeneration, ShardId};

use crate::disk::{Disk, DiskError};
use crate::entry::{Draft, Entry};
use crate::error::LogError;
use crate::frame::{self, Header, Kind, Position};
use crate::index::Index;
use crate::log::Log;
use crate::segment::{self, FIRST_OFFSET, Segment};
use crate::spare;

/// The encode buffer is kept up to this size; a rare larger batch gives its memory back.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

impl<D: Disk> Log<D> {
    /// Writes entries, in order. They are durable after the next [`Log::sync`].
    ///
    /// A disk without room still takes cuts, resets and metadata by themselves, into a reserve that records leave.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::Entry`]: nothing was written. [`LogError::Broken`]: stop the process.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        self.refuse_if_broken()?;
        self.check(entries)?;
        self.put(entries.iter().map(Draft::of))
    }

    /// Makes everything that was appended durable; one call serves every shard.
    ///
    /// # Errors
    /// [`LogError::Broken`]: stop the process, never sync again (fsyncgate).
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.refuse_if_broken()?;
        for i in 0..self.dirty.len() {
            let done = self.disk.sync(&segment::name(self.dirty[i]));
            self.must(done)?;
        }
        self.dirty.clear();
        self.synced = self.next;
        if !std::mem::take(&mut self.fresh) {
            // Marks alone are not worth another mark.
            self.said = self.synced;
        }
        Ok(())
    }

    /// Says on the disk what is durable, if no frame does yet: from then on damage to the last synced batch is
    /// told from a torn end. For an idle log; a busy one says it with every frame. It costs no sync, since it
    /// matters only once it has reached the disk. A log that is opened says so of what it found.
    ///
    /// # Errors
    /// [`LogError::Broken`]: stop the process.
    pub fn mark(&mut self) -> Result<(), LogError> {
        self.refuse_if_broken()?;
        let mark = Draft::bare(ShardId::ZERO, Kind::Mark);
        if self.said >= self.synced || !self.fits(&mark) {
            return Ok(());
        }
        self.put(std::iter::once(mark))
    }

    /// Writes frames that were checked: all of them, or (`Full`) none.
    pub(crate) fn put<'a>(
        &mut self,
        drafts: impl Iterator<Item = Draft<'a>> + Clone,
    ) -> Result<(), LogError> {
        self.make_room(drafts.clone())?;
        self.buffer.clear();
        let mut start = self.next;
        for draft in drafts {
            if !self.fits(&draft) {
                self.encode(&Draft::bare(ShardId::ZERO, Kind::End));
                self.flush_buffer(start)?;
                self.next_segment(start.segment.saturating_add(1))?;
                start = self.next;
            }
            self.encode(&draft);
        }
        self.flush_buffer(start)
    }

    fn fits(&self, draft: &Draft<'_>) -> bool {
        let written = self.segments.back().map_or(0, |s| s.bytes);
        let end = self.next.offset as usize + draft.frame_bytes();
        end <= segment::limit(written, draft.kind.is_bulk())
    }

    /// Refuses what would make the log unreadable. It allocates nothing: each shard's index notes where this
    /// append will bring its end.
    fn check(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        self.appends += 1;
        let bytes_max = self.options.payload_bytes_max();
        for draft in entries.iter().map(Draft::of) {
            let shard = draft.shard;
            let refuse = |why: String| Err(LogError::Entry { shard, why });
            let bytes = draft.payload.len();
            if bytes > bytes_max {
                return refuse(format!("it has {bytes} bytes, at most {bytes_max} fit"));
            }
            let index = self.index.entry(shard).or_default();
            let end = match index.planned {
                (append, end) if append == self.appends => end,
                _ => index.end(),
            };
            let end = match draft.kind {
                Kind::Group { first, last, .. } => {
                    if first != end.next() || last < first {
                        return refuse(format!("records {first}..={last} do not follow {end}"));
                    }
                    last
                }
                Kind::Cut { after } => end.min(after),
                Kind::Reset { base, .. } => base,
                Kind::Meta | Kind::Loss { .. } | Kind::End | Kind::Mark | Kind::Settled => end,
            };
            index.planned = (self.appends, end);
        }
        Ok(())
    }

    /// Makes sure that every segment that will be needed is ready before anything is written.
    fn make_room<'a>(&mut self, drafts: impl Iterator<Item = Draft<'a>>) -> Result<(), LogError> {
        let mut written = self.segments.back().map_or(0, |s| s.bytes);
        let mut offset = self.next.offset as usize;
        let (mut needed, mut bytes) = (0, 0);
        for draft in drafts {
            let frame = draft.frame_bytes();
            if offset + frame > segment::limit(written, draft.kind.is_bulk()) {
                needed += 1;
                written = self.options.segment_bytes;
                offset = FIRST_OFFSET as usize;
            }
            offset += frame;
            bytes += frame as u64;
        }
        if needed == 0 {
            return Ok(());
        }
        match spare::ensure(&mut self.disk, needed, self.options.segment_bytes) {
            Err(DiskError::Full { .. }) => {
                self.pressed = true;
                Err(LogError::Full { bytes })
            }
            done => {
                self.must(done)?;
                self.pressed = false;
                Ok(())
            }
        }
    }

    /// Adds a frame to the buffer and to the index.
    fn encode(&mut self, draft: &Draft<'_>) {
        let at = self.next;
        let (log_id, payload) = (self.options.log_id, draft.payload);
        let (kind, generation, no) = note(&mut self.index, draft, at);
        let header = Header {
            shard: draft.shard,
            kind,
            generation,
            no,
            payload_bytes: payload.len() as u32,
            payload_crc: frame::payload_crc(log_id, at, payload),
            synced_to: self.synced,
        };
        self.buffer.extend_from_slice(&header.encode(log_id, at));
        self.buffer.extend_from_slice(payload);
        let padded = self.buffer.len().next_multiple_of(frame::ALIGN);
        self.buffer.resize(padded, 0);
        self.next.offset += draft.frame_bytes() as u32;
        self.said = self.synced;
        self.fresh |= kind != Kind::Mark;
    }

    /// One write for all frames of a segment.
    fn flush_buffer(&mut self, start: Position) -> Result<(), LogError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let name = segment::name(start.segment);
        let done = self
            .disk
            .write_at(&name, u64::from(start.offset), &self.buffer);
        self.must(done)?;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        if self.dirty.last() != Some(&start.segment) {
            self.dirty.push(start.segment);
        }
        Ok(())
    }

    /// Goes on in a new segment. Its name and header are durable before any frame is written into it: a frame
    /// never lies in a file that a crash could give back as a spare.
    pub(crate) fn next_segment(&mut self, number: u32) -> Result<(), LogError> {
        let bytes = self.options.segment_bytes;
        let ready =
            spare::ensure(&mut self.disk, 1, bytes).and_then(|()| spare::ready(&self.disk, bytes));
        let ready = self.must(ready)?;
        let spare = ready.first().map_or("", String::as_str);
        let name = segment::name(number);
        let header = segment::header(self.options.log_id, number);
        let done = self
            .disk
            .rename(spare, &name)
            .and_then(|()| self.disk.write_at(&name, 0, &header))
            .and_then(|()| self.disk.sync(&name))
            .and_then(|()| self.disk.sync_folder());
        self.must(done)?;
        self.segments.push_back(Segment { number, bytes });
        self.next = Position {
            segment: number,
            offset: FIRST_OFFSET,
        };
        Ok(())
    }
}

/// Takes a draft into the index; the frame's kind as it is to be written, its generation and its number.
fn note(index: &mut Index, draft: &Draft<'_>, at: Position) -> (Kind, LogGeneration, u32) {
    if draft.kind.is_of_no_shard() {
        return (draft.kind, LogGeneration::ZERO, 0);
    }
    let shard = index.entry(draft.shard).or_default();
    let kind = shard.normal(draft.kind);
    shard.no = shard.no.wrapping_add(1);
    shard.take(kind, draft.generation, at, draft.frame_bytes());
    if kind == Kind::Meta {
        shard.meta = Some(draft.payload.clone());
    }
    debug_assert!(shard.end() >= shard.start, "a log ends behind its start");
    (kind, shard.generation, shard.no)
}
