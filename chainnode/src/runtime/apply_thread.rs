//! The apply thread: committed records into the engine, off the path of acknowledgements.
//!
//! What is queued is merged: of a key or a session's slot only the newest
//! change of a batch is written, so results are persisted with the state's
//! batches and not per request (DESIGN §3.4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::config::KeyRange;
use catena_proto::ids::{LogTime, Seq, SessionId, ShardId, SlotNo};
use catena_proto::message::{SessionState, StateRow};
use catena_proto::record::{Group, SessionChange};

use super::clock;
use super::inbox::Inbox;
use super::shared::{Fatal, Shared, Work};
use crate::engine::{
    Batch, EngineError, Progress, RowChange, ScanProgress, SessionRowChange, SlotRow, StoredRow,
};
use crate::replica::{Apply, Input, StateProgress};

/// Something for the engine.
#[derive(Debug)]
pub(crate) struct ApplyWork {
    pub(crate) shard: ShardId,
    /// The shard's keys, for a wipe.
    pub(crate) range: Option<KeyRange>,
    pub(crate) apply: Apply,
}

/// The queue of the apply thread.
#[derive(Debug)]
pub(crate) struct ApplyQueue(Inbox<Vec<ApplyWork>>);

impl ApplyQueue {
    /// An empty queue. What is in it is bounded: followers stop acknowledging, heads stop accepting.
    pub(crate) const fn new() -> Self {
        Self(Inbox::new(usize::MAX))
    }

    pub(crate) fn push(&self, batch: Vec<ApplyWork>) {
        self.0.push(batch);
    }

    pub(crate) fn close(&self) {
        self.0.close();
    }
}

/// Bytes of records that go into the engine as one batch.
const BATCH_BYTES: usize = 4 << 20;
/// Records wait this long for others to share a batch with: a batch has a price of its own, and of the same
/// key or slot only the newest change is written. Nobody waits for it: reads find what is not applied in the overlay.
const GATHER_FOR: Duration = Duration::from_millis(20);
/// The state is made durable this often while it changes, so that a restart replays little.
const FLUSH_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct ApplyThread {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queue: Arc<ApplyQueue>,
    /// The engine's progress by shard, and what of it is flushed.
    pub(crate) progress: BTreeMap<ShardId, Progress>,
    pub(crate) flushed: BTreeMap<ShardId, Seq>,
}

/// Records of one shard that become one batch.
#[derive(Default)]
struct Gathered {
    rows: BTreeMap<Bytes, (Seq, Option<StoredRow>)>,
    used: BTreeMap<SessionId, LogTime>,
    slots: BTreeMap<(SessionId, SlotNo), SlotRow>,
    sessions: Vec<SessionRowChange>,
    bytes: usize,
    merge: bool,
}

impl ApplyThread {
    /// Works until the queue is closed, or the engine fails.
    pub(crate) fn run(mut self) {
        let mut taken = Vec::new();
        let mut flushed_at = clock::now();
        while self.queue.0.take(&mut taken, Some(FLUSH_EVERY)) {
            let mut work: Vec<ApplyWork> = taken.drain(..).flatten().collect();
            let records_only = |w: &ApplyWork| matches!(w.apply, Apply::Groups { .. });
            if !work.is_empty() && work.iter().all(records_only) {
                std::thread::sleep(GATHER_FOR);
                self.queue.0.take(&mut taken, Some(Duration::ZERO));
                work.extend(taken.drain(..).flatten());
            }
            let done = self.work(work).and_then(|()| {
                if clock::now().since(flushed_at) >= FLUSH_EVERY {
                    flushed_at = clock::now();
                    self.flush()?;
                }
                Ok(())
            });
            if let Err(why) = done {
                tracing::error!(%why, "the state cannot be written; the process ends with status 4");
                self.shared.die(Fatal::Disk);
                return;
            }
        }
        // A clean stop leaves nothing to replay.
        if let Err(why) = self.flush() {
            tracing::warn!(%why, "the state was not flushed; the next start replays the log");
        }
    }

    fn work(&mut self, work: Vec<ApplyWork>) -> Result<(), EngineError> {
        let mut by_shard: BTreeMap<ShardId, Vec<ApplyWork>> = BTreeMap::new();
        for item in work {
            by_shard.entry(item.shard).or_default().push(item);
        }
        for (shard, items) in by_shard {
            let mut gathered = Gathered::default();
            for ApplyWork { range, apply, .. } in items {
                match apply {
                    Apply::Groups {
                        groups,
                        merge_until,
                    } => {
                        for group in groups {
                            self.gather(shard, &group, merge_until, &mut gathered)?;
                        }
                    }
                    Apply::Wipe => {
                        self.write(shard, std::mem::take(&mut gathered))?;
                        let progress = Progress::default();
                        let range = range.unwrap_or_else(KeyRange::all);
                        self.shared.engine.wipe(shard, &range, progress.clone())?;
                        self.progress.insert(shard, progress);
                        self.flushed.insert(shard, Seq::ZERO);
                    }
                    Apply::Page {
                        rows,
                        sessions,
                        progress,
                        page_no,
                    } => {
                        self.write(shard, std::mem::take(&mut gathered))?;
                        self.page(shard, rows, sessions, &progress)?;
                        if progress.scan.is_none() {
                            // S2: a copied state counts once it has survived a flush.
                            self.flush()?;
                        }
                        let input = Input::PageApplied { page_no };
                        self.shared.inbox.push(Work::Input { shard, input });
                    }
                }
            }
            self.write(shard, gathered)?;
        }
        Ok(())
    }

