//! The state of a node's replicas on disk: one ordered key space shared by all of them (DESIGN §3.7), and a small table per shard.
//!
//! An engine is a cache of the log: it is written lazily, each batch together
//! with the `seq` it leads to, and what a crash takes is replayed. It never
//! decides anything.
//!
//! The three engines differ only in how they keep two ordered spaces of bytes
//! (`store`); what is in those bytes, and every rule of [`Engine`], is written
//! once, in `tables`, for all of them.

mod fjall;
mod gate;
mod memory;
mod meta;
pub mod open;
mod rows;
mod sled;
mod store;
mod table_list;
mod tables;
mod versions;

use std::sync::Arc;

use bytes::Bytes;
use catena_proto::config::KeyRange;
use catena_proto::ids::{LogTime, RequestNo, Seq, SessionId, ShardId, SlotNo};
use catena_proto::op::Outcome;

pub use self::open::{EngineKind, EngineOptions};

/// A key's committed state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    /// The value.
    pub value: Bytes,
    /// The `seq` of the record that wrote it.
    pub version: Seq,
    /// When it expires; `None` is never.
    pub expires: Option<LogTime>,
}

/// One slot of a session, as persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRow {
    /// The session.
    pub session: SessionId,
    /// The slot.
    pub slot: SlotNo,
    /// The last request that was executed in it.
    pub no: RequestNo,
    /// The record that holds its result.
    pub seq: Seq,
    /// The result.
    pub outcome: Outcome,
}

/// How far a shard's state has come; written in the batch that takes it there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Records up to here are in the state.
    pub applied: Seq,
    /// Origin of the record at `applied` (epoch and incarnation of its head), for rule L2.
    pub applied_origin: Option<catena_proto::ids::Origin>,
    /// The replicated clock at `applied`.
    pub log_time: LogTime,
    /// Rows copied by a scan may be newer than `applied`: up to here, applying compares versions.
    pub merge_until: Seq,
    /// A scan that is under way; the state is not whole until it ends.
    pub scan: Option<ScanProgress>,
}

/// How far a scan of a source's state has come (rule M4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanProgress {
    /// Last key copied; `None` before the first page.
    pub cursor: Option<Bytes>,
    /// Number of the next page.
    pub page_no: u64,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowChange {
    /// The key.
    pub key: Bytes,
    /// Its new row, or `None` to remove it.
    pub row: Option<StoredRow>,
    /// The `seq` that did it (a row's version, or the tombstone's).
    pub seq: Seq,
}

/// A change of the persisted sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionRowChange {
    /// A session exists, and was last used at this log time.
    Used(SessionId, LogTime),
    /// A slot has a new result.
    Slot(SlotRow),
    /// A session and all its slots are gone.
    Closed(SessionId),
}

/// What is written at once for one shard, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Keys, each at most once; none is empty, and none exceeds [`catena_proto::limits::KEY_BYTES_MAX`].
    pub rows: Vec<RowChange>,
    /// Sessions, in the order in which it happened: a slot's result after the close of its session opens it anew.
    pub sessions: Vec<SessionRowChange>,
    /// The progress that this batch reaches.
    pub progress: Progress,
    /// Compare versions row by row: a stored row with a version of at least the change's `seq` stays.
    pub merge: bool,
}

/// A session as it was persisted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// Its id.
    pub session: SessionId,
    /// When it was last used.
    pub used: LogTime,
    /// Its slots, in order.
    pub slots: Vec<SlotRow>,
}

/// A page of rows in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Keys and rows.
    pub rows: Vec<(Bytes, StoredRow)>,
    /// Whether the range holds more beyond this page.
    pub more: bool,
}

/// What a page may hold.
#[derive(Clone, Copy, Debug)]
pub struct PageLimit {
    /// Rows, at most; 0 only asks whether there are any.
    pub rows: usize,
    /// Bytes of keys and values; the first row may exceed it alone.
    pub bytes: usize,
}

