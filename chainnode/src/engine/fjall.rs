//! fjall 3 as a store: the default (`docs/decisions/010-engine.md`).
//!
//! One keyspace for each of our spaces, in one database: a batch goes over both
//! through one journal, which fjall syncs by itself only when it writes a table
//! out, so that no table on disk is ahead of the journal.

use std::ops::{Bound, ControlFlow};
use std::path::Path;

use ::fjall::{Database, Error, Guard, Keyspace, KeyspaceCreateOptions, LsmError, OwnedWriteBatch};
use ::fjall::{PersistMode, Readable, Snapshot};
use bytes::Bytes;
use parking_lot::RwLock;

use super::store::{Change, Reads, Space, Span, Store};
use super::table_list::{self, ListError};
use super::{EngineError, EngineOptions, meta, rows};

const NAME: &str = "fjall";

/// fjall's least: many nodes share a disk, and our own log is the one that must be long.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// One thread flushes and compacts. With two, fjall 3.1 lets the first spin while the second compacts, which cost
/// 0.6 µs of CPU a row.
const WORKER_THREADS: usize = 1;
/// Open table files of one node: at 64 MiB a table, 16 GiB of state without reopening any.
const CACHED_FILES_MAX: usize = 256;

/// The store in a fjall database.
pub(super) struct FjallStore {
    db: Database,
    rows: Keyspace,
    meta: Keyspace,
    /// Taken between two commits; every view is a clone of it.
    ///
    /// fjall 3.1 raises the `seqno` that snapshots see whenever it writes a table
    /// out, also while a batch is half in the memtable, so a snapshot of any
    /// other moment can show half a batch.
    latest: RwLock<Snapshot>,
}

impl FjallStore {
    /// Opens or creates the database in `dir`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(super) fn open(dir: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        // Before fjall looks: it would open without tables that a flipped bit hides, or abort the process.
        table_list::check(dir).map_err(|error| match error {
            ListError::Io(why) => failed("open", &Error::Io(why)),
            why @ ListError::Damaged { .. } => EngineError::Unusable {
                engine: NAME,
                why: why.to_string(),
            },
        })?;
        Self::try_open(dir, options).map_err(|error| match error {
            Error::Io(_) | Error::Storage(LsmError::Io(_)) | Error::Locked => {
                failed("open", &error)
            }
            _ => EngineError::Unusable {
                engine: NAME,
                why: error.to_string(),
            },
        })
    }

    fn try_open(dir: &Path, options: EngineOptions) -> Result<Self, Error> {
        let db = Database::builder(dir)
            .cache_size(options.cache_bytes)
            .worker_threads(WORKER_THREADS)
            .max_cached_files(Some(CACHED_FILES_MAX))
            .max_journaling_size(JOURNAL_BYTES_MAX)
            // No write to the file for each batch: what a crash takes is replayed.
            .manual_journal_persist(true)
            .open()?;
        let keyspace = |name: &str, memtable_bytes: u64| {
            db.keyspace(name, || {
                KeyspaceCreateOptions::default()
                    .manual_journal_persist(true)
                    .max_memtable_size(memtable_bytes)
            })
        };
        let rows = keyspace("rows", options.write_buffer_bytes)?;
        let meta = keyspace("meta", options.write_buffer_bytes / 2)?;
        let latest = RwLock::new(db.snapshot());
        Ok(Self {
            db,
            rows,
            meta,
            latest,
        })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Rows => &self.rows,
            Space::Meta => &self.meta,
        }
    }
}

fn failed(what: &'static str, error: &Error) -> EngineError {
    EngineError::Failed {
        engine: NAME,
        what,
        why: error.to_string(),
    }
}

/// Damage to what lies at or behind `key` can be repaired from a fellow; anything else stops the node.
fn refused(what: &'static str, space: Space, key: &[u8], error: &Error) -> EngineError {
    match (error, space) {
        (Error::Io(_) | Error::Storage(LsmError::Io(_)) | Error::Poisoned, _) => {
            failed(what, error)
        }
        (_, Space::Rows) => rows::damaged(key),
        (_, Space::Meta) => meta::damaged(key),
    }
}

impl Store for FjallStore {
    type Snapshot<'a> = FjallSnapshot<'a>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.keyspace(space).get(key);
        let found = found.map_err(|error| refused("read", space, key, &error))?;
        Ok(found.map(Bytes::from))
    }

    fn snapshot(&self) -> FjallSnapshot<'_> {
        FjallSnapshot {
            store: self,
            snapshot: self.latest.read().clone(),
        }
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut batch = OwnedWriteBatch::with_capacity(self.db.clone(), changes.len());
        for change in changes {
            let keyspace = self.keyspace(change.space);
            match change.value {
                Some(value) => batch.insert(keyspace, change.key, value),
                None => batch.remove(keyspace, change.key),
            }
        }
        batch.commit().map_err(|error| failed("write", &error))?;
        *self.latest.write() = self.db.snapshot();
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.db
            .persist(PersistMode::SyncAll)
            .map_err(|error| failed("flush", &error))
    }
}

/// A view of the database at one moment.
pub(super) struct FjallSnapshot<'a> {
    store: &'a FjallStore,
    snapshot: Snapshot,
}

impl Reads for FjallSnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.snapshot.get(self.store.keyspace(space), key);
        let found = found.map_err(|error| refused("read", space, key, &error))?;
        Ok(found.map(Bytes::from))
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
        let end = span.end.map_or(Bound::Unbounded, Bound::Excluded);
        let bounds: (Bound<&[u8]>, Bound<&[u8]>) = (Bound::Included(span.start), end);
        let mut found = self
            .snapshot
            .range::<&[u8], _>(self.store.keyspace(space), bounds);
        while let Some(pair) = if reverse {
            found.next_back()
        } else {
            found.next()
        } {
            let (key, value) = Guard::into_inner(pair)
                .map_err(|error| refused("scan", space, span.start, &error))?;
            if visit(key.into(), value.into())?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
