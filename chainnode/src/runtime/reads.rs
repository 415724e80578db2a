//! Linearizable and stale reads, on the caller's own task (DESIGN §3.3).

use std::collections::BTreeMap;
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
use crate::engine::{EngineError, Page, PageLimit, StoredRow};
use crate::replica::{KeyState, ReadRefusal, ReadView, Replica};

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
        shard: &Shard,
        key: &[u8],
        deadline: Mono,
    ) -> Result<Option<Row>, Refusal> {
        let (view, state) = {
            let replica = shard.replica.read();
            (replica.read_view(), replica.key_state(key))
        };
        self.metrics.reads.inc();
        self.admitted(shard, &view)?;
        match self.look(key, state)? {
            Look::Found(row) => {
                self.verified(shard, &view)?;
                Ok(row)
            }
            Look::Wait(seq) => self.get_after(shard, key, view, seq, deadline).await,
        }
    }

    /// A read that met the pending record `seq` under `view`: it is answered once that one is committed.
    ///
    /// What came in after the read did is not waited for, or a key that is written
    /// all the time could never be read: whatever was acknowledged before the
    /// read began is at or below `seq`.
    pub(crate) async fn get_after(
        &self,
        shard: &Shard,
        key: &[u8],
        mut view: ReadView,
        mut seq: Seq,
        deadline: Mono,
    ) -> Result<Option<Row>, Refusal> {
        loop {
            let committed = self.committed(shard, view, seq, deadline).await?;
            let state = {
                let replica = shard.replica.read();
                view = replica.read_view();
                if committed && view.commit >= seq {
                    committed_state(&replica, key)
                } else {
                    replica.key_state(key)
                }
            };
            self.admitted(shard, &view)?;
            match self.look(key, state)? {
                Look::Found(row) => {
                    self.verified(shard, &view)?;
                    return Ok(row);
                }
                Look::Wait(newer) => seq = newer,
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
        let (applied, state) = {
            let replica = shard.replica.read();
            (replica.commit(), committed_state(&replica, key))
        };
        let row = match self.look(key, state)? {
            Look::Found(row) => row,
            // Pending effects were left out.
            Look::Wait(_) => None,
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

    /// Waits until a position is committed: true; false if the epoch changed, or the log was cut, meanwhile.
    async fn committed(
        &self,
        shard: &Shard,
        view: ReadView,
        seq: Seq,
        deadline: Mono,
    ) -> Result<bool, Refusal> {
        // First the subscription, then the look: what moves in between is not missed.
        let mut moved = shard.moved.subscribe();
        loop {
            let (now_view, last) = {
                let replica = shard.replica.read();
                (replica.read_view(), replica.last())
            };
            if now_view.epoch != view.epoch || last < seq {
                return Ok(false);
            }
            if now_view.commit >= seq {
                return Ok(true);
            }
            let left = clock::until(deadline);
            if left.is_zero() || tokio::time::timeout(left, moved.changed()).await.is_err() {
                let why = format!("seq {seq} of shard {} was not committed in time", shard.id);
                return Err(Refusal::new(Reason::Deadline, why));
            }
        }
    }

    /// A page of a scan, all of one moment: overlay over engine, in key order.
    ///
    /// Like a read of one key, it waits for what was pending in its range when it came, and for nothing newer.
    pub(crate) async fn page(
        &self,
        shard: &Shard,
        range: &KeyRange,
        limit: PageLimit,
        reverse: bool,
        linearizable: bool,
        deadline: Mono,
    ) -> Result<ReadPage, Refusal> {
        self.metrics.reads.inc();
        let mut waited = !linearizable;
        loop {
            let (view, wait) = {
                let replica = shard.replica.read();
                let view = replica.read_view();
                if linearizable {
                    self.admitted(shard, &view)?;
                }
                match replica.range_wait(range).filter(|_| !waited) {
                    Some(seq) => (view, seq),
                    None => {
                        // Both of one moment: whatever the engine has beyond the overlay is in the overlay as well.
                        let overlay = replica.overlay_range(range);
                        let engine = self.engine.view().map_err(|e| engine_failed(&e))?;
                        drop(replica);
                        let page = engine.page(range, limit, reverse);
                        drop(engine);
                        let page = page.map_err(|e| engine_failed(&e))?;
                        if linearizable {
                            self.verified(shard, &view)?;
                        }
                        return Ok(merge(page, overlay, limit, reverse));
                    }
                }
            };
            waited = self.committed(shard, view, wait, deadline).await?;
        }
    }
}

/// Rows of a scan, in its order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReadPage {
    pub(crate) rows: Vec<(Bytes, Row)>,
    /// The last key that was looked at, if the range goes on behind it. It need not be a row's: rows may be gone.
    pub(crate) resume: Option<Bytes>,
}

/// What is committed of a key, whatever is pending.
fn committed_state(replica: &Replica, key: &[u8]) -> KeyState {
    let start = Bytes::copy_from_slice(key);
    let end = Some(key_after(&start));
    match replica.overlay_range(&KeyRange { start, end }).pop() {
        Some((_, value, version)) => KeyState::Committed { value, version },
        None => KeyState::InEngine,
    }
}

/// The overlay wins for its keys; of the rest of the range only what the engine's page covers is known.
fn merge(
    page: Page,
    overlay: Vec<(Bytes, Option<Bytes>, Seq)>,
    limit: PageLimit,
    reverse: bool,
) -> ReadPage {
    let covered = page
        .rows
        .last()
        .map(|(key, _)| key.clone())
        .filter(|_| page.more);
    let mut rows: BTreeMap<Bytes, Row> = page
        .rows
        .into_iter()
        .map(|(key, StoredRow { value, version, .. })| (key, Row { value, version }))
        .collect();
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
    let mut ordered: Vec<(Bytes, Row)> = rows.into_iter().collect();
    if reverse {
        ordered.reverse();
    }
    let mut bytes = 0;
    let fits = ordered.iter().enumerate().take_while(|(at, (key, row))| {
        bytes += key.len() + row.value.len();
        *at < limit.rows && (*at == 0 || bytes <= limit.bytes)
    });
    let count = fits.count();
    if count < ordered.len() {
        ordered.truncate(count);
        let resume = ordered.last().map(|(key, _)| key.clone());
        return ReadPage {
            rows: ordered,
            resume,
        };
    }
    ReadPage {
        rows: ordered,
        resume: covered,
    }
}

/// An engine that cannot read is a fault of this node: another member may answer.
pub(crate) fn engine_failed(why: &EngineError) -> Refusal {
    tracing::error!(%why, "the state cannot be read");
    Refusal::new(Reason::NotReady, format!("{why}; ask another member"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(keys: &[&'static str], more: bool) -> Page {
        let row = |key: &&'static str| {
            let row = StoredRow {
                value: Bytes::from_static(b"engine"),
                version: Seq::new(1),
                expires: None,
            };
            (Bytes::from_static(key.as_bytes()), row)
        };
        Page {
            rows: keys.iter().map(row).collect(),
            more,
        }
    }

    fn effect(key: &'static str, value: Option<&'static str>) -> (Bytes, Option<Bytes>, Seq) {
        (key.into(), value.map(Bytes::from), Seq::new(2))
    }

    fn keys(page: &ReadPage) -> Vec<&[u8]> {
        page.rows.iter().map(|(key, _)| &key[..]).collect()
    }

    const WIDE: PageLimit = PageLimit {
        rows: 100,
        bytes: 10_000,
    };

    #[test]
    fn a_page_whose_rows_are_all_deleted_says_where_the_scan_goes_on() {
        let gone = vec![effect("a", None), effect("b", None)];
        let merged = merge(page(&["a", "b"], true), gone.clone(), WIDE, false);
        assert_eq!((keys(&merged).len(), merged.resume), (0, Some("b".into())));
        let merged = merge(page(&["b", "a"], true), gone.clone(), WIDE, true);
        assert_eq!((keys(&merged).len(), merged.resume), (0, Some("a".into())));
        assert_eq!(
            merge(page(&["a", "b"], false), gone, WIDE, false).resume,
            None
        );
    }

    #[test]
    fn the_overlay_wins_inside_what_the_engines_page_covers_and_waits_beyond_it() {
        let overlay = vec![
            effect("a", Some("new")),
            effect("b", Some("new")),
            effect("z", Some("new")),
        ];
        let merged = merge(page(&["b", "c"], true), overlay.clone(), WIDE, false);
        assert_eq!(keys(&merged), [b"a", b"b", b"c"]);
        assert_eq!(merged.rows[1].1.version, Seq::new(2));
        assert_eq!(merged.resume, Some("c".into()));
        let merged = merge(page(&["b", "c"], false), overlay, WIDE, false);
        assert_eq!(keys(&merged), [b"a", b"b", b"c", b"z"]);
    }

    #[test]
    fn a_page_that_the_overlay_makes_too_long_ends_at_its_last_row() {
        let overlay = vec![effect("a", Some("new"))];
        let limit = PageLimit { rows: 2, ..WIDE };
        let merged = merge(page(&["b", "c"], false), overlay, limit, false);
        assert_eq!(
            (keys(&merged), merged.resume.clone()),
            (vec![&b"a"[..], b"b"], Some("b".into()))
        );
    }
}
