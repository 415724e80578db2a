//! Linearizable and stale reads, on the caller's own task (DESIGN §3.3).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::call::Freshness;
use catena_proto::config::KeyRange;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::Seq;
use catena_proto::op::Row;
use catena_proto::time::Mono;

use super::clock;
use super::pages::key_after;
use super::shared::{Shard, Shared};
use crate::engine::{EngineError, PageLimit};
use crate::replica::{KeyState, ReadRefusal, ReadView};

/// What a first look at a key finds.
pub(crate) enum Look {
    /// The answer, under the view that admitted it.
    Found(Option<Row>),
    /// Something newer is pending: wait until this position is committed.
    Wait(Seq),
}

impl Shared {
    /// A linearizable read of one key, waiting for what is pending if need be.
    pub(crate) async fn get(
        &self,
        shard: &Arc<Shard>,
        key: &[u8],
        deadline: Mono,
    ) -> Result<Option<Row>, Refusal> {
        loop {
            let (view, state) = {
                let replica = shard.replica.read();
                (replica.read_view(), replica.key_state(key))
            };
            self.admitted(shard, &view)?;
            match self.look(key, state)? {
                Look::Found(row) => {
                    self.verified(shard, &view)?;
                    self.metrics.reads.inc();
                    return Ok(row);
                }
                Look::Wait(seq) => self.committed(shard, view, seq, deadline).await?,
            }
        }
    }

    /// What the overlay or the engine says.
    pub(crate) fn look(&self, key: &[u8], state: KeyState) -> Result<Look, Refusal> {
        Ok(match state {
            KeyState::WaitFor(seq) => Look::Wait(seq),
            KeyState::Committed { value, version } => {
                Look::Found(value.map(|value| Row { value, version }))
            }
            KeyState::InEngine => {
                let row = self.engine.get(key).map_err(|e| engine_failed(&e))?;
                Look::Found(row.map(|r| Row {
                    value: r.value,
                    version: r.version,
                }))
            }
        })
    }

    /// A read without lease or wait: the newest committed effect that this replica has.
    pub(crate) fn get_stale(
        &self,
        shard: &Shard,
        key: &[u8],
    ) -> Result<(Option<Row>, Freshness), Refusal> {
        let (applied, found) = {
            let replica = shard.replica.read();
            let range = KeyRange {
                start: Bytes::copy_from_slice(key),
                end: Some(key_after(&Bytes::copy_from_slice(key))),
            };
            (replica.commit(), replica.overlay_range(&range).pop())
        };
        let row = match found {
            Some((_, value, version)) => value.map(|value| Row { value, version }),
            None => {
                let row = self.engine.get(key).map_err(|e| engine_failed(&e))?;
                row.map(|r| Row {
                    value: r.value,
                    version: r.version,
                })
            }
        };
        self.metrics.reads.inc();
        Ok((
            row,
            Freshness {
                applied,
                lag_ms: self.lag_ms(shard),
            },
        ))
    }

