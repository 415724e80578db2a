//! One key's operations, arranged for the search.
//!
//! - *Certain* operations have a return. They are numbered in the order of
//!   their returns, so the first one that is not placed yet bounds what can be
//!   placed next: only operations called before its return.
//! - *Optional* operations have none: each may be placed any time after its
//!   call, or never.
//! - Operations with the same act form a *class*. Of those that can be placed
//!   now only one has to be tried: the one that returns first, and optional
//!   ones, earliest call first, after all certain ones. (Two of them could
//!   swap places in any order that uses the other one first.)
//! - A *slot* is the place of a certain operation in a bit mask: operations
//!   that overlap never share one. Since everything called after the bound is
//!   unplaced, and everything that returned before it is placed, the bound and
//!   the mask of the unplaced ones in between name the set exactly, in a few
//!   words, however long the history is.

use std::collections::BTreeSet;

use super::key_state::Act;
use super::model::KeyOp;
use super::word_hash::WordMap;

/// An operation that took effect between its call and its return.
#[derive(Clone, Copy, Debug)]
pub(super) struct Certain {
    pub(super) act: Act,
    pub(super) class: u32,
    pub(super) call: u32,
    pub(super) ret: u32,
    pub(super) slot: u32,
}

/// The operations with one act.
#[derive(Clone, Debug)]
pub(super) struct Class {
    pub(super) act: Act,
    /// Its certain operations, in the order of calls.
    pub(super) certain: Vec<u32>,
    /// The calls of its optional operations, in order.
    pub(super) optional: Vec<u32>,
}

/// One key's operations, arranged.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    /// Certain operations in the order of returns.
    pub(super) certain: Vec<Certain>,
    /// The same in the order of calls.
    pub(super) by_call: Vec<u32>,
    /// Those that were told a version, by version (observations last).
    pub(super) by_version: Vec<u32>,
    /// All classes.
    pub(super) classes: Vec<Class>,
    /// The classes that have optional operations.
    pub(super) optional_classes: Vec<u32>,
    /// How many 64-bit words a mask of slots has.
    pub(super) mask_words: usize,
}

impl Timeline {
    /// Arranges operations, whose calls and returns are all different.
    pub(super) fn new(ops: &[KeyOp]) -> Self {
        let mut class_of: WordMap<Act, u32> = WordMap::default();
        let mut classes: Vec<Class> = Vec::new();
        let mut certain: Vec<Certain> = Vec::new();
        let mut by_call: Vec<&KeyOp> = ops.iter().collect();
        by_call.sort_by_key(|op| op.call);
        for op in by_call {
            let class = *class_of.entry(op.act).or_insert_with(|| {
                classes.push(Class {
                    act: op.act,
                    certain: Vec::new(),
                    optional: Vec::new(),
                });
                // Positions are 32-bit (`history::EVENTS_MAX`), so counts are too.
                classes.len() as u32 - 1
            });
            match op.ret {
                Some(ret) => {
                    certain.push(Certain {
                        act: op.act,
                        class,
                        call: op.call,
                        ret,
                        slot: 0,
                    });
                }
                None => classes[class as usize].optional.push(op.call),
            }
        }
        certain.sort_by_key(|op| op.ret);
        let mut by_call: Vec<u32> = (0..certain.len() as u32).collect();
        by_call.sort_by_key(|id| certain[*id as usize].call);
        let slots = assign_slots(&mut certain, &by_call);
        for id in &by_call {
            classes[certain[*id as usize].class as usize]
                .certain
                .push(*id);
        }
        let mut by_version: Vec<u32> = by_call
            .iter()
            .copied()
            .filter(|id| certain[*id as usize].act.told_version().is_some())
            .collect();
        by_version.sort_by_key(|id| {
            let act = certain[*id as usize].act;
            (act.told_version(), act.is_observation())
        });
        let optional_classes = (0..classes.len() as u32)
            .filter(|class| !classes[*class as usize].optional.is_empty())
            .collect();
        Self {
            certain,
            by_call,
            by_version,
            classes,
            optional_classes,
            mask_words: slots.div_ceil(64),
        }
    }
}

/// Gives each operation the lowest slot that is free at its call; returns how many there are.
fn assign_slots(certain: &mut [Certain], by_call: &[u32]) -> usize {
    let mut free: BTreeSet<u32> = BTreeSet::new();
    let mut slots = 0;
    let mut returned = 0;
    for id in by_call {
        let call = certain[*id as usize].call;
        while certain[returned].ret < call {
            free.insert(certain[returned].slot);
            returned += 1;
        }
        certain[*id as usize].slot = free.pop_first().unwrap_or_else(|| {
            slots += 1;
            slots - 1
        });
    }
    slots as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::content::ContentId;

    fn read(call: u32, ret: Option<u32>) -> KeyOp {
        let act = Act::Read {
            content: ContentId::ABSENT,
            version: None,
        };
        KeyOp {
            act,
            call,
            ret,
            source: 0,
        }
    }

    #[test]
    fn overlapping_operations_never_share_a_slot() {
        let timeline = Timeline::new(&[
            read(0, Some(9)),
            read(1, Some(2)),
            read(3, Some(6)),
            read(4, Some(5)),
            read(7, None),
        ]);
        let slots: Vec<_> = timeline
            .by_call
            .iter()
            .map(|id| timeline.certain[*id as usize].slot)
            .collect();
        assert_eq!(slots, [0, 1, 1, 2]);
        assert_eq!(timeline.classes.len(), 1);
        assert_eq!(timeline.classes[0].optional, [7]);
    }
}
