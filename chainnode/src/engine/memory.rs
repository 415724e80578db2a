//! The engine without a disk: for tests, for simulation, and for nodes whose fellows are durability enough.
//!
//! What is in it is gone with the process, and the replica fetches its state
//! from a fellow as after any other loss.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::EngineError;
use super::store::{Change, Reads, Space, Span, Store};
use super::versions::{CommitNo, OpenViews, VersionedMap};

/// The store in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    state: RwLock<State>,
    /// How many views are open at each commit. Locked after `state`, never before it.
    views: Mutex<BTreeMap<CommitNo, usize>>,
}

#[derive(Debug, Default)]
struct State {
    rows: VersionedMap,
    meta: VersionedMap,
    no: CommitNo,
}

impl State {
    fn space(&self, space: Space) -> &VersionedMap {
        match space {
            Space::Rows => &self.rows,
            Space::Meta => &self.meta,
        }
    }
}

impl Store for MemoryStore {
    type Snapshot<'a> = MemorySnapshot<'a>;

    fn name(&self) -> &'static str {
        "memory"
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.state.read().space(space).newest(key).cloned())
    }

    fn snapshot(&self) -> MemorySnapshot<'_> {
        let state = self.state.read();
        let no = state.no;
        // Under the lock of the state: a commit in between would not know of this view.
        *self.views.lock().entry(no).or_default() += 1;
        MemorySnapshot { store: self, no }
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut state = self.state.write();
        let open = {
            let views = self.views.lock();
            let ends = views.first_key_value().zip(views.last_key_value());
            ends.map(|((oldest, _), (newest, _))| OpenViews {
                oldest: *oldest,
                newest: *newest,
            })
        };
        state.no += 1;
        let no = state.no;
        state.rows.prune(open);
        state.meta.prune(open);
        for change in changes {
            // A copy of its own for each value: a slice would keep its whole batch in memory.
            let value = change.value.map(|value| Bytes::copy_from_slice(&value));
            let space = match change.space {
                Space::Rows => &mut state.rows,
                Space::Meta => &mut state.meta,
            };
            space.set(&change.key, value, no, open);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        Ok(())
    }
}

/// A view of the store.
pub(super) struct MemorySnapshot<'a> {
    store: &'a MemoryStore,
    no: CommitNo,
}

impl Reads for MemorySnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self
            .store
            .state
            .read()
            .space(space)
            .at(key, self.no)
            .cloned())
    }

    fn walk(
        &self,
        space: Space,
        span: Span<'_>,
        reverse: bool,
        visit: &mut dyn FnMut(Bytes, Bytes) -> Result<ControlFlow<()>, EngineError>,
    ) -> Result<(), EngineError> {
        if span.is_empty() {
            return Ok(());
        }
        let state = self.store.state.read();
        let mut found = state.space(space).range(span, self.no);
        while let Some((key, value)) = if reverse {
            found.next_back()
        } else {
            found.next()
        } {
            if visit(key.clone(), value.clone())?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Drop for MemorySnapshot<'_> {
    fn drop(&mut self) {
        let mut views = self.store.views.lock();
        if let Some(count) = views.get_mut(&self.no) {
            *count -= 1;
            if *count == 0 {
                views.remove(&self.no);
            }
        }
    }
}
