//! Raft's log, votes and marks, kept in a [`catena_wal::Log`].
//!
//! # How they lie in the log
//! - The entry of Raft index `i` is a `Group` of the single record `i + 1`: Raft
//!   counts from 0, the log from 1. Its bytes are the entry as JSON.
//! - All groups have one origin: that of an entry is its term, inside.
//! - A truncated suffix is a `Cut`; entries that follow a snapshot, and not the
//!   log's end, begin with a `Reset`.
//! - Vote, committed and purged id are the newest `Meta`, as JSON.
//!
//! # What is in memory
//! Every entry that is not purged: replication reads them from here. Their number
//! is bounded by the snapshots that Raft takes (see `timing`), and few are
//! larger than a kilobyte.

#![allow(
    clippy::result_large_err,
    reason = "openraft's traits name the error, and it occurs once: before the end"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::RangeBounds;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use catena_proto::ids::{DiskId, Epoch, Incarnation, LogGeneration, Origin, Seq};
use catena_wal::{Disk, Log, LogError, LogOptions, RealDisk, Recovered, Tail};
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{AnyError, LogState, OptionalSend, RaftLogId, RaftLogReader};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::StartError;
use super::fatal::Alarm;
use super::log_thread::{self, Done, Job, RAFT};
use super::types::{Entry, LogId, MasterRaft, StorageError, StorageIoError, Vote};

/// Length of a segment: twice the largest entry fits. It is filled with zeros when it is made.
const SEGMENT_BYTES: u32 = 12 << 20;
/// The one origin of all records; entries say themselves who made them.
const ORIGIN: Origin = Origin {
    epoch: Epoch::new(1),
    incarnation: Incarnation::new(1),
};
const FORMAT: u32 = 1;

/// What is known beside the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Marks {
    format: u32,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
}

/// The log as Raft sees it. What is in here was given to the thread that writes it, in the same order.
#[derive(Debug, Default)]
struct View {
    marks: Marks,
    /// By index, dense. All behind `marks.purged`.
    entries: BTreeMap<u64, Entry>,
    /// The last record in the log on the disk.
    end: Seq,
}

impl View {
    fn last(&self) -> Option<LogId> {
        let newest = self.entries.last_key_value();
        newest.map(|(_, entry)| entry.log_id).or(self.marks.purged)
    }
}

/// Raft's log.
#[derive(Debug)]
pub struct LogStore {
    view: Arc<RwLock<View>>,
    jobs: mpsc::Sender<Job>,
}

/// Reads entries for replication.
#[derive(Clone, Debug)]
pub struct LogReader {
    view: Arc<RwLock<View>>,
}

/// Ends the log's thread.
#[derive(Debug)]
pub struct LogStop(mpsc::Sender<Job>);

impl LogStop {
    /// Resolves when the log's files are closed and nothing will be written any more.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.0.send(Job::Stop(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }
}

impl LogStore {
    /// Opens the log in a folder, or makes an empty one. It blocks.
    ///
    /// # Errors
    /// [`StartError::Damaged`] when something durable is lost: a master must not vote with a memory that has holes.
    /// [`StartError::Disk`].
    pub fn open(dir: &Path, disk: DiskId, alarm: &Alarm) -> Result<Self, StartError> {
        let options = LogOptions {
            segment_bytes: SEGMENT_BYTES,
            // What a snapshot replaced is needed by nobody.
            retained_bytes: 0,
            ..LogOptions::new(disk.get())
        };
        let real = RealDisk::open(dir).map_err(|why| StartError::disk(dir, &why))?;
        Self::on(real, dir, options, alarm)
    }

