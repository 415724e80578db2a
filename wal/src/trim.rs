//! Letting the oldest segments go, and carrying forward what must not go with them.
//!
//! A segment may go when no shard needs its records. What a later recovery could
//! not know without it is appended again first: the newest metadata, the
//! position of a shard that has no records left, a log generation, and the whole
//! remaining log of a cold shard, which would pin the segment for ever.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::ids::{LogGeneration, Seq, ShardId};
use catena_proto::record::ORIGIN_NONE;

use crate::disk::{Disk, DiskError};
use crate::entry::Draft;
use crate::error::LogError;
use crate::frame::{Kind, frame_bytes};
use crate::index::ShardIndex;
use crate::log::Log;
use crate::segment::{self, reserve};
use crate::spare;

/// A shard that needs at most this much of its log is copied forward when it holds up a trim.
const COPY_BYTES_MAX: u64 = 1 << 20;

/// A frame to be appended again.
struct Copied {
    shard: ShardId,
    kind: Kind,
    payload: Bytes,
}

impl<D: Disk> Log<D> {
    /// Frees the oldest segments while the log is longer than it is to retain, or while the disk has no room for
    /// another one; `floor` says up to where a shard's records are needed neither for recovery nor for a follower.
    /// Returns the shards whose log now starts later, with their new start. To be called every second or so.
    ///
    /// # Errors
    /// [`LogError`], as for append and sync.
    pub fn trim(
        &mut self,
        floor: impl Fn(ShardId) -> Seq,
    ) -> Result<Vec<(ShardId, Seq)>, LogError> {
        self.refuse_if_broken()?;
        self.look_for_room()?;
        self.pinned_by = None;
        let mut moved = BTreeMap::new();
        while self.segments.len() > 1
            && (self.pressed || self.total_bytes() > self.options.retained_bytes)
            && self.free_oldest(&floor, &mut moved)?
        {
            if self.pressed {
                self.try_spare()?;
            }
        }
        Ok(moved.into_iter().collect())
    }

    /// Near a segment's end it has to be known whether there is room for the next one.
    fn look_for_room(&mut self) -> Result<(), LogError> {
        let written = self.segments.back().map_or(0, |s| s.bytes);
        let nearly_full = written.saturating_sub(self.next.offset) < 2 * reserve(written);
        if self.pressed || nearly_full {
            self.try_spare()?;
        }
        Ok(())
    }

    fn try_spare(&mut self) -> Result<(), LogError> {
        match spare::ensure(&mut self.disk, 1, self.options.segment_bytes) {
            Err(DiskError::Full { .. }) => {
                self.pressed = true;
                Ok(())
            }
            done => {
                self.pressed = false;
                self.must(done)
            }
        }
    }

    /// Whether the oldest segment could go.
    fn free_oldest(
        &mut self,
        floor: &impl Fn(ShardId) -> Seq,
        moved: &mut BTreeMap<ShardId, Seq>,
    ) -> Result<bool, LogError> {
        let Some(oldest) = self.segments.front().copied() else {
            return Ok(false);
        };
        let copies = match self.copies_for(oldest.number, oldest.bytes, floor) {
            Ok(copies) => copies,
            Err(shard) => {
                self.pinned_by = Some(shard);
                return Ok(false);
            }
        };
        if !copies.is_empty() {
            for copied in &copies {
                if let Kind::Reset { base, .. } = copied.kind
                    && self
                        .index
                        .get(&copied.shard)
                        .is_some_and(|s| s.start < base)
                {
                    moved.insert(copied.shard, base);
                }
            }
            let drafts = copies
                .iter()
                .map(|c| Draft::with(c.shard, c.kind, &c.payload));
            match self.put(drafts) {
                Err(LogError::Full { .. }) => return Ok(false),
                done => done?,
            }
            // Durable before what they replace goes.
            self.sync()?;
        }
        for (shard, index) in &mut self.index {
            if index.drop_segment(oldest.number) {
                moved.insert(*shard, index.start);
            }
        }
        self.segments.pop_front();
        let gone = self.disk.remove(&segment::name(oldest.number));
        self.must(gone)?;
        let done = self.disk.sync_folder();
        self.must(done)?;
        Ok(true)
    }

