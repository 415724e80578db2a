//! What is in the log and not yet dropped after being applied, by key (DESIGN §3.3).
//!
//! Reads and the head's decisions look here before the engine. An entry stays
//! until its record is applied *and* one further step of `applied` has come in,
//! so that a row read from the engine shortly before is never newer or older
//! than what the overlay says.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;
use catena_proto::config::KeyRange;
use catena_proto::ids::Seq;
use catena_proto::record::Effect;

use super::read::KeyState;

#[derive(Clone, Debug)]
struct Entry {
    seq: Seq,
    value: Option<Bytes>,
}

/// A key's effects, oldest first. One is the rule, so it costs no allocation.
#[derive(Clone, Debug)]
enum Effects {
    One(Entry),
    Many(VecDeque<Entry>),
}

impl Effects {
    fn newest(&self) -> Option<&Entry> {
        match self {
            Self::One(entry) => Some(entry),
            Self::Many(entries) => entries.back(),
        }
    }

    fn newest_at(&self, commit: Seq) -> Option<&Entry> {
        match self {
            Self::One(entry) => (entry.seq <= commit).then_some(entry),
            Self::Many(entries) => entries.iter().rev().find(|e| e.seq <= commit),
        }
    }

    fn push(&mut self, entry: Entry) {
        match self {
            Self::One(first) => {
                *self = Self::Many(VecDeque::from([first.clone(), entry]));
            }
            Self::Many(entries) => entries.push_back(entry),
        }
    }

    /// Drops the entry at `seq`; true if none is left.
    fn drop_at(&mut self, seq: Seq) -> bool {
        match self {
            Self::One(entry) => entry.seq == seq,
            Self::Many(entries) => {
                entries.retain(|e| e.seq != seq);
                entries.is_empty()
            }
        }
    }
}

/// The overlay of one replica.
#[derive(Clone, Debug, Default)]
pub(super) struct Overlay {
    keys: BTreeMap<Bytes, Effects>,
    /// Every entry in `seq` order, for dropping from either end.
    order: VecDeque<(Seq, Bytes)>,
    /// Entries at or below this may have been dropped.
    floor: Seq,
}

impl Overlay {
    pub(super) fn new(floor: Seq) -> Self {
        Self {
            floor,
            ..Self::default()
        }
    }

    /// Entries at or below this position may be missing: the engine has them.
    pub(super) const fn floor(&self) -> Seq {
        self.floor
    }

    /// Adds an effect of the record at `seq`, the newest so far.
    pub(super) fn add(&mut self, seq: Seq, effect: Effect) {
        debug_assert!(self.order.back().is_none_or(|(newest, _)| *newest <= seq));
        let entry = Entry {
            seq,
            value: effect.value,
        };
        self.order.push_back((seq, effect.key.clone()));
        match self.keys.entry(effect.key) {
            std::collections::btree_map::Entry::Vacant(slot) => {
                slot.insert(Effects::One(entry));
            }
            std::collections::btree_map::Entry::Occupied(mut slot) => slot.get_mut().push(entry),
        }
    }

    /// Drops what is at or below `floor`: it is applied, and readers of the engine know.
    pub(super) fn drop_to(&mut self, floor: Seq) {
        while let Some((seq, _)) = self.order.front() {
            if *seq > floor {
                break;
            }
            let (seq, key) = self.order.pop_front().expect("the front was just seen");
            self.drop_entry(&key, seq);
        }
        self.floor = self.floor.max(floor);
    }

    /// Drops what is above `after`: the log was cut there (rule L2).
    pub(super) fn cut(&mut self, after: Seq) {
        while let Some((seq, _)) = self.order.back() {
            if *seq <= after {
                break;
            }
            let (seq, key) = self.order.pop_back().expect("the back was just seen");
            self.drop_entry(&key, seq);
        }
    }

    fn drop_entry(&mut self, key: &Bytes, seq: Seq) {
        if self
            .keys
            .get_mut(key)
            .is_some_and(|effects| effects.drop_at(seq))
        {
            self.keys.remove(key);
        }
    }

