//! Opening a log: scan it, cut what is torn, write down what is damaged, sync everything.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};

use crate::disk::{Disk, DiskError};
use crate::entry::Draft;
use crate::error::LogError;
use crate::frame::{Kind, Position};
use crate::log::{Log, LogOptions};
use crate::scan::{self, Scanned};
use crate::segment::{self, Found, SEGMENT_HEADER_BYTES, Segment};
use crate::spare;
use crate::verdict::Doubt;

/// What an opened log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// By shard.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// How the log ended.
    pub tail: Tail,
    /// Something durable was unreadable and named no shard. Whom it may concern is marked above; but a shard of
    /// which nothing else is left is not there at all. Said at one start only.
    pub hole: Option<String>,
}

/// How a log ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tail {
    /// Nothing was under way.
    #[default]
    Clean,
    /// A batch that was never synced, and so never counted, was cut off.
    Torn {
        /// The segment.
        segment: u32,
        /// Where the cut is, in bytes.
        offset: u32,
    },
}

/// What is held of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// Records after this position are readable.
    pub start: Seq,
    /// Up to this one.
    pub end: Seq,
    /// The newest log generation.
    pub generation: LogGeneration,
    /// The newest metadata; if there is damage, perhaps not the newest that was written.
    pub meta: Option<Bytes>,
    /// Who made the records, in order: (origin, first seq).
    pub spans: Vec<(Origin, Seq)>,
    /// Something durable is lost; what is readable ends before it. The replica must count as unsynced, and say so
    /// in its metadata: this stays until a `Meta` follows.
    pub damage: Option<String>,
}

impl<D: Disk> Log<D> {
    /// Opens a log, or makes an empty one. Everything that is found is durable when this returns (rule L5): the
    /// page cache is not the disk.
    ///
    /// # Errors
    /// [`LogError::Open`] for segments of another log or format, before anything is changed;
    /// [`LogError::Broken`]; [`LogError::Full`] if not even the first segment finds room.
    pub fn open(mut disk: D, options: LogOptions) -> Result<(Self, Recovered), LogError> {
        if options.segment_bytes < segment::BYTES_MIN {
            return Err(LogError::Open(format!(
                "segments of {} bytes are too small, at least {} are wanted",
                options.segment_bytes,
                segment::BYTES_MIN
            )));
        }
        let mut segments = list(&disk)?;
        let blank = blank(&disk, &options, &segments)?;
        let newest = segments.last().map_or(0, |s| s.number);
        // A last segment whose header never became durable was never written to.
        while let Some(last) = segments
            .last()
            .copied()
            .filter(|s| blank.contains(&s.number))
            && scan::is_empty(&disk, options.log_id, last)?
        {
            segments.pop();
            disk.remove(&segment::name(last.number))
                .map_err(LogError::Broken)?;
        }
        let scanned = scan::scan(&disk, &options, &segments)?;
        let mut log = Self {
            disk,
            options,
            index: scanned.verdict.index.clone(),
            segments: VecDeque::from(segments),
            next: scanned.end,
            synced: scanned.end,
            said: Position::default(),
            fresh: false,
            dirty: Vec::new(),
            buffer: Vec::new(),
            appends: 0,
            broken: false,
            pressed: false,
            pinned_by: None,
        };
        log.settle(&scanned, newest)?;
        log.write_down(&scanned)?;
        let recovered = Recovered {
            shards: log.shards(&scanned.verdict.doubts),
            tail: scanned.tail,
            hole: scanned.hole,
        };
        Ok((log, recovered))
    }

