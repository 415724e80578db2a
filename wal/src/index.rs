//! Where a shard's records lie: one extent per stretch of a segment, not one entry per group.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};
use catena_proto::record::ORIGIN_NONE;

use crate::frame::{Kind, Position};

/// A stretch is closed at this length: a read walks at most this far to find where it begins.
const STRETCH_BYTES: u32 = 1 << 20;

/// A contiguous stretch of a shard's records inside one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) segment: u32,
    /// Where its first group's frame begins.
    pub(crate) from: u32,
    /// Where its last group's frame begins.
    pub(crate) to: u32,
    pub(crate) first: Seq,
    /// Records after this one were cut.
    pub(crate) last: Seq,
    /// Bytes of its frames.
    pub(crate) bytes: u64,
    /// A cut or a hole ended it: what follows is another stretch.
    sealed: bool,
}

impl Extent {
    const fn first_at(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.from,
        }
    }

    const fn last_at(&self) -> Position {
        Position {
            segment: self.segment,
            offset: self.to,
        }
    }
}

/// What the log knows of a shard.
///
/// Invariants: `extents` are contiguous from `start` on, in order of position; `spans` begin at or before the
/// first record held; a frame of the newest generation, and of the newest metadata, lies in the named segments.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardIndex {
    /// A record, cut or reset has said where the shard's log begins.
    pub(crate) anchored: bool,
    /// Records after this position are held.
    pub(crate) start: Seq,
    pub(crate) extents: Vec<Extent>,
    /// Who made the records, in order: (origin, first seq).
    pub(crate) spans: Vec<(Origin, Seq)>,
    pub(crate) generation: LogGeneration,
    pub(crate) meta: Option<Bytes>,
    /// The number of the shard's newest frame.
    pub(crate) no: u32,
    /// The segment of the newest metadata.
    pub(crate) meta_segment: Option<u32>,
    /// The segment of the newest cut, reset or loss.
    pub(crate) anchor_segment: Option<u32>,
    /// Damage was found and the replica was told, but has not written its metadata since.
    pub(crate) damaged: bool,
    /// Where the append numbered so will have brought the end: while it is checked.
    pub(crate) planned: (u64, Seq),
}

impl ShardIndex {
    /// The last record's position.
    pub(crate) fn end(&self) -> Seq {
        self.extents.last().map_or(self.start, |e| e.last)
    }

    /// Nothing was ever said of the shard.
    pub(crate) const fn is_blank(&self) -> bool {
        !self.anchored && self.meta.is_none()
    }

    /// The frame as it is to be written: a cut never reaches beyond the end.
    pub(crate) fn normal(&self, kind: Kind) -> Kind {
        match kind {
            Kind::Cut { after } => Kind::Cut {
                after: after.min(self.end()),
            },
            Kind::Loss { .. } => self.loss(),
            kind => kind,
        }
    }

    /// Takes in a frame; `bytes` is its whole length. Metadata itself is for the caller to keep.
    pub(crate) fn take(
        &mut self,
        kind: Kind,
        generation: LogGeneration,
        at: Position,
        bytes: usize,
    ) {
        self.raise(generation);
        match kind {
            Kind::Group {
                origin,
                first,
                last,
            } => self.group(at, bytes, origin, (first, last)),
            Kind::Cut { after } => {
                self.cut(after);
                self.anchor_segment = Some(at.segment);
            }
            Kind::Reset { base, origin } => {
                self.reset(base, origin);
                self.anchor_segment = Some(at.segment);
            }
            Kind::Meta => {
                self.meta_segment = Some(at.segment);
                self.damaged = false;
            }
            Kind::Loss {
                end,
                origin,
                held_to,
            } => {
                if self.holds_to(held_to) && self.end() >= end {
                    self.cut(end);
                } else {
                    // What was sound was trimmed, or there was nothing.
                    self.reset(end, origin);
                }
                self.anchor_segment = Some(at.segment);
                self.damaged = true;
            }
            Kind::End | Kind::Mark | Kind::Settled => {}
        }
    }

    pub(crate) fn raise(&mut self, generation: LogGeneration) {
        self.generation = self.generation.max(generation);
    }

    fn group(&mut self, at: Position, bytes: usize, origin: Origin, (first, last): (Seq, Seq)) {
        if !self.anchored {
            // What came before was trimmed; the state's applied position tells if too much is gone.
            self.start = first.prev();
            self.anchored = true;
        }
        if self.spans.last().is_none_or(|(o, _)| *o != origin) {
            self.spans.push((origin, first));
        }
        let grows = |e: &&mut Extent| {
            !e.sealed && e.segment == at.segment && at.offset - e.from < STRETCH_BYTES
        };
        match self.extents.last_mut().filter(grows) {
            Some(extent) => {
                extent.to = at.offset;
                extent.last = last;
                extent.bytes += bytes as u64;
            }
            None => self.extents.push(Extent {
                segment: at.segment,
                from: at.offset,
                to: at.offset,
                first,
                last,
                bytes: bytes as u64,
                sealed: false,
            }),
        }
    }

    fn cut(&mut self, after: Seq) {
        let keep = self.extents.partition_point(|e| e.first <= after);
        self.extents.truncate(keep);
        if let Some(last) = self.extents.last_mut() {
            last.last = last.last.min(after);
            last.sealed = true;
        }
        let keep = self.spans.partition_point(|(_, first)| *first <= after);
        self.spans.truncate(keep);
        if !self.anchored || after < self.start {
            // Everything held was void, or was trimmed: the log is empty behind `after`.
            self.start = after;
            self.anchored = true;
        }
    }

