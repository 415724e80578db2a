//! The rules of [`Engine`], written once over any [`Store`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use catena_proto::config::KeyRange;
use catena_proto::ids::{LogTime, SessionId, ShardId};
use parking_lot::Mutex;

use super::meta::{self, MetaKey};
use super::rows;
use super::store::{ChangeList, Reads, Space, Span, Store};
use super::{Batch, Engine, EngineError, Page, PageLimit, Progress, RowChange, SessionRowChange};
use super::{StoredRow, StoredSession, View};

/// Keys that one step of a wipe removes: some 4 MiB at the longest keys, and a pause that no reader notices.
const WIPE_STEP_KEYS: usize = 1024;
/// Room for an entry of the second space, key included.
const META_ENTRY_BYTES: usize = 64;

/// An engine over a store.
pub(super) struct Tables<S> {
    store: S,
    /// Held by the one who writes: a merge and a close of a session read before they write.
    writer: Mutex<()>,
}

impl<S: Store> Tables<S> {
    /// Takes the store over: compares its format, and finishes the wipes that a crash cut short.
    ///
    /// # Errors
    /// [`EngineError`]; a store of another format is left as it is.
    pub(super) fn open(store: S) -> Result<Self, EngineError> {
        let tables = Self {
            store,
            writer: Mutex::new(()),
        };
        tables.check_format()?;
        for (shard, range) in tables.unfinished_wipes()? {
            tables.finish_wipe(shard, &range)?;
        }
        Ok(tables)
    }

    fn check_format(&self) -> Result<(), EngineError> {
        let format = |found| EngineError::Format {
            engine: self.store.name(),
            found,
            known: meta::FORMAT,
        };
        let key = MetaKey::Format.encode();
        if let Some(raw) = self.store.get(Space::Meta, &key)? {
            let payload = meta::payload(&key, &raw)?;
            let found = <[u8; 4]>::try_from(&payload[..]).map_err(|_| meta::damaged(&key))?;
            let found = u32::from_le_bytes(found);
            return if found == meta::FORMAT {
                Ok(())
            } else {
                Err(format(found))
            };
        }
        // No format: a new store, which is empty, or one that is not ours.
        let all = KeyRange::all();
        let mut empty = true;
        let snapshot = self.store.snapshot();
        for space in [Space::Rows, Space::Meta] {
            snapshot.walk(space, span_of(&all), false, &mut |_, _| {
                empty = false;
                Ok(ControlFlow::Break(()))
            })?;
        }
        drop(snapshot);
        if !empty {
            return Err(format(0));
        }
        let mut changes = ChangeList::with_capacity(1, META_ENTRY_BYTES);
        changes.meta(&key, Some(&meta::FORMAT.to_le_bytes()));
        changes.commit_to(&self.store)
    }

