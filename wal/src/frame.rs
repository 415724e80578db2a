//! One frame of a segment: what it says, and where it belongs.
//!
//! The header has a checksum of its own, so that a frame's shard and length can
//! be trusted while its payload is damaged. Both checksums are bound to the
//! log's id and to the frame's own position: a misplaced frame, or one that a
//! recycled segment still holds from its earlier life, never validates.

use catena_proto::ids::{Epoch, Incarnation, LogGeneration, Origin, Seq, ShardId};

/// Bytes of a header; frames start at multiples of [`ALIGN`].
pub(crate) const HEADER_BYTES: usize = 88;
/// Frames are aligned, so that a search for valid ones behind damage is short.
pub(crate) const ALIGN: usize = 8;
const MAGIC: u32 = 0x4341_5446;

/// A byte position in the log: segment, then offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

impl Position {
    const fn raw(self) -> u64 {
        ((self.segment as u64) << 32) | self.offset as u64
    }

    const fn from_raw(raw: u64) -> Self {
        Self {
            segment: (raw >> 32) as u32,
            offset: raw as u32,
        }
    }
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Records `first..=last` of one origin.
    Group {
        origin: Origin,
        first: Seq,
        last: Seq,
    },
    /// Records after `after` are void.
    Cut { after: Seq },
    /// The shard's log starts anew behind `base`.
    Reset { base: Seq, origin: Origin },
    /// The shard's metadata.
    Meta,
    /// The segment goes on in the next one.
    End,
}

/// A frame's header, as read or to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) shard: ShardId,
    /// The shard's log generation behind this frame: a cut that was lost shows in what follows it.
    pub(crate) generation: LogGeneration,
    pub(crate) kind: Kind,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    /// Everything before this position was durable when the frame was written: it tells a torn
    /// batch, which may have holes, from damage.
    pub(crate) synced_to: Position,
}

/// The room a frame with this payload takes.
pub(crate) const fn frame_bytes(payload: usize) -> usize {
    (HEADER_BYTES + payload).next_multiple_of(ALIGN)
}

/// Checksum of a payload, bound to log and position.
pub(crate) fn payload_crc(log_id: u128, at: Position, payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log_id.to_le_bytes());
    crc.update(&at.raw().to_le_bytes());
    crc.update(payload);
    crc.finalize()
}

impl Header {
    /// Encodes the header for its position.
    pub(crate) fn encode(&self, log_id: u128, at: Position) -> [u8; HEADER_BYTES] {
        let (kind, origin, c, d) = match self.kind {
            Kind::Group {
                origin,
                first,
                last,
            } => (1, Some(origin), first.get(), last.get()),
            Kind::Cut { after } => (2, None, after.get(), 0),
            Kind::Reset { base, origin } => (3, Some(origin), base.get(), 0),
            Kind::Meta => (4, None, 0, 0),
            Kind::End => (5, None, 0, 0),
        };
        let (a, b) = origin.map_or((0, 0), |o| (o.epoch.get(), o.incarnation.get()));
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8] = kind;
        out[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        let words = [
            self.synced_to.raw(),
            at.raw(),
            self.shard.get(),
            a,
            b,
            c,
            d,
            self.generation.get(),
        ];
        for (i, word) in words.into_iter().enumerate() {
            out[24 + i * 8..32 + i * 8].copy_from_slice(&word.to_le_bytes());
        }
        let crc = header_crc(log_id, &out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads the header of the frame at `at`; `None` if there is no valid one.
    pub(crate) fn decode(log_id: u128, at: Position, bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let u32_at =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let word = |i: usize| {
            let mut raw = [0; 8];
            raw.copy_from_slice(&bytes[24 + i * 8..32 + i * 8]);
            u64::from_le_bytes(raw)
        };
        if u32_at(0) != MAGIC || u32_at(4) != header_crc(log_id, bytes) || word(1) != at.raw() {
            return None;
        }
        let (a, b, c, d) = (word(3), word(4), word(5), word(6));
        let origin = Origin {
            epoch: Epoch::new(a),
            incarnation: Incarnation::new(b),
        };
        let kind = match bytes[8] {
            1 => Kind::Group {
                origin,
                first: Seq::new(c),
                last: Seq::new(d),
            },
            2 => Kind::Cut { after: Seq::new(c) },
            3 => Kind::Reset {
                base: Seq::new(c),
                origin,
            },
            4 => Kind::Meta,
            5 => Kind::End,
            _ => return None,
        };
        Some(Self {
            shard: ShardId::new(word(2)),
            generation: LogGeneration::new(word(7)),
            kind,
            payload_bytes: u32_at(12),
            payload_crc: u32_at(16),
            synced_to: Position::from_raw(word(0)),
        })
    }
}

fn header_crc(log_id: u128, header: &[u8; HEADER_BYTES]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&log_id.to_le_bytes());
    crc.update(&header[..4]);
    crc.update(&header[8..]);
    crc.finalize()
}

/// Whether a header may begin here at all: cheap, for searching.
pub(crate) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.get(..4) == Some(&MAGIC.to_le_bytes()[..])
}
