//! An ordered map that remembers what its open views may still ask for.
//!
//! Commits are numbered. A write keeps the value that it replaces only if a
//! view could see it, and that copy goes when the last such view is gone: without
//! views the map is a plain `BTreeMap`, and it never holds more old values
//! than were written while a view was open.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use super::store::Span;

/// The number of a commit; a view sees the commits up to its own number.
pub(super) type CommitNo = u64;

/// The numbers of the oldest and the newest open view, if any is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct OpenViews {
    /// The oldest one's number.
    pub(super) oldest: CommitNo,
    /// The newest one's number.
    pub(super) newest: CommitNo,
}

#[derive(Debug)]
struct Entry {
    /// The newest value; `None` if the key is gone.
    now: Option<Bytes>,
    /// The commit that wrote it.
    since: CommitNo,
    /// What it replaced and a view may still see, oldest first, each with the commit that wrote it.
    before: VecDeque<(CommitNo, Option<Bytes>)>,
}

impl Entry {
    fn at(&self, view: CommitNo) -> Option<&Bytes> {
        if self.since <= view {
            return self.now.as_ref();
        }
        let seen = self.before.iter().rev().find(|(since, _)| *since <= view);
        seen.and_then(|(_, value)| value.as_ref())
    }
}

/// The map.
#[derive(Debug, Default)]
pub(super) struct VersionedMap {
    entries: BTreeMap<Bytes, Entry>,
    /// One item for each value in a `before`, in the order of the commits that replaced them.
    replaced: VecDeque<(CommitNo, Bytes)>,
}

impl VersionedMap {
    /// Sets or removes a key in commit `no`, which is higher than every view's number.
    pub(super) fn set(
        &mut self,
        key: &[u8],
        value: Option<Bytes>,
        no: CommitNo,
        views: Option<OpenViews>,
    ) {
        let Some(entry) = self.entries.get_mut(key) else {
            if value.is_some() {
                let entry = Entry {
                    now: value,
                    since: no,
                    before: VecDeque::new(),
                };
                self.entries.insert(Bytes::copy_from_slice(key), entry);
            }
            return;
        };
        let old = std::mem::replace(&mut entry.now, value);
        let old_since = std::mem::replace(&mut entry.since, no);
        if old_since < no && views.is_some_and(|views| views.newest >= old_since) {
            entry.before.push_back((old_since, old));
            self.replaced.push_back((no, Bytes::copy_from_slice(key)));
        }
        self.drop_if_gone(key);
    }

    /// Forgets what no view can see any more.
    pub(super) fn prune(&mut self, views: Option<OpenViews>) {
        while let Some((no, _)) = self.replaced.front() {
            if views.is_some_and(|views| views.oldest < *no) {
                return;
            }
            let Some((_, key)) = self.replaced.pop_front() else {
                return;
            };
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.before.pop_front();
            }
            self.drop_if_gone(&key);
        }
    }

    fn drop_if_gone(&mut self, key: &[u8]) {
        let gone = |entry: &Entry| entry.now.is_none() && entry.before.is_empty();
        if self.entries.get(key).is_some_and(gone) {
            self.entries.remove(key);
        }
    }

    /// The newest value of a key.
    pub(super) fn newest(&self, key: &[u8]) -> Option<&Bytes> {
        self.entries.get(key)?.now.as_ref()
    }

    /// The value of a key as a view sees it.
    pub(super) fn at(&self, key: &[u8], view: CommitNo) -> Option<&Bytes> {
        self.entries.get(key)?.at(view)
    }

    /// The keys of a span that is not empty, as a view sees them, in order.
    pub(super) fn range(
        &self,
        span: Span<'_>,
        view: CommitNo,
    ) -> impl DoubleEndedIterator<Item = (&Bytes, &Bytes)> {
        let end = span.end.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries
            .range::<[u8], _>((Bound::Included(span.start), end))
            .filter_map(move |(key, entry)| Some((key, entry.at(view)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn views(open: &BTreeMap<CommitNo, BTreeMap<u8, u8>>) -> Option<OpenViews> {
        Some(OpenViews {
            oldest: *open.first_key_value()?.0,
            newest: *open.last_key_value()?.0,
        })
    }

    proptest! {
        /// Steps: write a key, remove it, open a view, close the oldest or the newest.
        #[test]
        fn views_see_their_moment_and_nothing_is_kept_for_nobody(
            steps in proptest::collection::vec((0..5_u8, 0..6_u8, any::<u8>()), 0..80)
        ) {
            let mut map = VersionedMap::default();
            let mut model = BTreeMap::<u8, u8>::new();
            let mut open = BTreeMap::<CommitNo, BTreeMap<u8, u8>>::new();
            let mut no = 0;
            for (step, key, value) in steps {
                match step {
                    0 | 1 => {
                        no += 1;
                        let value = (step == 0).then_some(value);
                        map.prune(views(&open));
                        map.set(&[key], value.map(|v| Bytes::from(vec![v])), no, views(&open));
                        match value {
                            Some(value) => model.insert(key, value),
                            None => model.remove(&key),
                        };
                    }
                    2 => { open.insert(no, model.clone()); }
                    3 => { open.pop_first(); }
                    _ => { open.pop_last(); }
                }
                for (view, frozen) in open.iter().chain([(&no, &model)]) {
                    let all = Span { start: &[], end: None };
                    let seen: BTreeMap<u8, u8> =
                        map.range(all, *view).map(|(k, v)| (k[0], v[0])).collect();
                    prop_assert_eq!(&seen, frozen);
                    for key in 0..6 {
                        prop_assert_eq!(map.at(&[key], *view).map(|v| v[0]), frozen.get(&key).copied());
                    }
                }
            }
            map.prune(None);
            prop_assert!(map.replaced.is_empty());
            prop_assert_eq!(map.entries.len(), model.len());
            prop_assert!(map.entries.values().all(|entry| entry.before.is_empty()));
        }
    }
}