    /// The same on any disk; `dir` is for messages.
    ///
    /// # Errors
    /// As [`LogStore::open`].
    pub fn on<D: Disk + Send + 'static>(
        disk: D,
        dir: &Path,
        options: LogOptions,
        alarm: &Alarm,
    ) -> Result<Self, StartError> {
        let (log, recovered) = Log::open(disk, options).map_err(|why| match why {
            LogError::Open(_) => StartError::damaged(dir, &why),
            why => StartError::disk(dir, &why),
        })?;
        let view = recover(&log, &recovered, dir)?;
        let jobs =
            log_thread::spawn(log, alarm.clone()).map_err(|why| StartError::disk(dir, &why))?;
        Ok(Self {
            view: Arc::new(RwLock::new(view)),
            jobs,
        })
    }

    /// Whether the log has held anything at all.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.view.read().marks.format > 0
    }

    /// Makes the log one that was used, durably.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn note_used(&self) -> Result<(), StorageError> {
        let meta = {
            let mut view = self.view.write();
            view.marks.format = FORMAT;
            meta(&view.marks)
        };
        self.write(vec![meta?], StorageIoError::write).await
    }

    /// The last entry that a snapshot must contain.
    #[must_use]
    pub fn purged(&self) -> Option<LogId> {
        self.view.read().marks.purged
    }

    /// The means to end the log's thread.
    #[must_use]
    pub fn stopper(&self) -> LogStop {
        LogStop(self.jobs.clone())
    }

    /// Writes and waits until it is durable.
    async fn write(
        &self,
        entries: Vec<catena_wal::Entry>,
        error: fn(AnyError) -> StorageIoError,
    ) -> Result<(), StorageError> {
        let (done, written) = oneshot::channel();
        let job = Job::Write {
            entries,
            sync: true,
            done: Done::Waiting(done),
        };
        let failed = |why: String| StorageError::from(error(AnyError::error(why)));
        self.give(job).await?;
        match written.await {
            Ok(result) => result.map_err(failed),
            Err(_) => Err(failed(CLOSED.to_owned())),
        }
    }

    async fn give(&self, job: Job) -> Result<(), StorageError> {
        let closed = |_| StorageIoError::write_logs(AnyError::error(CLOSED)).into();
        self.jobs.send(job).await.map_err(closed)
    }
}

const CLOSED: &str = "the log is closed: this master stops";

/// Reads what the log holds. It fails rather than forgets.
fn recover<D: Disk>(log: &Log<D>, recovered: &Recovered, dir: &Path) -> Result<View, StartError> {
    if let Tail::Torn { segment, offset } = recovered.tail {
        tracing::warn!(
            segment,
            offset,
            "a torn end of Raft's log was cut: it was never acknowledged"
        );
    }
    if let Some(hole) = &recovered.hole {
        return Err(StartError::damaged(dir, hole));
    }
    let Some(found) = recovered.shards.get(&RAFT) else {
        return Ok(View::default());
    };
    if let Some(damage) = &found.damage {
        return Err(StartError::damaged(dir, damage));
    }
    let marks = match &found.meta {
        Some(blob) => {
            serde_json::from_slice::<Marks>(blob).map_err(|why| StartError::damaged(dir, &why))?
        }
        None => Marks::default(),
    };
    if marks.format > FORMAT {
        let why = format!("it has format {}, this build reads {FORMAT}", marks.format);
        return Err(StartError::damaged(dir, &why));
    }
    let purged = marks.purged.map_or(Seq::ZERO, |id| seq(id.index));
    let mut view = View {
        marks,
        entries: BTreeMap::new(),
        end: found.end,
    };
    if found.end <= purged {
        return Ok(view);
    }
    let groups = log
        .read(RAFT, found.start.max(purged), usize::MAX)
        .map_err(|why| StartError::damaged(dir, &why))?;
    for group in groups {
        let entry: Entry =
            serde_json::from_slice(&group.records).map_err(|why| StartError::damaged(dir, &why))?;
        if seq(entry.log_id.index) != group.first || group.first != group.last {
            let why = format!("record {} holds entry {}", group.first, entry.log_id.index);
            return Err(StartError::damaged(dir, &why));
        }
        view.entries.insert(entry.log_id.index, entry);
    }
    let first = view
        .entries
        .keys()
        .next()
        .map_or(purged, |i| seq(*i).prev());
    // Without a snapshot, an empty cluster's first entry has index 0.
    if first > purged && view.marks.purged.is_some() {
        let why = format!("entries from {} on are gone", purged.get());
        return Err(StartError::damaged(dir, &why));
    }
    Ok(view)
}

/// Where an entry lies.
const fn seq(index: u64) -> Seq {
    Seq::new(index).next()
}

