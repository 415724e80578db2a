//! One frame of a segment: what it says, and where it belongs.
//!
//! The header has a checksum of its own, so that a frame's shard and length can
//! be trusted while its payload is damaged. Both checksums are bound to the
//! log's id and to the frame's own position: a misplaced frame, or one that was
//! left behind by an earlier life of the file, never validates.
//!
//! Two fields exist for recovery only. `synced_to` says what was durable when
//! the frame was written: it tells a torn batch from damage. `no` counts the
//! shard's frames without gaps: it proves that a hole held nothing of the shard.
//! (Positions of records do not prove it: a hole may have held a cut, and as
//! many records again.)

use catena_proto::ids::{Epoch, Incarnation, LogGeneration, Origin, Seq, ShardId};

/// Bytes of a header.
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
    /// Only says what is durable: after it, damage to an idle log's last batch is told from a torn end.
    Mark,
    /// Recovery met holes and judged whom they concern: what is first met behind them is whole, unless a `Loss`
    /// follows. (What proved it may be trimmed away later.)
    Settled,
    /// Recovery found the shard damaged: its log ends at `end`, whatever lies before this frame. Its last sound
    /// record is in the frame at `held_to`: what lies behind that is void, also when a trim has taken the proof.
    Loss {
        end: Seq,
        origin: Origin,
        held_to: Position,
    },
}

impl Kind {
    /// Records, which may take a whole segment; all other kinds are small, and may use a segment's reserve.
    pub(crate) const fn is_bulk(&self) -> bool {
        matches!(self, Self::Group { .. })
    }

    /// The frame is of the log itself, and of no shard.
    pub(crate) const fn is_of_no_shard(&self) -> bool {
        matches!(self, Self::End | Self::Mark | Self::Settled)
    }
}

/// A frame's header, as read or to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) shard: ShardId,
    pub(crate) kind: Kind,
    /// The shard's log generation behind this frame: whatever is trimmed, what stays still tells it.
    pub(crate) generation: LogGeneration,
    /// The number of this frame among those of its shard: each has the next one (it wraps).
    pub(crate) no: u32,
    pub(crate) payload_bytes: u32,
    pub(crate) payload_crc: u32,
    /// Everything before this position was durable when the frame was written; never behind the frame itself.
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
            Kind::Mark => (6, None, 0, 0),
            Kind::Loss {
                end,
                origin,
                held_to,
            } => (7, Some(origin), end.get(), held_to.raw()),
            Kind::Settled => (8, None, 0, 0),
        };
        let (a, b) = origin.map_or((0, 0), |o| (o.epoch.get(), o.incarnation.get()));
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&MAGIC.to_le_bytes());
        out[8] = kind;
        out[12..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[16..20].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[20..24].copy_from_slice(&self.no.to_le_bytes());
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
        let origin = Origin {
            epoch: Epoch::new(word(3)),
            incarnation: Incarnation::new(word(4)),
        };
        let seq = Seq::new(word(5));
        let kind = match bytes[8] {
            1 => Kind::Group {
                origin,
                first: seq,
                last: Seq::new(word(6)),
            },
            2 => Kind::Cut { after: seq },
            3 => Kind::Reset { base: seq, origin },
            4 => Kind::Meta,
            5 => Kind::End,
            6 => Kind::Mark,
            7 => Kind::Loss {
                end: seq,
                origin,
                held_to: Position::from_raw(word(6)),
            },
            8 => Kind::Settled,
            _ => return None,
        };
        Some(Self {
            shard: ShardId::new(word(2)),
            kind,
            generation: LogGeneration::new(word(7)),
            no: u32_at(20),
            payload_bytes: u32_at(12),
            payload_crc: u32_at(16),
            synced_to: Position::from_raw(word(0)),
        })
    }

    /// The room that the whole frame takes.
    pub(crate) const fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Position = Position {
        segment: 3,
        offset: 4096,
    };

    fn kinds() -> [Kind; 8] {
        let origin = Origin {
            epoch: Epoch::new(5),
            incarnation: Incarnation::new(6),
        };
        let (seq, last) = (Seq::new(7), Seq::new(8));
        [
            Kind::Group {
                origin,
                first: seq,
                last,
            },
            Kind::Cut { after: seq },
            Kind::Reset { base: seq, origin },
            Kind::Meta,
            Kind::End,
            Kind::Mark,
            Kind::Settled,
            Kind::Loss {
                end: seq,
                origin,
                held_to: AT,
            },
        ]
    }

    fn header(kind: Kind) -> Header {
        Header {
            shard: ShardId::new(11),
            kind,
            generation: LogGeneration::new(9),
            no: 12,
            payload_bytes: 13,
            payload_crc: 14,
            synced_to: Position {
                segment: 3,
                offset: 64,
            },
        }
    }

    #[test]
    fn every_kind_survives_encoding() {
        for kind in kinds() {
            let header = header(kind);
            assert_eq!(Header::decode(1, AT, &header.encode(1, AT)), Some(header));
        }
    }

    #[test]
    fn a_header_is_refused_elsewhere_in_another_log_and_with_any_bit_flipped() {
        let bytes = header(kinds()[0]).encode(1, AT);
        let elsewhere = Position { segment: 4, ..AT };
        assert_eq!(Header::decode(1, elsewhere, &bytes), None);
        assert_eq!(Header::decode(2, AT, &bytes), None);
        assert_eq!(Header::decode(1, AT, &bytes[..HEADER_BYTES - 1]), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(1, AT, &flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_payload_belongs_to_its_log_and_place() {
        let here = payload_crc(1, AT, b"records");
        assert_ne!(here, payload_crc(2, AT, b"records"));
        assert_ne!(
            here,
            payload_crc(1, Position { offset: 4104, ..AT }, b"records")
        );
    }
}