    fn unfinished_wipes(&self) -> Result<Vec<(ShardId, KeyRange)>, EngineError> {
        let mut found = Vec::new();
        let snapshot = self.store.snapshot();
        walk_prefix(&snapshot, &meta::wipes_prefix(), &mut |key, raw| {
            let range = meta::decode_wipe(meta::payload(&key, &raw)?);
            match (MetaKey::decode(&key), range) {
                (Some(MetaKey::Wipe(shard)), Some(range)) => found.push((shard, range)),
                _ => return Err(meta::damaged(&key)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Removes the shard's sessions and rows step by step, then the note that says so.
    fn finish_wipe(&self, shard: ShardId, range: &KeyRange) -> Result<(), EngineError> {
        let sessions = prefix_range(&meta::sessions_prefix(shard));
        for (space, range) in [(Space::Meta, &sessions), (Space::Rows, range)] {
            while self.remove_step(space, range)? {}
        }
        let mut changes = ChangeList::with_capacity(1, META_ENTRY_BYTES);
        changes.meta(&MetaKey::Wipe(shard).encode(), None);
        changes.commit_to(&self.store)
    }

    /// Removes the first keys of `range`; says whether there may be more.
    fn remove_step(&self, space: Space, range: &KeyRange) -> Result<bool, EngineError> {
        let mut keys: Vec<Bytes> = Vec::new();
        let snapshot = self.store.snapshot();
        snapshot.walk(space, span_of(range), false, &mut |key, _| {
            keys.push(key);
            Ok(if keys.len() < WIPE_STEP_KEYS {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        drop(snapshot);
        let bytes = keys.iter().map(Bytes::len).sum();
        let mut changes = ChangeList::with_capacity(keys.len(), bytes);
        for key in &keys {
            changes.remove(space, key);
        }
        if !keys.is_empty() {
            changes.commit_to(&self.store)?;
        }
        Ok(keys.len() == WIPE_STEP_KEYS)
    }

    /// Whether a stored row stands against a merged change.
    fn stands_against(&self, change: &RowChange) -> Result<bool, EngineError> {
        let Some(raw) = self.store.get(Space::Rows, &change.key)? else {
            return Ok(false);
        };
        Ok(rows::read_row(&change.key, &raw)?.version >= change.seq)
    }

    /// What the changes of sessions make of the second space: key → payload, or `None` to remove.
    fn session_entries(
        &self,
        shard: ShardId,
        changes: &[SessionRowChange],
    ) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>, EngineError> {
        let mut entries = BTreeMap::new();
        for change in changes {
            match change {
                SessionRowChange::Used(session, used) => {
                    let payload = meta::encode_used(*used).to_vec();
                    entries.insert(MetaKey::Session(shard, *session).encode(), Some(payload));
                }
                SessionRowChange::Slot(row) => {
                    let key = MetaKey::Slot(shard, row.session, row.slot).encode();
                    entries.insert(key, Some(meta::encode_slot(row)));
                }
                SessionRowChange::Closed(session) => {
                    let prefix = MetaKey::Session(shard, *session).encode();
                    entries.retain(|key, _| !key.starts_with(&prefix));
                    walk_prefix(&self.store.snapshot(), &prefix, &mut |key, _| {
                        entries.insert(key.to_vec(), None);
                        Ok(ControlFlow::Continue(()))
                    })?;
                }
            }
        }
        Ok(entries)
    }
}

/// Notes a shard's progress; the default one needs no entry.
fn put_progress(changes: &mut ChangeList, shard: ShardId, progress: &Progress) {
    let payload = (*progress != Progress::default()).then(|| meta::encode_progress(progress));
    changes.meta(&MetaKey::Progress(shard).encode(), payload.as_deref());
}

impl<S: Store> Engine for Tables<S> {
    fn name(&self) -> &'static str {
        self.store.name()
    }

    fn get(&self, key: &[u8]) -> Result<Option<StoredRow>, EngineError> {
        match self.store.get(Space::Rows, key)? {
            Some(raw) => rows::read_row(key, &raw).map(Some),
            None => Ok(None),
        }
    }

    fn view(&self) -> Result<Box<dyn View + '_>, EngineError> {
        Ok(Box::new(TablesView(self.store.snapshot())))
    }

    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError> {
        let _writer = self.writer.lock();
        let sessions = self.session_entries(shard, &batch.sessions)?;
        let size = |c: &RowChange| c.key.len() + c.row.as_ref().map_or(0, rows::row_len);
        let bytes =
            batch.rows.iter().map(size).sum::<usize>() + META_ENTRY_BYTES * (sessions.len() + 2);
        let mut changes = ChangeList::with_capacity(batch.rows.len() + sessions.len() + 1, bytes);
        for change in &batch.rows {
            if batch.merge && self.stands_against(change)? {
                continue;
            }
            changes.row(&change.key, change.row.as_ref());
        }
        for (key, payload) in &sessions {
            changes.meta(key, payload.as_deref());
        }
        put_progress(&mut changes, shard, &batch.progress);
        changes.commit_to(&self.store)
    }

    fn wipe(
        &self,
        shard: ShardId,
        range: &KeyRange,
        progress: Progress,
    ) -> Result<(), EngineError> {
        let _writer = self.writer.lock();
        let mut changes = ChangeList::with_capacity(2, 2 * META_ENTRY_BYTES);
        put_progress(&mut changes, shard, &progress);
        changes.meta(
            &MetaKey::Wipe(shard).encode(),
            Some(&meta::encode_wipe(range)),
        );
        changes.commit_to(&self.store)?;
        self.finish_wipe(shard, range)
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.store.flush()
    }
}

/// A view over a store's snapshot.
struct TablesView<R>(R);

impl<R: Reads + Send> View for TablesView<R> {
    fn get(&self, key: &[u8]) -> Result<Option<StoredRow>, EngineError> {
        match self.0.get(Space::Rows, key)? {
            Some(raw) => rows::read_row(key, &raw).map(Some),
            None => Ok(None),
        }
    }

    fn page(&self, range: &KeyRange, limit: PageLimit, reverse: bool) -> Result<Page, EngineError> {
        let mut page = Page::default();
        let mut bytes_left = limit.bytes;
        self.0
            .walk(Space::Rows, span_of(range), reverse, &mut |key, raw| {
                let row = rows::read_row(&key, &raw)?;
                let bytes = key.len() + row.value.len();
                let first = page.rows.is_empty();
                if page.rows.len() >= limit.rows || (bytes > bytes_left && !first) {
                    page.more = true;
                    return Ok(ControlFlow::Break(()));
                }
                bytes_left = bytes_left.saturating_sub(bytes);
                page.rows.push((key, row));
                Ok(ControlFlow::Continue(()))
            })?;
        Ok(page)
    }

    fn progress(&self, shard: ShardId) -> Result<Progress, EngineError> {
        let key = MetaKey::Progress(shard).encode();
        let Some(raw) = self.0.get(Space::Meta, &key)? else {
            return Ok(Progress::default());
        };
        meta::decode_progress(meta::payload(&key, &raw)?).ok_or_else(|| meta::damaged(&key))
    }

    fn sessions(&self, shard: ShardId) -> Result<Vec<StoredSession>, EngineError> {
        let mut found: Vec<StoredSession> = Vec::new();
        walk_prefix(&self.0, &meta::sessions_prefix(shard), &mut |key, raw| {
            let payload = meta::payload(&key, &raw)?;
            match MetaKey::decode(&key) {
                Some(MetaKey::Session(_, session)) => {
                    let used = meta::decode_used(&payload).ok_or_else(|| meta::damaged(&key))?;
                    session_of(&mut found, session).used = used;
                }
                Some(MetaKey::Slot(_, session, slot)) => {
                    let row = meta::decode_slot(session, slot, &payload)
                        .ok_or_else(|| meta::damaged(&key))?;
                    session_of(&mut found, session).slots.push(row);
                }
                _ => return Err(meta::damaged(&key)),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// The session at the end of the list; keys come in order, so it is the last one or a new one.
fn session_of(found: &mut Vec<StoredSession>, session: SessionId) -> &mut StoredSession {
    if found.last().is_none_or(|last| last.session != session) {
        found.push(StoredSession {
            session,
            used: LogTime::ZERO,
            slots: Vec::new(),
        });
    }
    let last = found.len() - 1;
    &mut found[last]
}

fn span_of(range: &KeyRange) -> Span<'_> {
    Span {
        start: &range.start,
        end: range.end.as_deref(),
    }
}

fn prefix_range(prefix: &[u8]) -> KeyRange {
    KeyRange {
        start: Bytes::copy_from_slice(prefix),
        end: meta::prefix_end(prefix).map(Bytes::from),
    }
}

fn walk_prefix(
    reads: &impl Reads,
    prefix: &[u8],
    visit: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, EngineError>,
) -> Result<(), EngineError> {
    reads.walk(Space::Meta, span_of(&prefix_range(prefix)), false, visit)
}

#[cfg(test)]
mod tests;
