//! What a replica knows of its own log: positions, origins, and the newest groups in memory.
//!
//! The log itself is on disk, behind `Persist` and `LogRead`; this window holds
//! every group that is not yet applied, and a few older ones for followers.

use std::collections::VecDeque;

use catena_proto::ids::{LogGeneration, Origin, Seq};
use catena_proto::message::OriginSpan;
use catena_proto::record::{Group, ORIGIN_NONE};

/// Applied groups kept in memory for followers that are a little behind, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// The origins of a stretch of a log (rule L1), newest last.
///
/// Position 0, before the first record, counts as made by nobody and agrees with every other log's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origins {
    spans: Vec<OriginSpan>,
}

/// Where two logs part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForkPoint {
    /// They agree up to here, and this is the end of one of them or of the agreement.
    Agreed {
        at: Seq,
        /// Who made the record after `at` here, if there is one.
        mine: Option<Origin>,
        /// Who made the record after `at` there, if there is one.
        theirs: Option<Origin>,
    },
    /// They differ at the first position that both know; where they part is not known.
    Below { known: Seq },
    /// No position is known to both.
    Apart,
}

impl Origins {
    /// Builds the list from spans in order; an empty list is a log that begins at 0.
    pub(super) fn new(mut spans: Vec<OriginSpan>, start: Seq) -> Self {
        spans.retain(|s| s.first > Seq::ZERO);
        if start == Seq::ZERO && spans.first().is_none_or(|s| s.first > Seq::ZERO) {
            spans.insert(
                0,
                OriginSpan {
                    origin: ORIGIN_NONE,
                    first: Seq::ZERO,
                },
            );
        }
        spans.dedup_by(|later, earlier| later.origin == earlier.origin);
        Self { spans }
    }

