//! Where each content that an answer names must have come from.
//!
//! Before the search, every named content is traced back over the appends
//! that could have ended it, to the writes that could have begun it. This
//! tells three things that are true of every linearization:
//!
//! - contents outside these lines are all alike: no answer can tell them
//!   apart, so they become one ([`ContentId::OTHER`]), and the writes that
//!   lead nowhere else become one class;
//! - an append whose item is appended once, and that is the only way to a
//!   content that was seen, is *pinned* to the content before it;
//! - a content that was seen and can be made once only holds for one stretch
//!   of time, so the answers that name it frame a *zone* in which the key had
//!   it for certain. Zones cannot overlap, and nothing that contradicts a
//!   content fits into its zone (Gibbons and Korach, 1997).
//!
//! Where increments are, or the lines are too many, nothing is said.

use std::collections::BTreeMap;

use super::content::{ContentId, Contents};
use super::key_state::{Act, CasTold, Condition};
use super::model::KeyOp;
use super::word_hash::WordMap;

/// Traced contents for each operation, at most: without ambiguity there is about one.
const TRACED_PER_OP_MAX: usize = 16;

/// The lines of the contents that answers name.
#[derive(Debug)]
pub(super) struct Lineage {
    /// (content, item) to the content after the append, within the lines.
    edges: WordMap<(u32, u32), ContentId>,
    /// All contents of the lines.
    traced: WordMap<u32, Traced>,
    /// Per item: how many operations append it.
    items: WordMap<u32, u32>,
    /// Per item that is pinned: the content before it.
    pins: WordMap<u32, ContentId>,
    /// Contents that are made once, and by which item if by an append.
    made_once: Vec<(ContentId, Option<u32>)>,
    contradiction: bool,
}

#[derive(Debug, Default)]
struct Traced {
    /// The appends that could have made it: item, and the content before.
    appends: Vec<(ContentId, ContentId)>,
    /// How many operations set the whole value to it.
    setters: u32,
}

impl Lineage {
    /// Traces the contents that the operations name; `None` when it would say nothing.
    pub(super) fn new(ops: &[KeyOp], initial: ContentId, contents: &mut Contents) -> Option<Self> {
        let mut lineage = Self {
            edges: WordMap::default(),
            traced: WordMap::default(),
            items: WordMap::default(),
            pins: WordMap::default(),
            made_once: Vec::new(),
            contradiction: false,
        };
        let mut named: Vec<ContentId> = Vec::new();
        for op in ops {
            match op.act {
                Act::Incr { .. } => return None,
                Act::Append { chunk, .. } if contents.len(chunk) == 0 => return None,
                Act::Append { chunk, .. } => *lineage.items.entry(chunk.get()).or_default() += 1,
                Act::Cas {
                    condition: Condition::Content(content),
                    ..
                } => named.push(content),
                Act::Read { content, .. } => named.push(content),
                Act::Put { .. } | Act::Delete { .. } | Act::Cas { .. } => {}
            }
        }
        named.push(ContentId::ABSENT);
        lineage.trace(named, ops.len() * TRACED_PER_OP_MAX + 1024, contents)?;
        for op in ops {
            let set = match op.act {
                Act::Put { content, .. } => content,
                Act::Cas { content, .. } if !op.act.is_observation() => content,
                Act::Delete { .. } if !op.act.is_observation() => ContentId::ABSENT,
                _ => continue,
            };
            if let Some(traced) = lineage.traced.get_mut(&set.get()) {
                traced.setters += 1;
            }
        }
        lineage.keep_what_can_be_made(initial, contents);
        lineage.derive(ops, initial, contents);
        lineage.contradiction |= lineage.zones_collide(ops, initial);
        Some(lineage)
    }

    /// Whether the operations have no linearization, by what was derived alone.
    pub(super) const fn contradicts(&self) -> bool {
        self.contradiction
    }

    /// The same operations without distinctions that no answer makes.
    pub(super) fn simplify(&self, ops: &[KeyOp]) -> Vec<KeyOp> {
        let used: WordMap<u32, ()> = self.edges.keys().map(|(_, item)| (*item, ())).collect();
        let content_or_other = |content: ContentId| {
            if self.traced.contains_key(&content.get()) {
                content
            } else {
                ContentId::OTHER
            }
        };
        let simpler = |act: Act| match act {
            Act::Put { content, version } => Act::Put {
                content: content_or_other(content),
                version,
            },
            Act::Cas {
                condition,
                content,
                told,
            } => Act::Cas {
                condition,
                content: content_or_other(content),
                told,
            },
            Act::Append { chunk, version } if !used.contains_key(&chunk.get()) => Act::Put {
                content: ContentId::OTHER,
                version,
            },
            act => act,
        };
        ops.iter()
            .map(|op| KeyOp {
                act: simpler(op.act),
                ..*op
            })
            .collect()
    }

    /// The content that an append of `item` must find.
    pub(super) fn pin(&self, item: ContentId) -> Option<ContentId> {
        self.pins.get(&item.get()).copied()
    }

    /// Hands over the appends within the lines.
    pub(super) fn take_edges(&mut self) -> WordMap<(u32, u32), ContentId> {
        std::mem::take(&mut self.edges)
    }

