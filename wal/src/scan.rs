//! Reading a log after a crash: what is whole, what is torn, what is damaged.
//!
//! Frames of one batch may reach the disk in any order before their sync, so a
//! bad frame with valid ones behind it is not yet damage. Each frame says up to
//! where the log was durable when it was written (`synced_to`). A bad frame at or
//! behind the largest such position among the frames that follow, in this segment
//! or a later one, belongs to a batch that was never synced, and so never
//! counted: the log is cut there. One before it was durable once: that is damage,
//! and it is not cut (raft-engine#219 cut it, and lost data).
//!
//! What no scan can tell: the last synced batch, when nothing behind it speaks of
//! it, looks torn when it is damaged. The next batch speaks of it, or a mark
//! ([`crate::Log::mark`]), or the next start; and the state's applied position is a
//! second witness.

use crate::disk::Disk;
use crate::error::LogError;
use crate::frame::{self, ALIGN, HEADER_BYTES, Header, Kind, Position};
use crate::log::LogOptions;
use crate::recover::Tail;
use crate::segment::{self, FIRST_OFFSET, Found, Segment};
use crate::verdict::Verdict;

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) verdict: Verdict,
    /// Where the log goes on; the default if there is no segment.
    pub(crate) end: Position,
    pub(crate) tail: Tail,
    /// A torn batch lies from `end` to this offset, and has to be wiped.
    pub(crate) torn_to: Option<u32>,
    /// The latest hole that no earlier start has judged.
    pub(crate) hole: Option<String>,
    /// Segments whose header has to be written again: their frames prove whose they are.
    pub(crate) headless: Vec<u32>,
}

/// A frame, as far as it can be read.
enum Read<'a> {
    Whole(Header, &'a [u8]),
    /// The header can be trusted, the payload not.
    Damaged(Header),
    Nothing,
}

struct Scan<'a, D> {
    disk: &'a D,
    log_id: u128,
    segments: &'a [Segment],
    found: Scanned,
    /// The largest position that any frame behind the first bad one calls durable; looked for once, since a frame
    /// never speaks of what lies behind itself.
    durable: Option<Position>,
    /// Reused for every segment.
    buffer: Vec<u8>,
}

/// Reads every segment.
///
/// # Errors
/// [`LogError::Broken`] if the disk cannot be read.
pub(crate) fn scan<D: Disk>(
    disk: &D,
    options: &LogOptions,
    segments: &[Segment],
) -> Result<Scanned, LogError> {
    let mut scan = Scan {
        disk,
        log_id: options.log_id,
        segments,
        found: Scanned {
            verdict: Verdict::new(segments.first().map_or(0, |s| s.number)),
            ..Scanned::default()
        },
        durable: None,
        buffer: Vec::new(),
    };
    for i in 0..segments.len() {
        if scan.segment(i)? {
            break;
        }
    }
    scan.found.hole = scan.found.verdict.close();
    Ok(scan.found)
}

/// Whether a segment holds no frame of this log.
pub(crate) fn is_empty<D: Disk>(
    disk: &D,
    log_id: u128,
    segment: Segment,
) -> Result<bool, LogError> {
    let mut bytes = Vec::new();
    read_all(disk, segment, &mut bytes)?;
    Ok(next_header(&bytes, log_id, first(segment)).is_none())
}

const fn first(segment: Segment) -> Position {
    Position {
        segment: segment.number,
        offset: FIRST_OFFSET,
    }
}

