//! A node's disk on a stage: what is durable, what is not yet, and what a crash leaves.
//!
//! A model, not the production log: it does at once and exactly what `wal` promises.

use std::collections::{BTreeMap, VecDeque};

use super::oracle::Durable;
use crate::replica::{Apply, Input, Meta, MetaNo, PageRead, Persist, Recovered, StateProgress};
use bytes::Bytes;
use catena_proto::ids::{DiskId, Epoch, LogGeneration, Seq, SessionId};
use catena_proto::message::{OriginSpan, SessionState, SlotState, StatePage, StateRow};
use catena_proto::record::{Group, ORIGIN_NONE, Record, SessionChange};

/// Rows, sessions and progress of the engine.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// Value and version by key.
    pub rows: BTreeMap<Bytes, (Bytes, Seq)>,
    /// Sessions by id.
    pub sessions: BTreeMap<SessionId, SessionState>,
    /// How far it has come.
    pub progress: StateProgress,
}

impl State {
    fn record(&mut self, seq: Seq, record: Record, merge_until: Seq) {
        for effect in record.effects {
            let newer = self.rows.get(&effect.key).is_some_and(|(_, v)| *v >= seq);
            if seq <= merge_until && newer {
                continue;
            }
            match effect.value {
                Some(value) => self.rows.insert(effect.key, (value, seq)),
                None => self.rows.remove(&effect.key),
            };
        }
        if let Some(request) = record.request
            && let Some(session) = self.sessions.get_mut(&request.session)
        {
            session.used = record.at;
            session.slots.retain(|s| s.slot != request.slot);
            let (slot, no, outcome) = (request.slot, request.no, record.outcome);
            session.slots.push(SlotState {
                slot,
                no,
                seq,
                outcome,
            });
        }
        match record.session {
            SessionChange::None => {}
            SessionChange::Open => {
                let session = SessionId::new(seq.get());
                let state = SessionState {
                    session,
                    used: record.at,
                    slots: Vec::new(),
                };
                self.sessions.insert(session, state);
            }
            SessionChange::Close(id) => {
                self.sessions.remove(&id);
            }
        }
        self.progress.log_time = record.at;
    }
}

/// The log as a disk would hold it.
#[derive(Clone, Debug, Default)]
struct Log {
    start: Seq,
    groups: Vec<Group>,
    base_origin: Option<OriginSpan>,
    generation: LogGeneration,
    meta: Option<Meta>,
    meta_no: MetaNo,
}

impl Log {
    fn end(&self) -> Seq {
        self.groups.last().map_or(self.start, |g| g.last)
    }

    fn write(&mut self, persist: Persist) {
        match persist {
            Persist::Append(group) => self.groups.push(group),
            Persist::Cut { after, generation } => {
                self.groups.retain(|g| g.first <= after);
                if let Some(last) = self.groups.pop() {
                    self.groups.extend(last.prefix_to(after).ok().flatten());
                }
                self.generation = generation;
            }
            Persist::Reset {
                base,
                origin,
                generation,
            } => {
                self.groups.clear();
                self.start = base;
                self.base_origin = Some(OriginSpan {
                    origin,
                    first: base,
                });
                self.generation = generation;
            }
            Persist::Meta { no, meta } => {
                self.meta = Some(meta);
                self.meta_no = no;
            }
        }
    }
}

/// A disk with a write queue.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    log: Log,
    unsynced: VecDeque<Persist>,
    /// The engine.
    pub state: State,
    /// The engine as of its last flush: what a crash leaves.
    flushed: State,
    /// How much of the flushed state the replica knows of.
    told_flushed: Seq,
    queue: VecDeque<Apply>,
}

impl Disk {
    /// Takes a step's outputs.
    pub fn take(&mut self, persist: Vec<Persist>, apply: Vec<Apply>) {
        self.unsynced.extend(persist);
        self.queue.extend(apply);
    }

    /// Syncs everything that was asked for.
    pub fn sync(&mut self) -> Option<Input> {
        if self.unsynced.is_empty() {
            return None;
        }
        for persist in std::mem::take(&mut self.unsynced) {
            self.log.write(persist);
        }
        Some(Input::Persisted {
            generation: self.log.generation,
            durable: self.log.end(),
            meta: self.log.meta_no,
        })
    }

    /// Applies everything that was handed over; `flush` makes it survive a crash.
    pub fn apply(&mut self, flush: bool) -> Vec<Input> {
        let mut inputs = Vec::new();
        let mut applied = None;
        for apply in std::mem::take(&mut self.queue) {
            match apply {
                Apply::Groups {
                    groups,
                    merge_until,
                } => {
                    for group in groups {
                        for (seq, record) in group.decode().unwrap_or_default() {
                            self.state.record(seq, record, merge_until);
                        }
                        self.state.progress.applied = group.last;
                        self.state.progress.applied_origin = Some(group.origin);
                    }
                    applied = Some(self.state.progress.applied);
                }
                Apply::Wipe => self.state = State::default(),
                Apply::Page {
                    rows,
                    sessions,
                    progress,
                    page_no,
                } => {
                    for StateRow {
                        key,
                        value,
                        version,
                        ..
                    } in rows
                    {
                        self.state.rows.insert(key, (value, version));
                    }
                    if let Some(sessions) = sessions {
                        self.state.sessions =
                            sessions.into_iter().map(|s| (s.session, s)).collect();
                    }
                    self.state.progress = progress;
                    inputs.push(Input::PageApplied { page_no });
                }
            }
        }
        if flush {
            self.flushed = self.state.clone();
        }
        // A copy that is not whole does not survive as anything (S2).
        let whole = self.flushed.progress.scan.is_none();
        let flushed = if whole {
            self.flushed.progress.applied
        } else {
            Seq::ZERO
        };
        if applied.is_some() || !inputs.is_empty() || flushed != self.told_flushed {
            self.told_flushed = flushed;
            inputs.push(Input::Applied {
                applied: self.state.progress.applied,
                flushed,
            });
        }
        inputs
    }