    fn trace(
        &mut self,
        mut open: Vec<ContentId>,
        traced_max: usize,
        contents: &mut Contents,
    ) -> Option<()> {
        let mut lens: BTreeMap<usize, ()> = BTreeMap::new();
        let items: Vec<ContentId> = self
            .items
            .keys()
            .map(|item| ContentId::from_raw(*item))
            .collect();
        for item in items {
            lens.insert(contents.len(item), ());
        }
        let empty = contents.intern(&bytes::Bytes::new());
        while let Some(content) = open.pop() {
            if self.traced.contains_key(&content.get()) {
                continue;
            }
            if self.traced.len() == traced_max {
                return None;
            }
            let mut traced = Traced::default();
            let whole = contents.bytes(content);
            for len in lens.keys().filter(|len| **len <= whole.len()) {
                let Some(item) = contents.find(&whole[whole.len() - len..]) else {
                    continue;
                };
                if !self.items.contains_key(&item.get()) {
                    continue;
                }
                let before = contents.without_suffix(content, item);
                if before == empty {
                    self.edges
                        .insert((ContentId::ABSENT.get(), item.get()), content);
                }
                self.edges.insert((before.get(), item.get()), content);
                traced.appends.push((item, before));
                open.push(before);
            }
            self.traced.insert(content.get(), traced);
        }
        Some(())
    }

    /// Drops the ways that begin nowhere: "x1" has no other way than the item "1" merely because it ends with "1".
    fn keep_what_can_be_made(&mut self, initial: ContentId, contents: &Contents) {
        let mut by_len: Vec<ContentId> = self
            .traced
            .keys()
            .map(|content| ContentId::from_raw(*content))
            .collect();
        by_len.sort_unstable_by_key(|content| (contents.len(*content), *content));
        let mut made: WordMap<u32, ()> = WordMap::default();
        for content in by_len {
            let Some(traced) = self.traced.get_mut(&content.get()) else {
                continue;
            };
            traced.appends.retain(|(_, before)| {
                contents.len(*before) == 0 || made.contains_key(&before.get())
            });
            let can = content == initial || traced.setters > 0 || !traced.appends.is_empty();
            if can {
                made.insert(content.get(), ());
            }
        }
        let empty_or_made = |content: u32| {
            contents.len(ContentId::from_raw(content)) == 0 || made.contains_key(&content)
        };
        self.edges.retain(|(before, _), _| empty_or_made(*before));
    }

    /// Goes back from what was seen, as long as there is one way only.
    fn derive(&mut self, ops: &[KeyOp], initial: ContentId, contents: &Contents) {
        let mut occurs: Vec<ContentId> = ops
            .iter()
            .filter(|op| op.ret.is_some())
            .filter_map(|op| needed(&op.act))
            .collect();
        let mut done: WordMap<u32, ()> = WordMap::default();
        while let Some(content) = occurs.pop() {
            if done.insert(content.get(), ()).is_some() {
                continue;
            }
            let Some(traced) = self.traced.get(&content.get()) else {
                continue;
            };
            let appended: u32 = traced
                .appends
                .iter()
                .filter_map(|(item, _)| self.items.get(&item.get()))
                .sum();
            match (content == initial, traced.setters + appended) {
                (false, 0) => self.contradiction = true,
                (true, 0) => self.made_once.push((content, None)),
                (false, 1) => {
                    let item = traced.appends.first().map(|(item, _)| item.get());
                    self.made_once.push((content, item));
                }
                _ => {}
            }
            if content == initial || traced.setters > 0 {
                continue;
            }
            let [(item, before)] = traced.appends[..] else {
                continue;
            };
            if self.items.get(&item.get()) == Some(&1) {
                let pin = self.pins.insert(item.get(), before);
                self.contradiction |= pin.is_some_and(|other| other != before);
            }
            if contents.len(before) > 0 {
                occurs.push(before);
            }
        }
    }

    fn zones_collide(&self, ops: &[KeyOp], initial: ContentId) -> bool {
        // (first return, last call) of the operations that name or make the content.
        let mut zones: WordMap<u32, (u32, u32)> = WordMap::default();
        let mut zones_of_item: WordMap<u32, Vec<u32>> = WordMap::default();
        for (content, item) in &self.made_once {
            let start = if *content == initial { 0 } else { u32::MAX };
            zones.insert(content.get(), (start, 0));
            if let Some(item) = item {
                zones_of_item.entry(*item).or_default().push(content.get());
            }
        }
        let mut widen = |content: u32, op: &KeyOp| {
            if let Some((first_ret, last_call)) = zones.get_mut(&content) {
                *first_ret = (*first_ret).min(op.ret.unwrap_or(u32::MAX));
                *last_call = (*last_call).max(op.call);
            }
        };
        for op in ops {
            if op.ret.is_some()
                && let Some(content) = needed(&op.act)
            {
                widen(content.get(), op);
            }
            match op.act {
                Act::Put { content, .. } => widen(content.get(), op),
                Act::Cas { content, .. } if !op.act.is_observation() => widen(content.get(), op),
                Act::Delete { .. } if !op.act.is_observation() => {
                    widen(ContentId::ABSENT.get(), op);
                }
                Act::Append { chunk, .. } => {
                    for content in zones_of_item.get(&chunk.get()).into_iter().flatten() {
                        widen(*content, op);
                    }
                    if op.ret.is_some()
                        && let Some(before) = self.pin(chunk)
                    {
                        widen(before.get(), op);
                    }
                }
                _ => {}
            }
        }
        let mut zones: Vec<(u32, u32, ContentId)> = zones
            .into_iter()
            .filter(|(_, (start, end))| start < end)
            .map(|(content, (start, end))| (start, end, ContentId::from_raw(content)))
            .collect();
        zones.sort_unstable();
        zones.windows(2).any(|pair| pair[1].0 < pair[0].1)
            || ops.iter().any(|op| {
                let Some(ret) = op.ret else { return false };
                let after = zones.partition_point(|(start, ..)| *start < op.call);
                let zone = after.checked_sub(1).and_then(|at| zones.get(at));
                zone.is_some_and(|(_, end, content)| ret < *end && !fits(&op.act, *content))
            })
    }
}

