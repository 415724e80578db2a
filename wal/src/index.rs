//! Where a shard's records lie: one extent per segment and stretch, not one entry per group.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Origin, Seq, ShardId};

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
    /// A cut ended it: what follows is another stretch.
    pub(crate) sealed: bool,
}

/// What the log knows of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct ShardIndex {
    /// Records after this position are held.
    pub(crate) start: Seq,
    pub(crate) extents: Vec<Extent>,
    /// Who made the records, in order: (origin, first seq).
    pub(crate) spans: Vec<(Origin, Seq)>,
    pub(crate) generation: LogGeneration,
    pub(crate) meta: Option<Bytes>,
    /// The segment of the newest metadata: it is copied before that may go.
    pub(crate) meta_segment: u32,
    /// The segment of the newest cut or reset: what it says is written anew before that may go.
    pub(crate) mark_segment: u32,
}

impl ShardIndex {
    /// The last record's position.
    pub(crate) fn end(&self) -> Seq {
        self.extents.last().map_or(self.start, |e| e.last)
    }

    /// Nothing is known of where its records begin: those before were trimmed, or there are none.
    pub(crate) fn is_unanchored(&self) -> bool {
        self.start == Seq::ZERO && self.extents.is_empty() && self.spans.is_empty()
    }

    pub(crate) fn group(
        &mut self,
        segment: u32,
        offset: u32,
        bytes: u64,
        origin: Origin,
        (first, last): (Seq, Seq),
    ) {
        if self.spans.last().is_none_or(|(o, _)| *o != origin) {
            self.spans.push((origin, first));
        }
        let grows = |e: &&mut Extent| !e.sealed && e.segment == segment && e.last.next() == first;
        match self.extents.last_mut().filter(grows) {
            Some(extent) => {
                extent.to = offset;
                extent.last = last;
                extent.bytes += bytes;
            }
            None => self.extents.push(Extent {
                segment,
                from: offset,
                to: offset,
                first,
                last,
                bytes,
                sealed: false,
            }),
        }
    }

    pub(crate) fn cut(&mut self, after: Seq, generation: LogGeneration) {
        self.extents.retain(|e| e.first <= after);
        if let Some(last) = self.extents.last_mut() {
            last.last = last.last.min(after);
            last.sealed = true;
        }
        self.spans.retain(|(_, first)| *first <= after);
        // Recovery may begin in the middle of what a cut took: the log goes on from where the cut says.
        self.start = self.start.min(after);
        self.generation = self.generation.max(generation);
    }

    /// What follows is another stretch.
    pub(crate) fn seal(&mut self) {
        if let Some(last) = self.extents.last_mut() {
            last.sealed = true;
        }
    }

    pub(crate) fn reset(&mut self, base: Seq, origin: Origin, generation: LogGeneration) {
        self.extents.clear();
        self.spans = vec![(origin, base)];
        self.start = base;
        self.generation = self.generation.max(generation);
    }

    /// Forgets the extents of a segment that goes.
    pub(crate) fn drop_segment(&mut self, segment: u32) {
        while self.extents.first().is_some_and(|e| e.segment == segment) {
            self.start = self.extents.remove(0).last;
        }
        let keep = self
            .spans
            .partition_point(|(_, first)| *first <= self.start)
            .saturating_sub(1);
        self.spans.drain(..keep);
    }
}

/// Every shard.
pub(crate) type Index = BTreeMap<ShardId, ShardIndex>;