    /// The frame that writes down what is held, as all that is sound.
    pub(crate) fn loss(&self) -> Kind {
        let end = self.end();
        Kind::Loss {
            end,
            origin: self.origin_at(end).unwrap_or(ORIGIN_NONE),
            held_to: self
                .extents
                .last()
                .map_or_else(Position::default, Extent::last_at),
        }
    }

    /// Drops what lies behind the frame at `at`; whether that frame's records are held.
    pub(crate) fn holds_to(&mut self, at: Position) -> bool {
        let sound = self.extents.partition_point(|e| e.first_at() <= at);
        self.extents.truncate(sound);
        self.extents.last().is_some_and(|e| e.last_at() >= at)
    }

    /// Forgets every record, and where the log stands.
    pub(crate) fn forget_records(&mut self) {
        self.extents.clear();
        self.spans.clear();
        self.start = Seq::ZERO;
        self.anchored = false;
    }

    fn reset(&mut self, base: Seq, origin: Origin) {
        self.extents.clear();
        self.spans.clear();
        // A copy forward may not know who made the record at `base`; then nothing is said of it.
        if base == Seq::ZERO || origin != ORIGIN_NONE {
            self.spans.push((origin, base));
        }
        self.start = base;
        self.anchored = true;
    }

    /// What follows is another stretch.
    pub(crate) fn seal(&mut self) {
        if let Some(last) = self.extents.last_mut() {
            last.sealed = true;
        }
    }

    /// Forgets the extents of the oldest segment; whether there were any.
    pub(crate) fn drop_segment(&mut self, segment: u32) -> bool {
        let gone = self.extents.partition_point(|e| e.segment <= segment);
        let Some(last) = gone.checked_sub(1).and_then(|i| self.extents.get(i)) else {
            return false;
        };
        self.start = last.last;
        self.extents.drain(..gone);
        let keep = self
            .spans
            .partition_point(|(_, first)| *first <= self.start)
            .saturating_sub(1);
        self.spans.drain(..keep);
        true
    }

    /// Who made the record at a position that is held, or the one at `start`.
    pub(crate) fn origin_at(&self, seq: Seq) -> Option<Origin> {
        let behind = self.spans.partition_point(|(_, first)| *first <= seq);
        let span = self.spans.get(behind.saturating_sub(1))?;
        Some(span.0)
    }
}

/// Every shard.
pub(crate) type Index = BTreeMap<ShardId, ShardIndex>;

#[cfg(test)]
mod tests {
    use catena_proto::ids::{Epoch, Incarnation};

    use super::*;

    const G: LogGeneration = LogGeneration::ZERO;

    fn group(first: u64, last: u64, epoch: u64) -> Kind {
        Kind::Group {
            origin: origin(epoch),
            first: Seq::new(first),
            last: Seq::new(last),
        }
    }

    fn origin(epoch: u64) -> Origin {
        Origin {
            epoch: Epoch::new(epoch),
            incarnation: Incarnation::new(1),
        }
    }

    fn at(segment: u32, offset: u32) -> Position {
        Position { segment, offset }
    }

    #[test]
    fn a_stretch_is_closed_at_its_length_and_at_its_segments_end() {
        let mut index = ShardIndex::default();
        index.take(group(1, 1, 1), G, at(1, 64), 100);
        index.take(group(2, 2, 1), G, at(1, 164), 100);
        assert_eq!(index.extents.len(), 1);
        index.take(group(3, 3, 1), G, at(1, 64 + STRETCH_BYTES), 100);
        index.take(group(4, 4, 1), G, at(2, 64), 100);
        assert_eq!(index.extents.len(), 3);
        assert_eq!((index.start, index.end()), (Seq::ZERO, Seq::new(4)));
    }

    #[test]
    fn a_cut_below_what_was_trimmed_moves_the_start_back() {
        let mut index = ShardIndex::default();
        index.take(group(8, 10, 1), G, at(2, 64), 100);
        assert_eq!(index.start, Seq::new(7));
        let generation = LogGeneration::new(3);
        let cut = Kind::Cut { after: Seq::new(5) };
        index.take(cut, generation, at(2, 164), 80);
        assert_eq!((index.start, index.end()), (Seq::new(5), Seq::new(5)));
        assert_eq!(index.generation, generation);
        assert!(index.spans.is_empty());
    }

    #[test]
    fn dropping_a_segment_keeps_the_origin_of_the_record_at_the_start() {
        let mut index = ShardIndex::default();
        index.take(group(1, 2, 1), G, at(1, 64), 100);
        index.take(group(3, 4, 2), G, at(1, 164), 100);
        index.take(group(5, 6, 3), G, at(2, 64), 100);
        assert!(index.drop_segment(1));
        assert!(!index.drop_segment(1));
        assert_eq!(index.start, Seq::new(4));
        assert_eq!(
            index.spans,
            [(origin(2), Seq::new(3)), (origin(3), Seq::new(5))]
        );
        assert_eq!(index.origin_at(Seq::new(4)), Some(origin(2)));
        assert_eq!(index.origin_at(Seq::new(6)), Some(origin(3)));
    }
}
