//! sled 0.34 as a store: supported, not the default (`docs/decisions/010-engine.md`).
//!
//! Both spaces lie in one tree, behind a byte that tells them apart, because
//! sled makes a batch atomic for a crash only inside one tree at a fair price.
//! It has no snapshots: a [`Gate`] lets the writer wait while a view is held.

use std::ops::{Bound, ControlFlow};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::sled::{Batch, Config, Db, Error, IVec};
use bytes::Bytes;

use super::gate::{Gate, ReadPass};
use super::store::{Change, Reads, Space, Span, Store};
use super::{EngineError, EngineOptions, meta, rows};

const NAME: &str = "sled";

/// A database that was just closed in this process is let go of by sled's own threads, a moment later.
const LOCK_TRY_EVERY: Duration = Duration::from_millis(10);
/// One second in all; then the folder has another user.
const LOCK_TRIES_MAX: u32 = 100;

/// The writer waits for sled's log after this many bytes, in keys and values.
///
/// sled writes its log on seven threads that wait for a lock which the writer
/// holds while it waits for a free one of them, so seven writes under way
/// are a deadlock (seen under load, 0.34.7). What these bytes become in sled's log
/// stays below seven of its 512 KiB buffers; only a single batch of
/// several MiB still can fill them.
const UNWRITTEN_BYTES_MAX: usize = 256 << 10;

/// The store in a sled database.
pub(super) struct SledStore {
    db: Db,
    gate: Gate,
    /// Bytes committed since the writer last waited for sled's log.
    unwritten_bytes: AtomicUsize,
}

impl SledStore {
    /// Opens or creates the database in `dir`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(super) fn open(dir: &Path, options: EngineOptions) -> Result<Self, EngineError> {
        // No flushing on its own: the node says when, and what a crash takes is replayed.
        let config = Config::new()
            .path(dir)
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(None);
        let db = open_once_free(&config).map_err(|error| match error {
            Error::Io(_) => failed("open", &error),
            error => EngineError::Unusable {
                engine: NAME,
                why: error.to_string(),
            },
        })?;
        Ok(Self {
            db,
            gate: Gate::default(),
            unwritten_bytes: AtomicUsize::new(0),
        })
    }

    fn read(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.db.get(placed(space, key));
        let found = found.map_err(|error| refused("read", space, key, &error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }
}

/// Opens the database; a folder that is in use may become free.
#[allow(
    clippy::disallowed_methods,
    reason = "runtime: sled has no call that waits for its lock"
)]
fn open_once_free(config: &Config) -> Result<Db, Error> {
    // sled has no error of its own for this, only a sentence.
    let in_use = |error: &Error| matches!(error, Error::Io(io) if io.to_string().contains("could not acquire lock"));
    for _ in 0..LOCK_TRIES_MAX {
        match config.open() {
            Err(error) if in_use(&error) => std::thread::sleep(LOCK_TRY_EVERY),
            opened => return opened,
        }
    }
    config.open()
}

/// A key behind its space's byte.
fn placed(space: Space, key: &[u8]) -> Vec<u8> {
    let mut placed = Vec::with_capacity(1 + key.len());
    placed.push(space_byte(space));
    placed.extend_from_slice(key);
    placed
}

const fn space_byte(space: Space) -> u8 {
    match space {
        Space::Meta => 0,
        Space::Rows => 1,
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
        (Error::Corruption { .. }, Space::Rows) => rows::damaged(key),
        (Error::Corruption { .. }, Space::Meta) => meta::damaged(key),
        _ => failed(what, error),
    }
}

impl Store for SledStore {
    type Snapshot<'a> = SledSnapshot<'a>;

    fn name(&self) -> &'static str {
        NAME
    }

    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.read(space, key)
    }

    fn snapshot(&self) -> SledSnapshot<'_> {
        SledSnapshot {
            store: self,
            _pass: self.gate.read(),
        }
    }

    fn commit(&self, changes: Vec<Change>) -> Result<(), EngineError> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for change in changes {
            let key = placed(change.space, &change.key);
            bytes += key.len() + change.value.as_ref().map_or(0, Bytes::len);
            match change.value {
                Some(value) => batch.insert(key, IVec::from(&value[..])),
                None => batch.remove(key),
            }
        }
        let pass = self.gate.write();
        let applied = self.db.apply_batch(batch);
        drop(pass);
        applied.map_err(|error| failed("write", &error))?;
        // Commits exclude each other, so nothing is lost between the two.
        if self.unwritten_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNWRITTEN_BYTES_MAX {
            self.unwritten_bytes.store(0, Ordering::Relaxed);
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.db
            .flush()
            .map(drop)
            .map_err(|error| failed("flush", &error))
    }
}

/// A view: while it lives, nothing is written.
pub(super) struct SledSnapshot<'a> {
    store: &'a SledStore,
    _pass: ReadPass<'a>,
}

impl Reads for SledSnapshot<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.store.read(space, key)
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
        let start = placed(space, span.start);
        let end = span
            .end
            .map_or_else(|| vec![space_byte(space) + 1], |end| placed(space, end));
        let mut found = self
            .store
            .db
            .range::<Vec<u8>, _>((Bound::Included(start), Bound::Excluded(end)));
        while let Some(pair) = if reverse {
            found.next_back()
        } else {
            found.next()
        } {
            let (key, value) = pair.map_err(|error| refused("scan", space, span.start, &error))?;
            let key = Bytes::copy_from_slice(key.get(1..).unwrap_or_default());
            if visit(key, Bytes::copy_from_slice(&value))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}