/// Why an engine could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The disk or the engine's files failed: the process must stop.
    #[error("the {engine} engine failed to {what}: {why}; the node stops, its log is whole")]
    Failed {
        /// Which engine.
        engine: &'static str,
        /// What it was doing.
        what: &'static str,
        /// Its own words.
        why: String,
    },
    /// What is stored fails its checksum: the replica must be repaired from a fellow, which begins with [`Engine::wipe`].
    #[error(
        "what is stored at {key} is damaged: the replica that holds it is repaired from a fellow"
    )]
    Damaged {
        /// The key, escaped and cut; or the part of a shard's table that is damaged.
        key: String,
    },
    /// The engine's own files do not fit together (a power cut, a disk that lies): the state is lost, and nothing else.
    #[error(
        "the files of the {engine} engine do not open: {why}; move the folder away and start again, \
         the replicas rebuild their state from the log and from their fellows"
    )]
    Unusable {
        /// Which engine.
        engine: &'static str,
        /// Its own words.
        why: String,
    },
    /// The files are of another format version.
    #[error(
        "the {engine} folder has format {found}, this build reads {known}: use the build that wrote it"
    )]
    Format {
        /// Which engine.
        engine: &'static str,
        /// The version found.
        found: u32,
        /// The version known.
        known: u32,
    },
}

/// An atomic view of the whole engine at one moment; cheap to take, held for one read.
///
/// While a view is held, an engine without snapshots (sled) lets its writer
/// wait, and a disk engine with them (fjall) cannot drop what was overwritten. So
/// a thread that holds a view takes no second one, does not write, and drops
/// it before it waits for anything.
pub trait View: Send {
    /// A key's row.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, key: &[u8]) -> Result<Option<StoredRow>, EngineError>;

    /// Rows of `range` in key order (descending if `reverse`), at most a page. Expired rows are among them.
    ///
    /// # Errors
    /// [`EngineError`].
    fn page(&self, range: &KeyRange, limit: PageLimit, reverse: bool) -> Result<Page, EngineError>;

    /// How far the shard's state had come in this view; the default for a shard that was never written.
    ///
    /// # Errors
    /// [`EngineError`].
    fn progress(&self, shard: ShardId) -> Result<Progress, EngineError>;

    /// The shard's sessions in this view, in order.
    ///
    /// # Errors
    /// [`EngineError`].
    fn sessions(&self, shard: ShardId) -> Result<Vec<StoredSession>, EngineError>;
}

/// A store of rows. All calls are synchronous and may wait for the disk. Writes exclude each other, reads go on beside them.
pub trait Engine: Send + Sync {
    /// The name used in settings and errors.
    fn name(&self) -> &'static str;

    /// A key's row now; the fast path of point reads.
    ///
    /// # Errors
    /// [`EngineError`].
    fn get(&self, key: &[u8]) -> Result<Option<StoredRow>, EngineError>;

    /// An atomic view.
    ///
    /// # Errors
    /// [`EngineError`].
    fn view(&self) -> Result<Box<dyn View + '_>, EngineError>;

    /// Writes a shard's batch at once. Durable only after [`Engine::flush`]; a crash before it keeps a prefix of
    /// the batches, each whole, so that the progress found afterwards always fits the rows found beside it.
    ///
    /// # Errors
    /// [`EngineError`].
    fn apply(&self, shard: ShardId, batch: Batch) -> Result<(), EngineError>;

    /// Removes the shard's rows in `range`, its sessions and its progress, and leaves `progress` in their place.
    ///
    /// It goes in steps of bounded size, without reading what it removes (so that damage can be wiped): `progress`
    /// is there from the first step on, and a wipe that a crash cut short is finished when the engine opens again.
    ///
    /// # Errors
    /// [`EngineError`].
    fn wipe(&self, shard: ShardId, range: &KeyRange, progress: Progress)
    -> Result<(), EngineError>;

    /// Makes everything applied before the call durable.
    ///
    /// # Errors
    /// [`EngineError`].
    fn flush(&self) -> Result<(), EngineError>;
}

/// A shared engine.
pub type SharedEngine = Arc<dyn Engine>;
