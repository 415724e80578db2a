//! The log thread: group commit without a delay.
//!
//! It drains its queue, appends everything in one write, syncs once, and says
//! so in one message a shard. While it syncs, the next batch gathers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::ids::{LogGeneration, Seq, ShardId};
use catena_proto::record::Group;
use catena_wal::{DiskError, Entry, Log, LogError, LogOptions, RealDisk, StoredGroup};

use super::clock;
use super::inbox::Inbox;
use super::shared::{Fatal, Shared, Work};
use crate::replica::{Input, LogRead, MetaNo, Persist};

/// What the log thread is asked to do.
#[derive(Debug)]
pub(crate) enum LogWork {
    /// Make something durable.
    Persist(ShardId, Persist),
    /// Read back for a follower.
    Read(ShardId, LogRead),
}

/// The queue of the log thread: batches in order.
#[derive(Debug)]
pub(crate) struct LogQueue(Inbox<Vec<LogWork>>);

impl LogQueue {
    /// An empty queue. What is in it is bounded by what replicas may have uncommitted.
    pub(crate) const fn new() -> Self {
        Self(Inbox::new(usize::MAX))
    }

    pub(crate) fn push(&self, batch: Vec<LogWork>) {
        self.0.push(batch);
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// How far a shard's log is durable, in the words of [`Input::Persisted`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Durable {
    pub(crate) generation: LogGeneration,
    pub(crate) durable: Seq,
    pub(crate) meta: MetaNo,
}

/// A full disk is looked at again after this long.
const ROOM_EVERY: Duration = Duration::from_millis(200);
/// The log is trimmed at most this often.
const TRIM_EVERY: Duration = Duration::from_secs(1);
const SPARE_NAME: &str = "spare.new";

pub(crate) struct LogThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<LogQueue>,
    pub(crate) log: Log<RealDisk>,
    pub(crate) durable: BTreeMap<ShardId, Durable>,
}

impl LogThread {
    /// Works until the queue is closed, or the disk fails.
    pub(crate) fn run(mut self) {
        let mut taken = Vec::new();
        let mut trimmed = clock::now();
        while self.queue.0.take(&mut taken, Some(TRIM_EVERY)) {
            let done = self.work(taken.drain(..).flatten().collect());
            let done = done.and_then(|()| {
                if clock::now().since(trimmed) >= TRIM_EVERY {
                    trimmed = clock::now();
                    self.trim()?;
                }
                Ok(())
            });
            if let Err(why) = done {
                tracing::error!(%why, "the log failed; the process ends with status 4");
                self.shared.die(Fatal::Disk);
                return;
            }
        }
    }

    fn work(&mut self, batch: Vec<LogWork>) -> Result<(), LogError> {
        let mut entries = Vec::with_capacity(batch.len());
        let mut touched = BTreeMap::new();
        let mut reads = Vec::new();
        for work in batch {
            match work {
                LogWork::Persist(shard, persist) => {
                    let mut durable = touched
                        .get(&shard)
                        .or_else(|| self.durable.get(&shard))
                        .copied()
                        .unwrap_or_default();
                    entries.push(entry(shard, persist, &mut durable));
                    touched.insert(shard, durable);
                }
                LogWork::Read(shard, read) => reads.push((shard, read)),
            }
        }
        if !entries.is_empty() {
            self.append(&entries)?;
            let begun = clock::now();
            self.log.sync()?;
            let metrics = &self.shared.metrics;
            metrics
                .sync_seconds
                .observe(clock::now().since(begun).as_secs_f64());
            metrics.sync_groups.observe(entries.len() as f64);
            let noted = self.shared.held.folder.is_log_used();
            if !noted && entries.iter().any(|e| matches!(e, Entry::Meta { .. })) {
                // Before the replica acts on it: a log without it is a lost one from now on (C4).
                self.shared.held.folder.note_log_used().map_err(|why| {
                    LogError::Open(format!("the folder's identity cannot be written: {why}"))
                })?;
            }
        }
        for (shard, durable) in touched {
            self.durable.insert(shard, durable);
            let Durable {
                generation,
                durable,
                meta,
            } = durable;
            let input = Input::Persisted {
                generation,
                durable,
                meta,
            };
            self.shared.inbox.push(Work::Input { shard, input });
        }
        for (shard, read) in reads {
            self.read(shard, read);
        }
        Ok(())
    }

