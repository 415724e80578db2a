//! Opening a log: what is whole, what is torn, what is damaged.
//!
//! Frames of one batch may reach the disk in any order before their sync, so a
//! bad frame with valid ones behind it is not yet damage. Each frame says up to
//! where the log was durable when it was written: a bad frame at or behind the
//! largest such position among the valid frames that follow is the torn end of
//! an unsynced batch, and is cut; one before it was durable once, so it is
//! damage (DESIGN §3.1; raft-engine#219 cut it off and lost data).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};

use crate::disk::{Disk, DiskError};
use crate::frame::{self, ALIGN, HEADER_BYTES, Header, Kind, Position};
use crate::index::Index;
use crate::log::{Log, LogError, LogOptions};
use crate::segment::{self, Found, SEGMENT_HEADER_BYTES};

/// What an opened log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// By shard.
    pub shards: BTreeMap<ShardId, RecoveredShard>,
    /// How the log ended.
    pub tail: Tail,
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
    /// The newest metadata.
    pub meta: Option<Bytes>,
    /// Who made the records, in order: (origin, first seq).
    pub spans: Vec<(Origin, Seq)>,
    /// Something durable is lost; what is readable ends before it. Stays until a `Cut` *and* a `Meta` follow.
    pub damage: Option<String>,
}

/// Where a log ends.
struct End {
    at: Position,
    tail: Tail,
    /// What a torn batch left in this segment, up to here, is wiped.
    wipe: Option<u32>,
}

impl End {
    const fn clean(at: Position) -> Self {
        Self {
            at,
            tail: Tail::Clean,
            wipe: None,
        }
    }
}

/// What is in doubt about a shard behind a hole.
#[derive(Clone, Debug)]
struct Doubt {
    what: String,
    records: bool,
    meta: bool,
}

struct Scan<'a, D> {
    disk: &'a D,
    options: LogOptions,
    index: Index,
    doubts: BTreeMap<ShardId, Doubt>,
    /// Every shard that appears anywhere: whom an unreadable hole may concern.
    seen: BTreeSet<ShardId>,
    /// A hole that nobody can be told apart from was met; shards met later are in doubt as well.
    holes: Vec<String>,
}

impl<D: Disk> Log<D> {
    /// Opens a log, or makes an empty one. Everything that is found is durable when this returns (rule L5).
    ///
    /// # Errors
    /// [`LogError::Open`] for segments of another log or format; [`LogError::Broken`], [`LogError::Full`].
    pub fn open(mut disk: D, options: LogOptions) -> Result<(Self, Recovered), LogError> {
        let listed = disk.list().map_err(LogError::Broken)?;
        let mut numbers: Vec<u32> = listed
            .iter()
            .filter_map(|(name, _)| segment::number(name))
            .collect();
        numbers.sort_unstable();
        for (name, len) in &listed {
            if segment::number(name).is_some() && *len != u64::from(options.segment_bytes) {
                return Err(LogError::Open(format!(
                    "{name} has {len} bytes, this build writes segments of {}",
                    options.segment_bytes
                )));
            }
        }
        // A last segment whose header never became durable was never written to.
        while let Some(last) = numbers.last().copied() {
            match read_segment_header(&disk, &options, last)? {
                Found::Blank if is_blank(&disk, &options, last)? => {
                    numbers.pop();
                    disk.remove(&segment::name(last))
                        .map_err(LogError::Broken)?;
                }
                _ => break,
            }
        }
        let mut scan = Scan {
            disk: &disk,
            options,
            index: Index::new(),
            doubts: BTreeMap::new(),
            seen: BTreeSet::new(),
            holes: Vec::new(),
        };
        let End {
            at: end,
            tail,
            wipe,
        } = scan.run(&numbers)?;
        let (index, doubts) = (scan.index, scan.doubts);
        let mut log = Self {
            disk,
            options,
            index,
            segments: numbers.iter().copied().collect::<VecDeque<u32>>(),
            next: end,
            synced: end,
            dirty: Vec::new(),
            buffer: Vec::new(),
            broken: false,
        };
        log.finish(wipe)?;
        let shards = log
            .index
            .iter()
            .map(|(shard, s)| {
                let damage = doubts.get(shard).map(|d| d.what.clone());
                let recovered = RecoveredShard {
                    start: s.start,
                    end: s.end(),
                    generation: s.generation,
                    meta: s.meta.clone(),
                    spans: s.spans.clone(),
                    damage,
                };
                (*shard, recovered)
            })
            .collect();
        Ok((log, Recovered { shards, tail }))
    }

