//! Segment files: their names, their headers, and the room in them.

use crate::frame::HEADER_BYTES;

/// Bytes before the first frame of a segment.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// Where the first frame of a segment lies.
pub(crate) const FIRST_OFFSET: u32 = SEGMENT_HEADER_BYTES as u32;
/// Smallest segment that makes sense at all; a node's are far larger.
pub(crate) const BYTES_MIN: u32 = 4096;
/// Largest room at a segment's end that records leave to cuts and metadata.
const RESERVE_BYTES_MAX: u32 = 64 << 10;
const MAGIC: &[u8; 8] = b"CATENALG";
/// The version of segments and frames; another one is refused.
pub(crate) const FORMAT: u32 = 2;

/// One file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    /// Its length; segments of other lengths stay readable when the setting changes.
    pub(crate) bytes: u32,
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A segment of this log.
    Ours,
    /// No header: nothing was ever written here, or it is damaged.
    Blank,
    /// Another format version.
    Format(u32),
    /// A segment of another log.
    Foreign(u128),
}

pub(crate) fn name(number: u32) -> String {
    format!("segment-{number:010}")
}

/// The number of a segment's file; `None` for a file that is no segment.
pub(crate) fn number(file: &str) -> Option<u32> {
    let number = file.strip_prefix("segment-")?.parse().ok()?;
    (name(number) == file).then_some(number)
}

/// Where a frame must end in a segment: records leave the reserve free, and every frame leaves room for an `End`.
///
/// The reserve is what a node can still say when its disk is full: that it accepted an epoch, or cut its log.
pub(crate) const fn limit(segment_bytes: u32, bulk: bool) -> usize {
    let end = segment_bytes as usize - HEADER_BYTES;
    if bulk {
        end - reserve(segment_bytes) as usize
    } else {
        end
    }
}

/// The room that records leave free at a segment's end.
pub(crate) const fn reserve(segment_bytes: u32) -> u32 {
    let part = segment_bytes / 16;
    if part < RESERVE_BYTES_MAX {
        part
    } else {
        RESERVE_BYTES_MAX
    }
}

pub(crate) fn header(log_id: u128, number: u32) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut out = [0; SEGMENT_HEADER_BYTES];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..16].copy_from_slice(&number.to_le_bytes());
    out[16..32].copy_from_slice(&log_id.to_le_bytes());
    let crc = crc32fast::hash(&out[..32]);
    out[32..36].copy_from_slice(&crc.to_le_bytes());
    out
}

pub(crate) fn read_header(bytes: &[u8], log_id: u128, number: u32) -> Found {
    if bytes.get(..SEGMENT_HEADER_BYTES) == Some(&header(log_id, number)[..]) {
        return Found::Ours;
    }
    let field = |from: usize| -> Option<[u8; 4]> { bytes.get(from..from + 4)?.try_into().ok() };
    let whole = bytes.len() >= 36
        && &bytes[..8] == MAGIC
        && field(32).map(u32::from_le_bytes) == Some(crc32fast::hash(&bytes[..32]));
    if !whole {
        return Found::Blank;
    }
    let version = field(8).map_or(0, u32::from_le_bytes);
    if version != FORMAT {
        return Found::Format(version);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&bytes[16..32]);
    match u128::from_le_bytes(id) {
        // Ours by name, but of another number: a misplaced file. Its frames do not validate either.
        found if found == log_id => Found::Blank,
        found => Found::Foreign(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_nothing_else_is_a_segment() {
        assert_eq!(number(&name(7)), Some(7));
        for file in ["segment-7", "segment-+000000007", "spare", "segment-"] {
            assert_eq!(number(file), None, "{file}");
        }
    }

    #[test]
    fn a_header_tells_ours_from_foreign_other_formats_and_rubbish() {
        let ours = header(1, 2);
        assert_eq!(read_header(&ours, 1, 2), Found::Ours);
        assert_eq!(read_header(&ours, 9, 2), Found::Foreign(1));
        assert_eq!(read_header(&ours, 1, 3), Found::Blank);
        assert_eq!(read_header(&ours[..20], 1, 2), Found::Blank);
        let mut newer = ours;
        newer[8] = 77;
        assert_eq!(read_header(&newer, 1, 2), Found::Blank, "a flipped bit");
        let crc = crc32fast::hash(&newer[..32]);
        newer[32..36].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(read_header(&newer, 1, 2), Found::Format(77));
    }
}