    /// The newest effect on a key, committed or not: what the head decides by.
    pub(super) fn newest(&self, key: &[u8]) -> Option<(Seq, Option<&Bytes>)> {
        let entry = self.keys.get(key)?.newest()?;
        Some((entry.seq, entry.value.as_ref()))
    }

    /// What a read of `key` has to do, given the commit point.
    pub(super) fn key_state(&self, key: &[u8], commit: Seq) -> KeyState {
        match self.newest(key) {
            None => KeyState::InEngine,
            Some((seq, _)) if seq > commit => KeyState::WaitFor(seq),
            Some((version, value)) => KeyState::Committed {
                value: value.cloned(),
                version,
            },
        }
    }

    /// The newest committed effect on a key, whatever is pending.
    pub(super) fn committed(&self, key: &[u8], commit: Seq) -> KeyState {
        match self
            .keys
            .get(key)
            .and_then(|effects| effects.newest_at(commit))
        {
            None => KeyState::InEngine,
            Some(entry) => KeyState::Committed {
                value: entry.value.clone(),
                version: entry.seq,
            },
        }
    }

    /// The newest record above `commit` that touches the range: what a scan waits for.
    pub(super) fn range_wait(&self, range: &KeyRange, commit: Seq) -> Option<Seq> {
        // Only what is pending matters; it is at the back of the queue.
        self.order
            .iter()
            .rev()
            .take_while(|(seq, _)| *seq > commit)
            .find(|(_, key)| range.contains(key))
            .map(|(seq, _)| *seq)
    }

    /// The newest committed effect per key of the range, in key order.
    pub(super) fn range(&self, range: &KeyRange, commit: Seq) -> Vec<(Bytes, Option<Bytes>, Seq)> {
        if range.is_empty() {
            return Vec::new();
        }
        let end = range.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        self.keys
            .range::<Bytes, _>((Bound::Included(&range.start), end))
            .filter_map(|(key, effects)| {
                let entry = effects.newest_at(commit)?;
                Some((key.clone(), entry.value.clone(), entry.seq))
            })
            .collect()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str, value: &'static str) -> Effect {
        Effect {
            key: Bytes::from(key),
            value: Some(Bytes::from(value)),
            expires: None,
        }
    }

    #[test]
    fn a_read_waits_for_what_is_pending_and_sees_what_is_committed() {
        let mut overlay = Overlay::default();
        overlay.add(Seq::new(1), put("a", "1"));
        overlay.add(Seq::new(2), put("a", "2"));
        assert_eq!(
            overlay.key_state(b"a", Seq::new(1)),
            KeyState::WaitFor(Seq::new(2))
        );
        assert_eq!(
            overlay.key_state(b"a", Seq::new(2)),
            KeyState::Committed {
                value: Some("2".into()),
                version: Seq::new(2)
            }
        );
        assert_eq!(overlay.key_state(b"b", Seq::new(2)), KeyState::InEngine);
    }

    #[test]
    fn a_cut_brings_back_the_effect_before_it() {
        let mut overlay = Overlay::default();
        overlay.add(Seq::new(1), put("a", "1"));
        overlay.add(Seq::new(2), put("a", "2"));
        overlay.cut(Seq::new(1));
        assert_eq!(
            overlay.newest(b"a"),
            Some((Seq::new(1), Some(&Bytes::from("1"))))
        );
        overlay.drop_to(Seq::new(1));
        assert_eq!(overlay.newest(b"a"), None);
        assert_eq!(overlay.len(), 0);
    }

    #[test]
    fn a_scan_waits_only_for_pending_keys_of_its_range() {
        let mut overlay = Overlay::default();
        overlay.add(Seq::new(1), put("a", "1"));
        overlay.add(Seq::new(2), put("m", "1"));
        let low = KeyRange {
            start: Bytes::new(),
            end: Some("b".into()),
        };
        assert_eq!(overlay.range_wait(&low, Seq::new(1)), None);
        assert_eq!(
            overlay.range_wait(&KeyRange::all(), Seq::new(1)),
            Some(Seq::new(2))
        );
        assert_eq!(overlay.range(&KeyRange::all(), Seq::new(1)).len(), 1);
    }
}