    /// Cuts off what is torn, and syncs everything.
    fn settle(&mut self, scanned: &Scanned, newest: u32) -> Result<(), LogError> {
        while self
            .segments
            .back()
            .is_some_and(|s| s.number > self.next.segment)
        {
            if let Some(torn) = self.segments.pop_back() {
                let gone = self.disk.remove(&segment::name(torn.number));
                self.must(gone)?;
            }
        }
        if let Some(to) = scanned.torn_to {
            let zeros = vec![0; to.saturating_sub(self.next.offset) as usize];
            let name = segment::name(self.next.segment);
            let wiped = self
                .disk
                .write_at(&name, u64::from(self.next.offset), &zeros);
            self.must(wiped)?;
        }
        for number in &scanned.headless {
            if self.segment(*number).is_some() {
                let header = segment::header(self.options.log_id, *number);
                let done = self.disk.write_at(&segment::name(*number), 0, &header);
                self.must(done)?;
            }
        }
        let tidied = spare::tidy(&mut self.disk, self.options.segment_bytes);
        self.must(tidied)?;
        for i in 0..self.segments.len() {
            let done = self.disk.sync(&segment::name(self.segments[i].number));
            self.must(done)?;
        }
        let done = self.disk.sync_folder();
        self.must(done)?;
        if self.segments.is_empty() {
            self.next_segment(newest.saturating_add(1))
                .map_err(|error| match error {
                    LogError::Broken(DiskError::Full { .. }) => LogError::Full {
                        bytes: u64::from(self.options.segment_bytes),
                    },
                    other => other,
                })?;
        }
        self.synced = self.next;
        if scanned.end == Position::default() {
            // An empty log has nothing to say.
            self.said = self.synced;
        }
        Ok(())
    }

    /// Notes what is lost, so that every later start ends these shards where this one did; and that what was found
    /// is durable.
    fn write_down(&mut self, scanned: &Scanned) -> Result<(), LogError> {
        let settled = scanned.hole.as_ref();
        let settled = settled.map(|_| (ShardId::ZERO, Kind::Settled));
        let doubts = scanned.verdict.doubts.iter();
        let losses = doubts
            .filter(|(_, doubt): &(_, &Doubt)| !doubt.is_written_down())
            .filter_map(|(shard, _)| Some((*shard, self.index.get(shard)?.loss())));
        let words: Vec<(ShardId, Kind)> = settled.into_iter().chain(losses).collect();
        if !words.is_empty() {
            self.put(words.iter().map(|&(shard, kind)| Draft::bare(shard, kind)))?;
            self.sync()?;
        }
        self.mark()
    }

    fn shards(&self, doubts: &BTreeMap<ShardId, Doubt>) -> BTreeMap<ShardId, RecoveredShard> {
        let shard = |(shard, index): (&ShardId, &crate::index::ShardIndex)| {
            let recovered = RecoveredShard {
                start: index.start,
                end: index.end(),
                generation: index.generation,
                meta: index.meta.clone(),
                spans: index.spans.clone(),
                damage: doubts.get(shard).map(|doubt| doubt.what.clone()),
            };
            (*shard, recovered)
        };
        self.index.iter().map(shard).collect()
    }
}

/// The segments in the folder, oldest first. What is too short to be one counts as missing.
fn list<D: Disk>(disk: &D) -> Result<Vec<Segment>, LogError> {
    let mut segments = Vec::new();
    for (name, bytes) in disk.list().map_err(LogError::Broken)? {
        let Some(number) = segment::number(&name) else {
            continue;
        };
        let bytes = u32::try_from(bytes).map_err(|_| {
            LogError::Open(format!(
                "{name} has {bytes} bytes, no segment is that long: take the file away"
            ))
        })?;
        if bytes >= segment::BYTES_MIN {
            segments.push(Segment { number, bytes });
        }
    }
    segments.sort_unstable_by_key(|s| s.number);
    Ok(segments)
}

/// The segments without a header of ours.
fn blank<D: Disk>(
    disk: &D,
    options: &LogOptions,
    segments: &[Segment],
) -> Result<Vec<u32>, LogError> {
    let mut blank = Vec::new();
    for segment in segments {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let name = segment::name(segment.number);
        disk.read_at(&name, 0, &mut bytes)
            .map_err(LogError::Broken)?;
        match segment::read_header(&bytes, options.log_id, segment.number) {
            Found::Ours => {}
            Found::Blank => blank.push(segment.number),
            Found::Format(found) => {
                return Err(LogError::Open(format!(
                    "{name} has format {found}, this build reads {}: use the build that wrote it",
                    segment::FORMAT
                )));
            }
            Found::Foreign(found) => {
                return Err(LogError::Open(format!(
                    "{name} belongs to log {found:032x}, this is {:032x}: the folder is another disk's",
                    options.log_id
                )));
            }
        }
    }
    Ok(blank)
}