impl<D: Disk> Scan<'_, D> {
    /// Walks one segment; whether the log ends in it.
    fn segment(&mut self, i: usize) -> Result<bool, LogError> {
        let mut bytes = std::mem::take(&mut self.buffer);
        read_all(self.disk, self.segments[i], &mut bytes)?;
        let ends = self.walk(i, &bytes);
        self.buffer = bytes;
        ends
    }

    fn walk(&mut self, i: usize, bytes: &[u8]) -> Result<bool, LogError> {
        let segment = self.segments[i];
        if let Some(before) = i.checked_sub(1).map(|before| self.segments[before].number)
            && before.checked_add(1) != Some(segment.number)
        {
            let what = format!("no segment follows segment {before} of the log");
            self.found.verdict.hole(what);
        }
        if segment::read_header(bytes, self.log_id, segment.number) != Found::Ours {
            self.found.headless.push(segment.number);
        }
        let mut at = first(segment);
        loop {
            self.found.end = at;
            match read(bytes, self.log_id, at) {
                Read::Whole(header, _) if header.kind == Kind::End => return Ok(false),
                Read::Whole(header, payload) => {
                    self.found.verdict.take(&header, payload, at);
                    at.offset = behind(at, &header);
                }
                _ if self.durable_behind(bytes, at, i)? <= at => {
                    self.torn(bytes, at, i);
                    return Ok(true);
                }
                Read::Damaged(header) => {
                    let what = format!(
                        "the frame at byte {} of segment {} does not match its checksum",
                        at.offset, at.segment
                    );
                    self.found.verdict.take_damaged(&header, &what);
                    at.offset = behind(at, &header);
                }
                Read::Nothing => {
                    let what = format!(
                        "segment {} of the log is unreadable at byte {}",
                        at.segment, at.offset
                    );
                    self.found.verdict.hole(what);
                    match next_header(bytes, self.log_id, at) {
                        Some((later, _)) => at = later,
                        None => return Ok(false),
                    }
                }
            }
        }
    }

    /// The largest position that a frame behind a bad one calls durable.
    fn durable_behind(
        &mut self,
        bytes: &[u8],
        at: Position,
        i: usize,
    ) -> Result<Position, LogError> {
        if let Some(durable) = self.durable {
            return Ok(durable);
        }
        let mut durable = newest_word(bytes, self.log_id, at);
        let mut bytes = Vec::new();
        for segment in &self.segments[i + 1..] {
            read_all(self.disk, *segment, &mut bytes)?;
            durable = durable.max(newest_word(&bytes, self.log_id, first(*segment)));
        }
        self.durable = Some(durable);
        Ok(durable)
    }

    /// The log ends here. What a torn batch left behind it is to be wiped, so that it can never be read again.
    fn torn(&mut self, bytes: &[u8], at: Position, i: usize) {
        let written = bytes
            .get(at.offset as usize..)
            .and_then(|rest| rest.iter().rposition(|b| *b != 0));
        self.found.torn_to = written.map(|last| at.offset + last as u32 + 1);
        if written.is_some() || i + 1 < self.segments.len() {
            self.found.tail = Tail::Torn {
                segment: at.segment,
                offset: at.offset,
            };
        }
    }
}

const fn behind(at: Position, header: &Header) -> u32 {
    at.offset.saturating_add(header.frame_bytes() as u32)
}

fn read_all<D: Disk>(disk: &D, segment: Segment, bytes: &mut Vec<u8>) -> Result<(), LogError> {
    bytes.resize(segment.bytes as usize, 0);
    disk.read_at(&segment::name(segment.number), 0, bytes)
        .map_err(LogError::Broken)
}

/// The valid header at a position, of a frame that lies inside the segment.
fn header_at(bytes: &[u8], log_id: u128, at: Position) -> Option<Header> {
    let rest = bytes.get(at.offset as usize..)?;
    Header::decode(log_id, at, rest).filter(|header| header.frame_bytes() <= rest.len())
}

fn read(bytes: &[u8], log_id: u128, at: Position) -> Read<'_> {
    let Some(header) = header_at(bytes, log_id, at) else {
        return Read::Nothing;
    };
    let from = at.offset as usize + HEADER_BYTES;
    let payload = &bytes[from..from + header.payload_bytes as usize];
    if frame::payload_crc(log_id, at, payload) == header.payload_crc {
        Read::Whole(header, payload)
    } else {
        Read::Damaged(header)
    }
}

/// The next valid header at or behind a position of this segment.
fn next_header(bytes: &[u8], log_id: u128, from: Position) -> Option<(Position, Header)> {
    (from.offset as usize..bytes.len())
        .step_by(ALIGN)
        .filter(|offset| frame::looks_like_header(&bytes[*offset..]))
        .find_map(|offset| {
            let at = Position {
                segment: from.segment,
                offset: offset as u32,
            };
            header_at(bytes, log_id, at).map(|header| (at, header))
        })
}

/// The largest position that a frame of this segment, at or behind `from`, calls durable.
fn newest_word(bytes: &[u8], log_id: u128, mut from: Position) -> Position {
    let mut newest = Position::default();
    while let Some((at, header)) = next_header(bytes, log_id, from) {
        newest = newest.max(header.synced_to);
        from.offset = behind(at, &header);
    }
    newest
}