/// The content that the operation, as it was told, must have found.
pub(super) fn needed(act: &Act) -> Option<ContentId> {
    match *act {
        Act::Read { content, .. } => Some(content),
        Act::Cas {
            condition: Condition::Content(content),
            told: CasTold::Matched(_),
            ..
        } => Some(content),
        Act::Delete {
            existed: Some(false),
            ..
        } => Some(ContentId::ABSENT),
        _ => None,
    }
}

/// Whether the operation can happen while the key has `content`, and goes on having it.
fn fits(act: &Act, content: ContentId) -> bool {
    match *act {
        Act::Read { content: seen, .. } => seen == content,
        Act::Put { content: set, .. } => set == content,
        Act::Delete { existed, .. } => content == ContentId::ABSENT && existed != Some(true),
        Act::Cas {
            condition,
            told: CasTold::Mismatch(_),
            ..
        } => condition != Condition::Content(content),
        Act::Cas {
            condition: Condition::Content(old),
            content: set,
            ..
        } => old == content && set == content,
        Act::Cas {
            condition: Condition::Version(_),
            content: set,
            ..
        } => set == content,
        Act::Incr { .. } => true,
        Act::Append { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    struct Case {
        contents: Contents,
        ops: Vec<KeyOp>,
    }

    impl Case {
        fn new() -> Self {
            Self {
                contents: Contents::new(),
                ops: Vec::new(),
            }
        }

        fn id(&mut self, text: &'static str) -> ContentId {
            self.contents.intern(&Bytes::from_static(text.as_bytes()))
        }

        fn append(&mut self, item: &'static str, call: u32, ret: u32) {
            let act = Act::Append {
                chunk: self.id(item),
                version: None,
            };
            self.push(act, call, ret);
        }

        fn read(&mut self, value: &'static str, call: u32, ret: u32) {
            let act = Act::Read {
                content: self.id(value),
                version: None,
            };
            self.push(act, call, ret);
        }

        fn push(&mut self, act: Act, call: u32, ret: u32) {
            self.ops.push(KeyOp {
                act,
                call,
                ret: Some(ret),
                source: 0,
            });
        }

        fn lineage(&mut self) -> Lineage {
            Lineage::new(&self.ops, ContentId::ABSENT, &mut self.contents).expect("no increments")
        }
    }

    #[test]
    fn appends_that_were_seen_are_pinned_and_others_are_alike() {
        let mut case = Case::new();
        case.append("a,", 0, 1);
        case.append("b,", 2, 3);
        case.read("a,b,", 4, 5);
        case.append("c,", 6, 7);
        let lineage = case.lineage();
        assert!(!lineage.contradicts());
        let (a, b, c) = (case.id("a,"), case.id("b,"), case.id("c,"));
        assert_eq!(lineage.pin(b), Some(a));
        assert_eq!(lineage.pin(c), None);
        let simpler = lineage.simplify(&case.ops);
        assert_eq!(
            simpler[3].act,
            Act::Put {
                content: ContentId::OTHER,
                version: None
            }
        );
        assert_eq!(simpler[0].act, case.ops[0].act);
    }

    #[test]
    fn two_orders_of_the_same_appends_contradict_each_other() {
        let mut case = Case::new();
        case.append("a,", 0, 10);
        case.append("b,", 1, 11);
        case.read("a,b,", 2, 12);
        case.read("b,a,", 3, 13);
        assert!(case.lineage().contradicts());
    }

    #[test]
    fn a_read_of_the_past_falls_into_the_zone_of_the_present() {
        let mut case = Case::new();
        case.append("a,", 0, 1);
        case.append("b,", 2, 3);
        case.read("a,b,", 4, 5);
        case.read("a,", 6, 7);
        assert!(case.lineage().contradicts());
    }

    #[test]
    fn a_value_that_nobody_wrote_is_a_contradiction() {
        let mut case = Case::new();
        case.append("a,", 0, 1);
        case.read("b,", 4, 5);
        assert!(case.lineage().contradicts());
    }
}
