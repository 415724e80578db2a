//! Engines in temporary folders, and the words in which the tests write batches.

use std::path::Path;

use bytes::Bytes;
use catena_chainnode::engine::open::open;
use catena_chainnode::engine::{
    Batch, Engine, EngineError, EngineKind, EngineOptions, Page, PageLimit, Progress, RowChange,
    SharedEngine, StoredRow,
};
use catena_proto::config::KeyRange;
use catena_proto::ids::{Epoch, Incarnation, LogTime, Origin, Seq, ShardId};
use tempfile::TempDir;

/// The shard of most tests.
pub(crate) const SHARD: ShardId = ShardId::new(1);
/// No limit.
pub(crate) const EVERYTHING: PageLimit = PageLimit {
    rows: usize::MAX,
    bytes: usize::MAX,
};

/// So small that a test's few rows already go through every stage of an engine.
pub(crate) const SMALL: EngineOptions = EngineOptions {
    cache_bytes: 1 << 20,
    write_buffer_bytes: 32 << 10,
};
/// So large that an engine does nothing in the background, and a copy of its folder is one moment's.
pub(crate) const QUIET: EngineOptions = EngineOptions {
    cache_bytes: 1 << 20,
    write_buffer_bytes: 64 << 20,
};

/// Whether the engine outlives its process.
pub(crate) fn has_disk(kind: EngineKind) -> bool {
    kind != EngineKind::Memory
}

/// Opens the engine in `dir`.
pub(crate) fn try_open(kind: EngineKind, dir: &Path) -> Result<SharedEngine, EngineError> {
    open(kind, dir, SMALL)
}

/// An engine with small buffers in a new folder.
pub(crate) fn new_engine(kind: EngineKind) -> (TempDir, SharedEngine) {
    new_engine_with(kind, SMALL)
}

/// An engine in a new folder.
pub(crate) fn new_engine_with(kind: EngineKind, options: EngineOptions) -> (TempDir, SharedEngine) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let engine = open(kind, dir.path(), options).expect("a new folder opens");
    (dir, engine)
}

/// A key.
pub(crate) fn key(no: u64) -> Bytes {
    Bytes::from(format!("key-{no:06}"))
}

/// A row whose value tells its key and version.
pub(crate) fn row(key: &Bytes, version: u64) -> StoredRow {
    let value = format!("{}@{version} {}", key.escape_ascii(), "x".repeat(60));
    StoredRow {
        value: value.into(),
        version: Seq::new(version),
        expires: (version.is_multiple_of(3)).then(|| LogTime::new(version * 10)),
    }
}

/// The change that writes [`row`].
pub(crate) fn put(key: &Bytes, seq: u64) -> RowChange {
    RowChange {
        key: key.clone(),
        row: Some(row(key, seq)),
        seq: Seq::new(seq),
    }
}

/// The change that removes a key.
pub(crate) fn delete(key: &Bytes, seq: u64) -> RowChange {
    RowChange {
        key: key.clone(),
        row: None,
        seq: Seq::new(seq),
    }
}

/// The progress after record `seq`.
pub(crate) fn progress(seq: u64) -> Progress {
    Progress {
        applied: Seq::new(seq),
        applied_origin: Some(Origin {
            epoch: Epoch::new(3),
            incarnation: Incarnation::new(seq + 1),
        }),
        log_time: LogTime::new(seq * 7),
        ..Progress::default()
    }
}

/// A batch of rows that leads to `seq`.
pub(crate) fn batch(rows: Vec<RowChange>, seq: u64) -> Batch {
    Batch {
        rows,
        progress: progress(seq),
        ..Batch::default()
    }
}

/// A range of keys.
pub(crate) fn range(start: &[u8], end: Option<&[u8]>) -> KeyRange {
    KeyRange {
        start: Bytes::copy_from_slice(start),
        end: end.map(Bytes::copy_from_slice),
    }
}

/// All rows of a range, in order, from one view.
pub(crate) fn page_of(
    engine: &dyn Engine,
    range: &KeyRange,
    limit: PageLimit,
    reverse: bool,
) -> Page {
    let view = engine.view().expect("a view");
    view.page(range, limit, reverse).expect("a page")
}
