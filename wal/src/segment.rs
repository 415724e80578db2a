//! Segment files: their names and headers.

/// Bytes before the first frame of a segment.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"CATENALG";
/// The version of segments and frames; another one is refused.
pub(crate) const FORMAT: u32 = 1;

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A segment of this log.
    Ours,
    /// Nothing was ever written here, or not all of the header.
    Blank,
    /// Another format version.
    Format(u32),
    /// A segment of another log.
    Foreign(u128),
}

pub(crate) fn name(number: u32) -> String {
    format!("segment-{number:010}")
}

pub(crate) fn number(name: &str) -> Option<u32> {
    name.strip_prefix("segment-")?.parse().ok()
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
        // Ours by name, but of another number: a misplaced or recycled file.
        found if found == log_id => Found::Blank,
        found => Found::Foreign(found),
    }
}