    /// How long ago the replica last knew that it was up to date: the age of its lease.
    pub(crate) fn lag_ms(&self, shard: &Shard) -> u64 {
        let view = shard.replica.read().read_view();
        let now = clock::now();
        if view.admit(now).is_ok() {
            return 0;
        }
        let since = if view.lease_until == Mono::ZERO {
            self.started
        } else {
            view.lease_until
        };
        u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn admitted(&self, shard: &Shard, view: &ReadView) -> Result<(), Refusal> {
        view.admit(clock::now())
            .map_err(|why| self.unreadable(shard, why))
    }

    /// R2: checked after the state was read, with a fresh view and a fresh clock.
    pub(crate) fn verified(&self, shard: &Shard, view: &ReadView) -> Result<(), Refusal> {
        let after = shard.replica.read().read_view();
        view.verify(&after, clock::now())
            .map_err(|why| self.unreadable(shard, why))
    }

    fn unreadable(&self, shard: &Shard, why: ReadRefusal) -> Refusal {
        let said = Refusal::new(
            Reason::NotReady,
            format!("shard {}: {why}; ask another member", shard.id),
        );
        self.metrics.refused(Reason::NotReady.as_str());
        self.routed(shard.id, said)
            .retry_after(Duration::from_millis(20))
    }

    /// Waits until a position is committed, or the epoch changes, or the deadline passes.
    async fn committed(
        &self,
        shard: &Shard,
        view: ReadView,
        seq: Seq,
        deadline: Mono,
    ) -> Result<(), Refusal> {
        let mut moved = shard.moved.subscribe();
        loop {
            let now_view = shard.replica.read().read_view();
            if now_view.commit >= seq || now_view.epoch != view.epoch {
                return Ok(());
            }
            let left = clock::until(deadline);
            if left.is_zero() || tokio::time::timeout(left, moved.changed()).await.is_err() {
                let why = format!("seq {seq} of shard {} was not committed in time", shard.id);
                return Err(Refusal::new(Reason::Deadline, why));
            }
        }
    }

    /// A page of a scan, all of one moment: overlay over engine, in key order; with the key to go on after, if there is more.
    pub(crate) async fn page(
        &self,
        shard: &Arc<Shard>,
        range: &KeyRange,
        limit: PageLimit,
        reverse: bool,
        linearizable: bool,
        deadline: Mono,
    ) -> Result<(Vec<(Bytes, Row)>, Option<Bytes>), Refusal> {
        loop {
            // The engine's view is taken under the lock: whatever it has beyond the overlay is in the overlay as well.
            let (view, wait, page, overlay) = {
                let replica = shard.replica.read();
                let view = replica.read_view();
                if linearizable {
                    view.admit(clock::now())
                        .map_err(|why| self.unreadable(shard, why))?;
                }
                match replica.range_wait(range).filter(|_| linearizable) {
                    Some(seq) => (view, Some(seq), None, Vec::new()),
                    None => {
                        let overlay = replica.overlay_range(range);
                        let engine = self.engine.view().map_err(|e| engine_failed(&e))?;
                        drop(replica);
                        // Rows that the overlay deletes or replaces must not shorten the page.
                        let rows = limit.rows.saturating_add(overlay.len());
                        let wide = PageLimit {
                            rows,
                            bytes: limit.bytes,
                        };
                        let page = engine
                            .page(range, wide, reverse)
                            .map_err(|e| engine_failed(&e))?;
                        (view, None, Some(page), overlay)
                    }
                }
            };
            if let Some(seq) = wait {
                self.committed(shard, view, seq, deadline).await?;
                continue;
            }
            let page = page.unwrap_or_default();
            if linearizable {
                self.verified(shard, &view)?;
            }
            self.metrics.reads.inc();
            return Ok(merge(page, overlay, limit, reverse));
        }
    }
}

/// The overlay wins for its keys; of the rest of the range only what the engine's page covers is known.
fn merge(
    page: crate::engine::Page,
    overlay: Vec<(Bytes, Option<Bytes>, Seq)>,
    limit: PageLimit,
    reverse: bool,
) -> (Vec<(Bytes, Row)>, Option<Bytes>) {
    let covered = page
        .rows
        .last()
        .map(|(key, _)| key.clone())
        .filter(|_| page.more);
    let mut rows: std::collections::BTreeMap<Bytes, Row> = page
        .rows
        .into_iter()
        .map(|(key, r)| {
            (
                key,
                Row {
                    value: r.value,
                    version: r.version,
                },
            )
        })
        .collect();
    // The page may hold nothing but rows that the overlay deletes: the scan still goes on behind it.
    let mut go_on = covered.clone();
    for (key, value, version) in overlay {
        let beyond = covered
            .as_ref()
            .is_some_and(|last| if reverse { key < *last } else { key > *last });
        if beyond {
            continue;
        }
        match value {
            Some(value) => rows.insert(key, Row { value, version }),
            None => rows.remove(&key),
        };
    }
    let ordered: Vec<(Bytes, Row)> = if reverse {
        rows.into_iter().rev().collect()
    } else {
        rows.into_iter().collect()
    };
    let mut bytes = 0;
    let mut kept = Vec::new();
    for (key, row) in ordered {
        let weight = key.len() + row.value.len();
        if kept.len() == limit.rows || (!kept.is_empty() && bytes + weight > limit.bytes) {
            go_on = kept.last().map(|(key, _): &(Bytes, Row)| key.clone());
            break;
        }
        bytes += weight;
        kept.push((key, row));
    }
    (kept, go_on)
}

/// An engine that cannot read is a fault of this node: another member may answer.
pub(crate) fn engine_failed(why: &EngineError) -> Refusal {
    tracing::error!(%why, "the state cannot be read");
    Refusal::new(Reason::NotReady, format!("{why}; ask another member"))
}