    fn gather(
        &mut self,
        shard: ShardId,
        group: &Group,
        merge_until: Seq,
        into: &mut Gathered,
    ) -> Result<(), EngineError> {
        let merge = group.first <= merge_until;
        if into.bytes >= BATCH_BYTES || into.merge != merge {
            self.write(shard, std::mem::take(into))?;
            into.merge = merge;
        }
        into.bytes += group.weight();
        // The group was decoded when it entered the log: it is whole.
        for (seq, record) in group.decode().unwrap_or_default() {
            for effect in record.effects {
                let row = effect.value.map(|value| StoredRow {
                    value,
                    version: seq,
                    expires: effect.expires,
                });
                into.rows.insert(effect.key, (seq, row));
            }
            if let Some(request) = record.request {
                into.used.insert(request.session, record.at);
                let slot = SlotRow {
                    session: request.session,
                    slot: request.slot,
                    no: request.no,
                    seq,
                    outcome: record.outcome,
                };
                into.slots.insert((request.session, request.slot), slot);
            }
            match record.session {
                SessionChange::None => {}
                SessionChange::Open => {
                    into.used.insert(SessionId::new(seq.get()), record.at);
                }
                SessionChange::Close(id) => {
                    into.used.remove(&id);
                    into.slots.retain(|(session, _), _| *session != id);
                    into.sessions.push(SessionRowChange::Closed(id));
                }
            }
            let progress = self.progress.entry(shard).or_default();
            progress.applied = seq;
            progress.applied_origin = Some(group.origin);
            progress.log_time = progress.log_time.max(record.at);
            progress.merge_until = merge_until;
        }
        Ok(())
    }

    fn write(&self, shard: ShardId, gathered: Gathered) -> Result<(), EngineError> {
        if gathered.bytes == 0 {
            return Ok(());
        }
        let progress = self.progress.get(&shard).cloned().unwrap_or_default();
        let applied = progress.applied;
        let mut sessions = gathered.sessions;
        sessions.extend(
            gathered
                .used
                .into_iter()
                .map(|(id, at)| SessionRowChange::Used(id, at)),
        );
        sessions.extend(gathered.slots.into_values().map(SessionRowChange::Slot));
        let batch = Batch {
            rows: gathered
                .rows
                .into_iter()
                .map(|(key, (seq, row))| RowChange { key, row, seq })
                .collect(),
            sessions,
            progress,
            merge: gathered.merge,
        };
        self.shared.engine.apply(shard, batch)?;
        self.tell(shard, applied);
        Ok(())
    }

    fn page(
        &mut self,
        shard: ShardId,
        rows: Vec<StateRow>,
        sessions: Option<Vec<SessionState>>,
        progress: &StateProgress,
    ) -> Result<(), EngineError> {
        let rows = rows
            .into_iter()
            .map(|r| RowChange {
                key: r.key,
                seq: r.version,
                row: Some(StoredRow {
                    value: r.value,
                    version: r.version,
                    expires: r.expires,
                }),
            })
            .collect();
        let sessions = sessions.unwrap_or_default().into_iter().flat_map(|s| {
            let slots: Vec<SessionRowChange> = s
                .slots
                .iter()
                .map(|slot| {
                    SessionRowChange::Slot(SlotRow {
                        session: s.session,
                        slot: slot.slot,
                        no: slot.no,
                        seq: slot.seq,
                        outcome: slot.outcome,
                    })
                })
                .collect();
            std::iter::once(SessionRowChange::Used(s.session, s.used)).chain(slots)
        });
        let progress = Progress {
            applied: progress.applied,
            applied_origin: progress.applied_origin,
            log_time: progress.log_time,
            merge_until: progress.merge_until,
            scan: progress.scan.as_ref().map(|scan| ScanProgress {
                cursor: scan.after.clone(),
                page_no: scan.page_no,
            }),
        };
        self.progress.insert(shard, progress.clone());
        let batch = Batch {
            rows,
            sessions: sessions.collect(),
            progress,
            merge: false,
        };
        self.shared.engine.apply(shard, batch)
    }

    fn tell(&self, shard: ShardId, applied: Seq) {
        let flushed = self
            .flushed
            .get(&shard)
            .copied()
            .unwrap_or(Seq::ZERO)
            .min(applied);
        let input = Input::Applied { applied, flushed };
        self.shared.inbox.push(Work::Input { shard, input });
    }

    fn flush(&mut self) -> Result<(), EngineError> {
        let behind: Vec<(ShardId, Seq)> = self
            .progress
            .iter()
            // A copy that is not whole does not survive as anything (S2).
            .filter(|(_, p)| p.scan.is_none())
            .filter(|(shard, p)| self.flushed.get(shard).is_none_or(|f| *f < p.applied))
            .map(|(shard, p)| (*shard, p.applied))
            .collect();
        if behind.is_empty() {
            return Ok(());
        }
        self.shared.engine.flush()?;
        for (shard, applied) in behind {
            self.flushed.insert(shard, applied);
            self.tell(shard, applied);
        }
        Ok(())
    }
}