    /// Wipes what was cut, and syncs everything: the page cache is not the disk.
    fn finish(&mut self, wipe: Option<u32>) -> Result<(), LogError> {
        let from = self.next;
        if let Some(to) = wipe {
            let zeros = vec![0; (to - from.offset) as usize];
            self.disk
                .write_at(&segment::name(from.segment), u64::from(from.offset), &zeros)
                .map_err(LogError::Broken)?;
        }
        let keep = self.next.segment;
        while self.segments.back().is_some_and(|n| *n > keep) {
            if let Some(number) = self.segments.pop_back() {
                self.disk
                    .remove(&segment::name(number))
                    .map_err(LogError::Broken)?;
            }
        }
        for number in self.segments.clone() {
            self.disk
                .sync(&segment::name(number))
                .map_err(LogError::Broken)?;
        }
        self.disk.sync_folder().map_err(LogError::Broken)?;
        if self.segments.is_empty() {
            self.next_segment(1).map_err(|error| match error {
                LogError::Broken(DiskError::Full { .. }) => LogError::Full {
                    bytes: u64::from(self.options.segment_bytes),
                },
                other => other,
            })?;
        }
        self.synced = self.next;
        Ok(())
    }
}

fn read_segment_header<D: Disk>(
    disk: &D,
    options: &LogOptions,
    number: u32,
) -> Result<Found, LogError> {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    let name = segment::name(number);
    disk.read_at(&name, 0, &mut bytes)
        .map_err(LogError::Broken)?;
    match segment::read_header(&bytes, options.log_id, number) {
        Found::Format(found) => Err(LogError::Open(format!(
            "{name} has format {found}, this build reads {}: use the build that wrote it",
            segment::FORMAT
        ))),
        Found::Foreign(found) => Err(LogError::Open(format!(
            "{name} belongs to log {found:032x}, this is {:032x}: the folder is another disk's",
            options.log_id
        ))),
        found => Ok(found),
    }
}

/// Whether a segment with an unreadable header holds no frame of ours either.
fn is_blank<D: Disk>(disk: &D, options: &LogOptions, number: u32) -> Result<bool, LogError> {
    let bytes = read_all(disk, options, number)?;
    let from = Position {
        segment: number,
        offset: SEGMENT_HEADER_BYTES as u32,
    };
    Ok(next_valid(&bytes, options, from).is_none())
}

fn read_all<D: Disk>(disk: &D, options: &LogOptions, number: u32) -> Result<Vec<u8>, LogError> {
    let mut bytes = vec![0; options.segment_bytes as usize];
    disk.read_at(&segment::name(number), 0, &mut bytes)
        .map_err(LogError::Broken)?;
    Ok(bytes)
}

/// The frame at a position, if it is whole: header and payload.
fn whole_frame<'a>(
    bytes: &'a [u8],
    options: &LogOptions,
    at: Position,
) -> Option<(Header, &'a [u8])> {
    let (header, payload) = frame_with_header(bytes, options, at)?;
    let payload = payload?;
    let crc = frame::payload_crc(options.log_id, at, payload);
    (crc == header.payload_crc).then_some((header, payload))
}

/// The header at a position, if it is valid, and its payload, if it lies inside the segment.
fn frame_with_header<'a>(
    bytes: &'a [u8],
    options: &LogOptions,
    at: Position,
) -> Option<(Header, Option<&'a [u8]>)> {
    let from = at.offset as usize;
    let header = Header::decode(options.log_id, at, bytes.get(from..)?)?;
    let payload = from + HEADER_BYTES;
    Some((
        header,
        bytes.get(payload..payload + header.payload_bytes as usize),
    ))
}