    /// What has to be appended again before a segment may go; the shard that pins it if it may not.
    fn copies_for(
        &self,
        segment: u32,
        segment_bytes: u32,
        floor: &impl Fn(ShardId) -> Seq,
    ) -> Result<Vec<Copied>, ShardId> {
        let mut copies = Vec::new();
        let mut copied_bytes = 0;
        for (shard, index) in &self.index {
            let here = index.extents.partition_point(|e| e.segment <= segment);
            let floor = floor(*shard);
            let held = here.checked_sub(1).and_then(|i| index.extents.get(i));
            let cold = held.is_some_and(|e| e.last > floor);
            if cold {
                let needed = index.extents.iter().filter(|e| e.last > floor);
                copied_bytes += needed.map(|e| e.bytes).sum::<u64>();
                // Copying more than half of what is freed would chase its own tail.
                if copied_bytes > COPY_BYTES_MAX.min(u64::from(segment_bytes) / 2) {
                    return Err(*shard);
                }
                self.copy_log(*shard, index, floor, &mut copies)
                    .ok_or(*shard)?;
            } else {
                copy_position(*shard, index, segment, &mut copies);
            }
            copy_state(*shard, index, segment, &mut copies);
        }
        Ok(copies)
    }

    /// The whole log of the shard above the floor, as it would be after a fresh start; `None` if it cannot be read
    /// (the next start says why) or does not fit.
    fn copy_log(
        &self,
        shard: ShardId,
        index: &ShardIndex,
        floor: Seq,
        copies: &mut Vec<Copied>,
    ) -> Option<()> {
        let groups = self.read(shard, floor.max(index.start), usize::MAX).ok()?;
        let base = groups.first()?.first.prev();
        let origin = index.origin_at(base)?;
        let mut copy = |kind, payload| {
            copies.push(Copied {
                shard,
                kind,
                payload,
            });
        };
        copy(Kind::Reset { base, origin }, Bytes::new());
        for group in groups {
            if frame_bytes(group.records.len()) > frame_bytes(self.options.payload_bytes_max()) {
                return None;
            }
            let kind = Kind::Group {
                origin: group.origin,
                first: group.first,
                last: group.last,
            };
            copy(kind, group.records);
            if group.valid_to < group.last {
                let after = group.valid_to;
                copy(Kind::Cut { after }, Bytes::new());
            }
        }
        Some(())
    }
}

/// Where a shard's log stands, if nothing that stays says so.
fn copy_position(shard: ShardId, index: &ShardIndex, segment: u32, copies: &mut Vec<Copied>) {
    let stays = |at: Option<u32>| at.is_some_and(|at| at > segment);
    let records_stay = index.extents.last().is_some_and(|e| e.segment > segment);
    let says_something = index.end() > Seq::ZERO || index.generation > LogGeneration::ZERO;
    if index.anchored && says_something && !records_stay && !stays(index.anchor_segment) {
        let base = index.end();
        let origin = index.origin_at(base).unwrap_or(ORIGIN_NONE);
        copies.push(Copied {
            shard,
            kind: Kind::Reset { base, origin },
            payload: Bytes::new(),
        });
    }
}

/// The newest metadata; and that damage was found which the replica has not answered yet.
fn copy_state(shard: ShardId, index: &ShardIndex, segment: u32, copies: &mut Vec<Copied>) {
    let meta = index
        .meta
        .clone()
        .filter(|_| index.meta_segment == Some(segment));
    let anchored_here = index.anchor_segment == Some(segment);
    let goes = meta.is_some() || anchored_here;
    if let Some(payload) = meta {
        copies.push(Copied {
            shard,
            kind: Kind::Meta,
            payload,
        });
    }
    if index.damaged && goes {
        copies.push(Copied {
            shard,
            kind: index.loss(),
            payload: Bytes::new(),
        });
    }
}