    /// Groups after a position, for a follower that is far behind.
    #[must_use]
    pub fn read(&self, after: Seq) -> Vec<Group> {
        self.log
            .groups
            .iter()
            .filter(|g| g.last > after)
            .cloned()
            .collect()
    }

    /// Drops the log up to a position, as a trim would.
    pub fn trim(&mut self, to: Seq) {
        if let Some(last) = self.log.groups.iter().rfind(|g| g.last <= to) {
            self.log.base_origin = Some(OriginSpan {
                origin: last.origin,
                first: last.last,
            });
            self.log.start = last.last;
            let start = self.log.start;
            self.log.groups.retain(|g| g.first > start);
        }
    }

    /// Becomes an older copy of itself: log and state up to a position.
    pub fn rollback(&mut self, to: Seq) {
        self.log.groups.retain(|g| g.last <= to);
        self.state.rows.retain(|_, (_, version)| *version <= to);
        self.state.progress.applied = self.log.end();
        self.state.progress.applied_origin = self.log.groups.last().map(|g| g.origin);
        self.flushed = self.state.clone();
    }

    /// The log holds records after this position.
    #[must_use]
    pub const fn start(&self) -> Seq {
        self.log.start
    }

    /// What a crash leaves: of what was not synced, the first `keep` writes.
    pub fn crash(&mut self, keep: usize) {
        for persist in std::mem::take(&mut self.unsynced).into_iter().take(keep) {
            self.log.write(persist);
        }
        // Numbers are those of one process.
        self.log.meta_no = MetaNo::default();
        self.queue.clear();
        self.state = self.flushed.clone();
        self.told_flushed = self.flushed.progress.applied;
    }

    /// How many writes wait for a sync.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// The epoch of the newest durable metadata.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.log
            .meta
            .as_ref()
            .map_or(Epoch::ZERO, |m| m.chain.epoch)
    }

    /// The stint for which the durable metadata says synced (S1).
    #[must_use]
    pub fn synced_for(&self) -> Option<(DiskId, Epoch)> {
        self.log.meta.as_ref()?.synced_for
    }

    /// The end of the durable log.
    #[must_use]
    pub fn durable(&self) -> Seq {
        self.log.end()
    }

    /// What the log holds for sure at a position.
    #[must_use]
    pub fn durable_at(&self, seq: Seq) -> Durable {
        if seq <= self.log.start {
            return Durable::Trimmed;
        }
        self.record(seq).map_or(Durable::Nothing, Durable::Record)
    }

    /// Whether anything waits for a sync, or for the engine.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unsynced.is_empty() && self.queue.is_empty()
    }

    /// The durable record at `seq`, if the log still has it.
    #[must_use]
    pub fn record(&self, seq: Seq) -> Option<Record> {
        let at = self.log.groups.partition_point(|g| g.last < seq);
        let group = self.log.groups.get(at)?;
        group
            .decode()
            .ok()?
            .into_iter()
            .find(|(s, _)| *s == seq)
            .map(|(_, r)| r)
    }

    /// What the next start finds.
    #[must_use]
    pub fn recover(&self, damage: Option<String>) -> Recovered {
        let mut origins: Vec<OriginSpan> = self.log.base_origin.into_iter().collect();
        origins.extend(self.log.groups.iter().map(|g| OriginSpan {
            origin: g.origin,
            first: g.first,
        }));
        let applied = self.state.progress.applied;
        Recovered {
            meta: self.log.meta.clone(),
            state: self.state.progress.clone(),
            sessions: self.state.sessions.values().cloned().collect(),
            log_start: self.log.start,
            log_end: self.log.end(),
            origins,
            groups: self
                .log
                .groups
                .iter()
                .filter(|g| g.last > applied)
                .cloned()
                .collect(),
            generation: self.log.generation,
            damage,
        }
    }
}

/// A page of at most two rows: small, so that scans take several.
pub(super) fn page(disk: &Disk, read: &PageRead) -> StatePage {
    let state = &disk.state;
    let after = read.after.clone();
    let mut rows: Vec<StateRow> = state
        .rows
        .iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|a| *key > a))
        .map(|(key, (value, version))| StateRow {
            key: key.clone(),
            value: value.clone(),
            version: *version,
            expires: None,
        })
        .collect();
    let last = rows.len() <= 2;
    rows.truncate(2);
    StatePage {
        link: read.link,
        page_no: read.page_no,
        applied: state.progress.applied,
        applied_origin: state.progress.applied_origin.unwrap_or(ORIGIN_NONE),
        log_time: state.progress.log_time,
        rows,
        last,
        sessions: if read.page_no == 0 {
            state.sessions.values().cloned().collect()
        } else {
            Vec::new()
        },
    }
}