    /// A full disk loses nothing: the batch waits until there is room, and the head takes no more writes.
    fn append(&mut self, entries: &[Entry]) -> Result<(), LogError> {
        let bytes = entries.iter().map(|e| match e {
            Entry::Group { records, .. } => records.len(),
            _ => 0,
        });
        self.shared.metrics.logged(bytes.sum());
        let mut told = false;
        loop {
            match self.log.append(entries) {
                Err(LogError::Full { bytes }) if !self.shared.stopping.load(Ordering::SeqCst) => {
                    if !told {
                        tracing::error!(bytes, "the disk is full: writes are refused, reads go on");
                        self.shared.inbox.push(Work::ReadOnly(true));
                        told = true;
                    }
                    // What the state has flushed since may be all that stands in the way.
                    self.trim()?;
                    std::thread::sleep(ROOM_EVERY);
                }
                done => {
                    if told {
                        tracing::info!("there is room on the disk again");
                        self.shared.inbox.push(Work::ReadOnly(false));
                    }
                    return done;
                }
            }
        }
    }

    fn read(&self, shard: ShardId, read: LogRead) {
        let groups = match self.log.read(shard, read.after, read.bytes_max) {
            Ok(groups) => groups.into_iter().filter_map(group).collect(),
            Err(why) => {
                tracing::warn!(shard = shard.get(), %why, "a follower wants what the log cannot give");
                Vec::new()
            }
        };
        let input = Input::LogRead {
            link: read.link,
            groups,
        };
        self.shared.inbox.push(Work::Input { shard, input });
    }

    fn trim(&mut self) -> Result<(), LogError> {
        let usage = self.log.usage();
        self.shared
            .metrics
            .log_bytes
            .set(i64::try_from(usage.total_bytes).unwrap_or(i64::MAX));
        let floors: BTreeMap<ShardId, Seq> = self
            .shared
            .shards
            .read()
            .iter()
            .map(|(id, shard)| (*id, shard.replica.read().log_floor()))
            .collect();
        let moved = self
            .log
            .trim(|shard| floors.get(&shard).copied().unwrap_or(Seq::ZERO))?;
        for (shard, start) in moved {
            let input = Input::LogTrimmed { start };
            self.shared.inbox.push(Work::Input { shard, input });
        }
        Ok(())
    }
}

fn entry(shard: ShardId, persist: Persist, durable: &mut Durable) -> Entry {
    match persist {
        Persist::Append(Group {
            origin,
            first,
            last,
            records,
        }) => {
            durable.durable = last;
            Entry::Group {
                shard,
                origin,
                first,
                last,
                records,
            }
        }
        Persist::Cut { after, generation } => {
            durable.generation = generation;
            durable.durable = durable.durable.min(after);
            Entry::Cut {
                shard,
                after,
                generation,
            }
        }
        Persist::Reset {
            base,
            origin,
            generation,
        } => {
            durable.generation = generation;
            durable.durable = base;
            Entry::Reset {
                shard,
                base,
                origin,
                generation,
            }
        }
        Persist::Meta { no, meta } => {
            durable.meta = no;
            Entry::Meta {
                shard,
                blob: meta.encode(),
            }
        }
    }
}

/// A stored group without what was cut.
pub(crate) fn group(stored: StoredGroup) -> Option<Group> {
    let StoredGroup {
        origin,
        first,
        last,
        valid_to,
        records,
    } = stored;
    Group {
        origin,
        first,
        last,
        records,
    }
    .prefix_to(valid_to)
    .ok()?
}

/// Keeps a file ready to become the next segment, so that no append waits for one to be made.
pub(crate) fn keep_spare(shared: &Shared, folder: PathBuf, options: LogOptions) {
    let mut full = false;
    let Ok(mut disk) = RealDisk::open(&folder) else {
        return;
    };
    while !shared.stopping.load(Ordering::SeqCst) {
        match catena_wal::make_spare(&mut disk, SPARE_NAME, options.segment_bytes) {
            Ok(()) if full => {
                full = false;
                tracing::info!("there is room for the log again: writes are taken");
                shared.inbox.push(Work::ReadOnly(false));
            }
            Err(DiskError::Full { .. }) if !full => {
                full = true;
                // Early: the segment that is written now still has room for what is under way.
                tracing::error!(
                    "no room for the next segment of the log: writes are refused, reads go on"
                );
                shared.inbox.push(Work::ReadOnly(true));
            }
            Ok(()) | Err(DiskError::Full { .. }) => {}
            Err(why) => {
                tracing::error!(%why, "the log's next segment cannot be made; the process ends with status 4");
                shared.die(Fatal::Disk);
                return;
            }
        }
        std::thread::sleep(ROOM_EVERY);
    }
}