    /// The lowest position whose origin is known.
    pub(super) fn base(&self) -> Seq {
        self.spans.first().map_or(Seq::ZERO, |s| s.first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Who made the record at `seq`; positions beyond the end count as made by the last origin.
    pub(super) fn at(&self, seq: Seq) -> Option<Origin> {
        let after = self.spans.partition_point(|s| s.first <= seq);
        Some(self.spans[after.checked_sub(1)?].origin)
    }

    fn push(&mut self, origin: Origin, first: Seq) {
        if self.spans.last().is_none_or(|s| s.origin != origin) {
            self.spans.push(OriginSpan { origin, first });
        }
    }

    fn cut(&mut self, after: Seq) {
        self.spans.retain(|s| s.first <= after);
    }

    fn trim(&mut self, start: Seq) {
        let keep = self
            .spans
            .partition_point(|s| s.first <= start)
            .saturating_sub(1);
        self.spans.drain(..keep);
    }

    /// The spans from position `from` on, the first one clipped to it.
    pub(super) fn from(&self, from: Seq) -> Vec<OriginSpan> {
        let keep = self
            .spans
            .partition_point(|s| s.first <= from)
            .saturating_sub(1);
        self.spans[keep..]
            .iter()
            .map(|s| OriginSpan {
                origin: s.origin,
                first: s.first.max(from),
            })
            .collect()
    }

    /// The longest prefix on which two logs agree (rule L2). `same` compares two origins.
    pub(super) fn fork(
        &self,
        my_last: Seq,
        theirs: &Self,
        their_last: Seq,
        same: impl Fn(Origin, Origin) -> bool,
    ) -> ForkPoint {
        let low = self.base().max(theirs.base());
        let high = my_last.min(their_last);
        if self.is_empty() || theirs.is_empty() || low > high {
            return ForkPoint::Apart;
        }
        let agree = |seq| match (self.at(seq), theirs.at(seq)) {
            (Some(a), Some(b)) => same(a, b),
            _ => false,
        };
        if !agree(low) {
            return ForkPoint::Below { known: low };
        }
        // Agreement can only end where a span begins, on either side.
        let mut ends: Vec<Seq> = self
            .spans
            .iter()
            .chain(&theirs.spans)
            .map(|s| s.first)
            .filter(|first| *first > low && *first <= high)
            .collect();
        ends.sort();
        let at = ends
            .into_iter()
            .find(|first| !agree(*first))
            .map_or(high, Seq::prev);
        let next = |origins: &Self, last| {
            if at < last {
                origins.at(at.next())
            } else {
                None
            }
        };
        ForkPoint::Agreed {
            at,
            mine: next(self, my_last),
            theirs: next(theirs, their_last),
        }
    }
}

#[derive(Clone, Debug)]
struct Kept {
    /// The weight of all groups up to and including this one.
    weight: u64,
    group: Group,
}

/// The log as the replica sees it: `applied <= committed <= durable <= last`.
#[derive(Clone, Debug)]
pub(super) struct LogWindow {
    /// The log on disk holds records after this position.
    start: Seq,
    pub(super) origins: Origins,
    /// Newest groups, contiguous, up to `last`; each with the weight of all groups up to it.
    groups: VecDeque<Kept>,
    /// The weight of all groups that were ever in the window up to its front.
    released: u64,
    last: Seq,
    durable: Seq,
    generation: LogGeneration,
}

impl LogWindow {
    /// A log whose groups up to `end` are on disk only.
    pub(super) const fn new(
        start: Seq,
        end: Seq,
        origins: Origins,
        generation: LogGeneration,
    ) -> Self {
        Self {
            start,
            origins,
            groups: VecDeque::new(),
            released: 0,
            last: end,
            durable: end,
            generation,
        }
    }

    /// Everything was made durable outside the usual way (rule L5).
    pub(super) const fn all_durable(&mut self) {
        self.durable = self.last;
    }

    fn keep(&mut self, group: Group) {
        let weight = self.weight() + group.weight() as u64;
        self.groups.push_back(Kept { weight, group });
    }

    /// The weight of all groups that were ever in the window, up to its end.
    fn weight(&self) -> u64 {
        self.groups.back().map_or(self.released, |k| k.weight)
    }

    pub(super) const fn last(&self) -> Seq {
        self.last
    }

    pub(super) const fn durable(&self) -> Seq {
        self.durable
    }

    pub(super) const fn generation(&self) -> LogGeneration {
        self.generation
    }

    /// Bytes of the groups in memory.
    pub(super) fn bytes(&self) -> usize {
        usize::try_from(self.weight() - self.released).unwrap_or(usize::MAX)
    }

    /// Records at or below this position are only in the state.
    pub(super) const fn start(&self) -> Seq {
        self.start
    }

    /// Followers can be sent records after this position: they are retained, and its own origin is known.
    pub(super) fn sendable_after(&self) -> Seq {
        self.start.max(self.origins.base())
    }

    /// Bytes of groups in memory after `seq`.
    pub(super) fn bytes_after(&self, seq: Seq) -> usize {
        let from = self.groups.partition_point(|k| k.group.last <= seq);
        let before = match from.checked_sub(1).and_then(|i| self.groups.get(i)) {
            Some(kept) => kept.weight,
            None => self.released,
        };
        usize::try_from(self.weight() - before).unwrap_or(usize::MAX)
    }

    /// Appends a group that follows the log's end without a gap.
    pub(super) fn append(&mut self, group: Group) {
        assert_eq!(group.first, self.last.next(), "L2: a log has no gaps");
        self.origins.push(group.origin, group.first);
        self.last = group.last;
        self.keep(group);
    }

    /// Drops everything after `after` (rule L2) and raises the generation (rule L3).
    pub(super) fn cut(&mut self, after: Seq) {
        while self.groups.back().is_some_and(|k| k.group.last > after) {
            let cut = self
                .groups
                .pop_back()
                .expect("the back was just seen")
                .group;
            if let Ok(Some(kept)) = cut.prefix_to(after) {
                self.keep(kept);
            }
        }
        self.origins.cut(after);
        self.last = self.last.min(after);
        self.durable = self.durable.min(after);
        self.generation = self.generation.next();
    }

    /// Starts anew behind `base`: a scan replaces what was here.
    pub(super) fn reset(&mut self, base: Seq, origin: Origin) {
        self.groups.clear();
        self.released = 0;
        self.start = base;
        self.last = base;
        self.durable = base;
        self.origins = Origins {
            spans: vec![OriginSpan {
                origin,
                first: base,
            }],
        };
        self.generation = self.generation.next();
    }

    /// A disk completion; one of an older generation is ignored (rule L3) unless `any_generation`.
    pub(super) fn persisted(
        &mut self,
        generation: LogGeneration,
        durable: Seq,
        any_generation: bool,
    ) {
        if generation == self.generation || any_generation {
            self.durable = self.durable.max(durable.min(self.last));
        }
    }

    pub(super) fn trimmed(&mut self, start: Seq) {
        self.start = self.start.max(start.min(self.last));
        self.origins.trim(self.start);
    }

    /// Forgets groups at or below `applied`, but for a small cache.
    pub(super) fn release(&mut self, applied: Seq) {
        while self.bytes() > CACHE_BYTES
            && self.groups.front().is_some_and(|k| k.group.last <= applied)
        {
            if let Some(kept) = self.groups.pop_front() {
                self.released = kept.weight;
            }
        }
    }

    /// Records in (`after`, `to`] from memory, at most about `bytes_max` but at least one group;
    /// `None` if memory no longer reaches back to `after`.
    pub(super) fn read(&self, after: Seq, to: Seq, bytes_max: usize) -> Option<Vec<Group>> {
        let to = to.min(self.last);
        if after >= to {
            return Some(Vec::new());
        }
        let from = self.groups.partition_point(|k| k.group.last <= after);
        if self
            .groups
            .get(from)
            .is_none_or(|k| k.group.first > after.next())
        {
            return None;
        }
        let mut bytes = 0;
        let mut found = Vec::new();
        for Kept { group, .. } in self.groups.range(from..) {
            if group.first > to || (bytes > 0 && bytes + group.weight() > bytes_max) {
                break;
            }
            bytes += group.weight();
            found.push(slice(group, after, to)?);
        }
        Some(found)
    }
}

/// The part of `group` in (`after`, `to`]; `None` only for bytes that are not records.
pub(super) fn slice(group: &Group, after: Seq, to: Seq) -> Option<Group> {
    group.suffix_after(after).ok()??.prefix_to(to).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::{Epoch, Incarnation};
    use proptest::prelude::*;

    fn origin(epoch: u64, incarnation: u64) -> Origin {
        Origin {
            epoch: Epoch::new(epoch),
            incarnation: Incarnation::new(incarnation),
        }
    }

    fn origins(of: &[Origin]) -> Origins {
        let mut origins = Origins::new(Vec::new(), Seq::ZERO);
        for (i, o) in of.iter().enumerate() {
            origins.push(*o, Seq::new(i as u64 + 1));
        }
        origins
    }

    #[test]
    fn same_epoch_other_incarnation_is_another_record() {
        let mine = origins(&[origin(1, 1), origin(1, 1), origin(1, 1)]);
        let theirs = origins(&[origin(1, 1), origin(1, 2), origin(1, 2)]);
        let fork = mine.fork(Seq::new(3), &theirs, Seq::new(3), |a, b| a == b);
        assert_eq!(
            fork,
            ForkPoint::Agreed {
                at: Seq::new(1),
                mine: Some(origin(1, 1)),
                theirs: Some(origin(1, 2))
            }
        );
    }

    proptest! {
        #[test]
        fn the_fork_is_the_longest_common_prefix(
            shared in prop::collection::vec((1..4_u64, 1..3_u64), 0..8),
            mine in prop::collection::vec((4..6_u64, 1..3_u64), 0..5),
            theirs in prop::collection::vec((6..8_u64, 1..3_u64), 0..5),
        ) {
            let list = |tail: &[(u64, u64)]| -> Vec<Origin> {
                shared.iter().chain(tail).map(|(e, i)| origin(*e, *i)).collect()
            };
            let (a, b) = (list(&mine), list(&theirs));
            let fork = origins(&a).fork(
                Seq::new(a.len() as u64),
                &origins(&b),
                Seq::new(b.len() as u64),
                |x, y| x == y,
            );
            prop_assert_eq!(fork, ForkPoint::Agreed {
                at: Seq::new(shared.len() as u64),
                mine: a.get(shared.len()).copied(),
                theirs: b.get(shared.len()).copied(),
            });
        }
    }
}