/// The next whole frame at or after a position of this segment.
fn next_valid(bytes: &[u8], options: &LogOptions, from: Position) -> Option<Position> {
    (from.offset as usize..bytes.len().saturating_sub(HEADER_BYTES - 1))
        .step_by(ALIGN)
        .filter(|offset| frame::looks_like_header(&bytes[*offset..]))
        .map(|offset| Position {
            segment: from.segment,
            offset: offset as u32,
        })
        .find(|at| whole_frame(bytes, options, *at).is_some())
}

impl<D: Disk> Scan<'_, D> {
    /// Reads every segment; where the log ends, how, and what has to be wiped behind its end.
    fn run(&mut self, numbers: &[u32]) -> Result<End, LogError> {
        let mut end = Position::default();
        for (i, number) in numbers.iter().copied().enumerate() {
            let bytes = read_all(self.disk, &self.options, number)?;
            let mut at = Position {
                segment: number,
                offset: SEGMENT_HEADER_BYTES as u32,
            };
            if i > 0 && numbers[i - 1] + 1 != number {
                self.hole(None, format!("segment {} is missing", numbers[i - 1] + 1));
            }
            if read_segment_header(self.disk, &self.options, number)? == Found::Blank {
                self.hole(None, format!("the header of segment {number} is damaged"));
            }
            loop {
                if let Some((header, payload)) = whole_frame(&bytes, &self.options, at) {
                    if header.kind == Kind::End {
                        end = at;
                        break;
                    }
                    self.take(&header, payload, at);
                    at.offset += frame::frame_bytes(payload.len()) as u32;
                    end = at;
                    continue;
                }
                let later = next_valid(&bytes, &self.options, at);
                let synced = self.synced_behind(&bytes, later, &numbers[i + 1..])?;
                if synced <= at {
                    // Nothing behind says that this was ever durable: the end, torn or clean.
                    return Ok(self.torn(&bytes, at, &numbers[i + 1..]));
                }
                // Durable once, and bad now: damage.
                match frame_with_header(&bytes, &self.options, at) {
                    Some((header, Some(payload))) if header.kind != Kind::End => {
                        let what = format!(
                            "the frame at {}/{} does not match its checksum",
                            at.segment, at.offset
                        );
                        self.hole(Some(header.shard), what);
                        at.offset += frame::frame_bytes(payload.len()) as u32;
                    }
                    _ => {
                        let what = format!("the log is unreadable at {}/{}", at.segment, at.offset);
                        self.hole(None, what);
                        match later {
                            Some(later) => at = later,
                            None => break,
                        }
                    }
                }
                end = at;
            }
        }
        Ok(End::clean(end))
    }

    /// The largest position that valid frames behind a bad one call durable.
    fn synced_behind(
        &self,
        bytes: &[u8],
        later: Option<Position>,
        segments: &[u32],
    ) -> Result<Position, LogError> {
        let mut synced = Position::default();
        let mut from = later;
        while let Some(at) = from {
            let Some((header, payload)) = whole_frame(bytes, &self.options, at) else {
                break;
            };
            synced = synced.max(header.synced_to);
            let offset = at.offset + frame::frame_bytes(payload.len()) as u32;
            from = next_valid(bytes, &self.options, Position { offset, ..at });
        }
        for number in segments {
            let bytes = read_all(self.disk, &self.options, *number)?;
            let start = Position {
                segment: *number,
                offset: SEGMENT_HEADER_BYTES as u32,
            };
            let mut from = next_valid(&bytes, &self.options, start);
            while let Some(at) = from {
                let Some((header, payload)) = whole_frame(&bytes, &self.options, at) else {
                    break;
                };
                synced = synced.max(header.synced_to);
                let offset = at.offset + frame::frame_bytes(payload.len()) as u32;
                from = next_valid(&bytes, &self.options, Position { offset, ..at });
            }
        }
        Ok(synced)
    }

    /// The log ends at `at`: what a torn batch left behind it is wiped, so that it can never be read again.
    fn torn(&self, bytes: &[u8], at: Position, later_segments: &[u32]) -> End {
        let written = bytes[at.offset as usize..].iter().rposition(|b| *b != 0);
        match written {
            None if later_segments.is_empty() => End::clean(at),
            written => {
                let to = at.offset + written.map_or(0, |last| last as u32 + 1);
                let tail = Tail::Torn {
                    segment: at.segment,
                    offset: at.offset,
                };
                End {
                    at,
                    tail,
                    wipe: Some(to),
                }
            }
        }
    }

    /// Something durable is gone: of one shard, or of nobody knows which.
    fn hole(&mut self, shard: Option<ShardId>, what: String) {
        let doubt = || Doubt {
            what: what.clone(),
            records: true,
            meta: true,
        };
        for index in self.index.values_mut() {
            // No stretch reaches across a hole: reading it frame by frame would end there.
            index.seal();
        }
        match shard {
            Some(shard) => {
                self.index.entry(shard).or_default();
                self.doubts.insert(shard, doubt());
            }
            None => {
                for shard in &self.seen {
                    self.doubts.insert(*shard, doubt());
                }
                self.holes.push(what);
            }
        }
    }

    fn take(&mut self, header: &Header, payload: &[u8], at: Position) {
        let shard = header.shard;
        let index = self.index.entry(shard).or_default();
        if self.seen.insert(shard)
            && let Some(what) = self.holes.last().cloned()
        {
            // Its beginning may lie in the hole.
            self.doubts.insert(
                shard,
                Doubt {
                    what,
                    records: true,
                    meta: true,
                },
            );
        }
        let mut doubt = self.doubts.get_mut(&shard);
        match header.kind {
            Kind::Group {
                origin,
                first,
                last,
            } => {
                if index.is_unanchored() && doubt.is_none() {
                    index.generation = header.generation;
                    // What came before was trimmed; the state's applied position tells if too much is gone.
                    index.start = first.prev();
                }
                // A generation of its own means that a cut before it is lost.
                let follows = first == index.end().next() && header.generation == index.generation;
                match &mut doubt {
                    // Behind a hole nothing counts: what is readable ends before it.
                    Some(doubt) if doubt.records && !follows => {}
                    // It continues without a gap: these records were not in the hole.
                    _ if follows => {
                        let bytes = frame::frame_bytes(payload.len()) as u64;
                        index.group(at.segment, at.offset, bytes, origin, (first, last));
                        if let Some(doubt) = doubt {
                            doubt.records = false;
                        }
                    }
                    _ => {
                        let what =
                            format!("records {first}..={last} do not follow {}", index.end());
                        self.doubts.insert(
                            shard,
                            Doubt {
                                what,
                                records: true,
                                meta: true,
                            },
                        );
                    }
                }
            }
            Kind::Cut { after } => {
                // A replica that was told of the damage cuts here on purpose.
                if let Some(doubt) = &mut doubt
                    && after <= index.end()
                {
                    doubt.records = false;
                }
                index.cut(after, header.generation);
                index.mark_segment = at.segment;
            }
            Kind::Reset { base, origin } => {
                if let Some(doubt) = &mut doubt {
                    doubt.records = false;
                }
                index.reset(base, origin, header.generation);
                index.mark_segment = at.segment;
            }
            Kind::Meta => {
                index.meta = Some(Bytes::copy_from_slice(payload));
                index.meta_segment = at.segment;
                if let Some(doubt) = &mut doubt {
                    doubt.meta = false;
                }
            }
            Kind::End => {}
        }
        if self
            .doubts
            .get(&shard)
            .is_some_and(|d| !d.records && !d.meta)
        {
            self.doubts.remove(&shard);
        }
    }
}