fn meta(marks: &Marks) -> Result<catena_wal::Entry, StorageError> {
    let blob = serde_json::to_vec(marks).map_err(|why| StorageIoError::write(&why))?;
    Ok(catena_wal::Entry::Meta {
        shard: RAFT,
        blob: Bytes::from(blob),
    })
}

fn group(entry: &Entry) -> Result<catena_wal::Entry, StorageError> {
    let records = serde_json::to_vec(entry)
        .map_err(|why| StorageIoError::write_log_entry(entry.log_id, &why))?;
    Ok(catena_wal::Entry::Group {
        shard: RAFT,
        origin: ORIGIN,
        first: seq(entry.log_id.index),
        last: seq(entry.log_id.index),
        records: Bytes::from(records),
    })
}

impl RaftLogReader<MasterRaft> for LogReader {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let view = self.view.read();
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        if is_empty(bounds) {
            return Ok(Vec::new());
        }
        Ok(view.entries.range(bounds).map(|(_, e)| e.clone()).collect())
    }
}

/// A map panics when asked for a range that ends before it begins.
fn is_empty(bounds: (std::ops::Bound<u64>, std::ops::Bound<u64>)) -> bool {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    match bounds {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(a), Included(b)) => a > b,
        (Included(a) | Excluded(a), Excluded(b)) | (Excluded(a), Included(b)) => a >= b,
    }
}

impl RaftLogReader<MasterRaft> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        self.get_log_reader().await.try_get_log_entries(range).await
    }
}

impl RaftLogStorage<MasterRaft> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<MasterRaft>, StorageError> {
        let view = self.view.read();
        Ok(LogState {
            last_purged_log_id: view.marks.purged,
            last_log_id: view.last(),
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader {
            view: Arc::clone(&self.view),
        }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let meta = {
            let mut view = self.view.write();
            view.marks.format = FORMAT;
            view.marks.vote = Some(*vote);
            meta(&view.marks)
        };
        self.write(vec![meta?], StorageIoError::write_vote).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.view.read().marks.vote)
    }

    /// It saves a start some time, and is not waited for: a master that forgets it learns it again from the leader.
    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        let meta = {
            let mut view = self.view.write();
            view.marks.format = FORMAT;
            view.marks.committed = committed;
            meta(&view.marks)
        };
        let job = Job::Write {
            entries: vec![meta?],
            sync: false,
            done: Done::Nobody,
        };
        self.give(job).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.view.read().marks.committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<MasterRaft>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut writes = Vec::new();
        {
            let mut view = self.view.write();
            for entry in entries {
                let first = seq(entry.get_log_id().index);
                if first != view.end.next() {
                    if !view.entries.is_empty() {
                        let why = format!("entry {} does not follow {}", first, view.end);
                        return Err(StorageIoError::write_logs(AnyError::error(why)).into());
                    }
                    // It follows a snapshot, not what the log held.
                    writes.push(catena_wal::Entry::Reset {
                        shard: RAFT,
                        base: first.prev(),
                        origin: ORIGIN,
                        generation: LogGeneration::ZERO,
                    });
                }
                writes.push(group(&entry)?);
                view.end = first;
                view.entries.insert(entry.log_id.index, entry);
            }
        }
        let job = Job::Write {
            entries: writes,
            sync: true,
            done: Done::Flushed(callback),
        };
        self.give(job).await
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let after = {
            let mut view = self.view.write();
            view.entries.split_off(&log_id.index);
            view.end = view.end.min(Seq::new(log_id.index));
            view.end
        };
        let cut = catena_wal::Entry::Cut {
            shard: RAFT,
            after,
            generation: LogGeneration::ZERO,
        };
        self.write(vec![cut], StorageIoError::write_logs).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        let meta = {
            let mut view = self.view.write();
            view.marks.format = FORMAT;
            view.marks.purged = view.marks.purged.max(Some(log_id));
            view.entries = view.entries.split_off(&log_id.index.saturating_add(1));
            meta(&view.marks)
        };
        // The mark is durable before anything goes: entries that miss without it are damage.
        self.write(vec![meta?], StorageIoError::write_logs).await?;
        self.give(Job::Trim(seq(log_id.index))).await
    }
}
