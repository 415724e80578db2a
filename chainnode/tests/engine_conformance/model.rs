//! Any history of calls leaves an engine that reads like three plain maps.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_chainnode::engine::{
    Batch, EngineKind, Page, PageLimit, Progress, RowChange, ScanProgress, SessionRowChange,
    SharedEngine, SlotRow, StoredRow, StoredSession,
};
use catena_proto::config::KeyRange;
use catena_proto::ids::{LogTime, RequestNo, Seq, SessionId, ShardId, SlotNo};
use catena_proto::op::Outcome;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::folder::{has_disk, new_engine, progress, row, try_open};

/// The two shards' ranges meet here.
const BORDER: u8 = 0x80;

#[derive(Clone, Debug)]
enum Step {
    Apply {
        second: bool,
        keys: BTreeMap<Vec<u8>, bool>,
        sessions: Vec<SessionStep>,
        merge_back: Option<u64>,
        scan: bool,
    },
    Wipe {
        second: bool,
        scan: bool,
    },
    FlushAndReopen,
    Page {
        start: Vec<u8>,
        end: Option<Vec<u8>>,
        rows: usize,
        bytes: usize,
        reverse: bool,
    },
}

#[derive(Clone, Copy, Debug)]
enum SessionStep {
    Used(u64),
    Slot(u64, u16),
    Closed(u64),
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    // Prefixes of each other, and bytes at both ends of the order.
    let byte = prop_oneof![Just(0), Just(1), Just(BORDER - 1), Just(BORDER), Just(255)];
    proptest::collection::vec(byte, 1..4)
}

fn any_session() -> impl Strategy<Value = SessionStep> {
    let session = prop_oneof![Just(1_u64), Just(2), Just(255), Just(256), Just(u64::MAX)];
    let slot = prop_oneof![Just(0_u16), Just(1), Just(256), Just(u16::MAX)];
    (session, slot, 0..5_u8).prop_map(|(session, slot, which)| match which {
        0 | 1 => SessionStep::Used(session),
        2 | 3 => SessionStep::Slot(session, slot),
        _ => SessionStep::Closed(session),
    })
}

fn any_step() -> impl Strategy<Value = Step> {
    let keys = proptest::collection::btree_map(any_key(), any::<bool>(), 0..12);
    let sessions = proptest::collection::vec(any_session(), 0..6);
    let merge_back = proptest::option::of(0..6_u64);
    let apply = (any::<bool>(), keys, sessions, merge_back, any::<bool>()).prop_map(
        |(second, keys, sessions, merge_back, scan)| Step::Apply {
            second,
            keys,
            sessions,
            merge_back,
            scan,
        },
    );
    let wipe =
        (any::<bool>(), any::<bool>()).prop_map(|(second, scan)| Step::Wipe { second, scan });
    let page = (
        any_key(),
        proptest::option::of(any_key()),
        0..9_usize,
        0..400_usize,
        any::<bool>(),
    );
    let page = page.prop_map(|(start, end, rows, bytes, reverse)| Step::Page {
        start,
        end,
        rows,
        bytes,
        reverse,
    });
    prop_oneof![12 => apply, 1 => wipe, 1 => Just(Step::FlushAndReopen), 8 => page]
}

#[derive(Default)]
struct Model {
    rows: BTreeMap<Bytes, StoredRow>,
    progress: BTreeMap<ShardId, Progress>,
    sessions: BTreeMap<(ShardId, SessionId), StoredSession>,
    seq: u64,
}

impl Model {
    fn session(&mut self, shard: ShardId, session: u64) -> &mut StoredSession {
        let session = SessionId::new(session);
        let new = StoredSession {
            session,
            used: LogTime::ZERO,
            slots: Vec::new(),
        };
        self.sessions.entry((shard, session)).or_insert(new)
    }

    fn change(&mut self, change: &RowChange, merge: bool) {
        let stands = |row: &StoredRow| merge && row.version >= change.seq;
        if self.rows.get(&change.key).is_some_and(stands) {
            return;
        }
        match &change.row {
            Some(row) => self.rows.insert(change.key.clone(), row.clone()),
            None => self.rows.remove(&change.key),
        };
    }

    /// Carries a session's step out, and gives the change that asks the engine for the same.
    fn session_step(&mut self, shard: ShardId, step: SessionStep) -> SessionRowChange {
        match step {
            SessionStep::Used(session) => {
                let used = LogTime::new(self.seq);
                self.session(shard, session).used = used;
                SessionRowChange::Used(SessionId::new(session), used)
            }
            SessionStep::Slot(session, slot) => {
                let row = SlotRow {
                    session: SessionId::new(session),
                    slot: SlotNo::new(slot),
                    no: RequestNo::new(self.seq),
                    seq: Seq::new(self.seq),
                    outcome: Outcome::Written {
                        version: Seq::new(self.seq),
                    },
                };
                let slots = &mut self.session(shard, session).slots;
                slots.retain(|old| old.slot != row.slot);
                slots.push(row);
                slots.sort_by_key(|row| row.slot);
                SessionRowChange::Slot(row)
            }
            SessionStep::Closed(session) => {
                self.sessions.remove(&(shard, SessionId::new(session)));
                SessionRowChange::Closed(SessionId::new(session))
            }
        }
    }

    fn page(&self, range: &KeyRange, limit: PageLimit, reverse: bool) -> Page {
        let inside = self.rows.iter().filter(|(key, _)| range.contains(key));
        let mut inside: Vec<_> = inside.map(|(k, r)| (k.clone(), r.clone())).collect();
        if reverse {
            inside.reverse();
        }
        let mut bytes = 0;
        let fits = inside.iter().enumerate().take_while(|(no, (key, row))| {
            bytes += key.len() + row.value.len();
            *no < limit.rows && (*no == 0 || bytes <= limit.bytes)
        });
        let count = fits.count();
        let more = count < inside.len();
        inside.truncate(count);
        Page { rows: inside, more }
    }
}

fn shard_of(second: bool) -> (ShardId, KeyRange) {
    let border = Bytes::from(vec![BORDER]);
    let (start, end) = if second {
        (border, None)
    } else {
        (Bytes::new(), Some(border))
    };
    (ShardId::new(1 + u64::from(second)), KeyRange { start, end })
}

fn progress_at(seq: u64, scan: bool) -> Progress {
    let mut progress = progress(seq);
    progress.scan = scan.then(|| ScanProgress {
        cursor: (seq.is_multiple_of(2)).then(|| Bytes::from(seq.to_string())),
        page_no: seq,
    });
    progress
}

/// The suite's centre: the same calls to the engine and to the model, and the same answers from both.
pub(crate) fn any_history_reads_like_the_model(kind: EngineKind) {
    let cases = if has_disk(kind) { 24 } else { 200 };
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(cases)
    };
    let histories = proptest::collection::vec(any_step(), 1..40);
    let mut runner = TestRunner::new(config);
    runner
        .run(&histories, |steps| history(kind, &steps))
        .expect("engine and model agree");
}

fn history(kind: EngineKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let (dir, mut engine) = new_engine(kind);
    let mut model = Model::default();
    for step in steps {
        model.seq += 1;
        match step {
            Step::Apply {
                second,
                keys,
                sessions,
                merge_back,
                scan,
            } => {
                let (shard, range) = shard_of(*second);
                // A merged row may be older than what is stored, or as old.
                let seq = model.seq.saturating_sub(merge_back.unwrap_or(0));
                let mut batch = Batch {
                    progress: progress_at(model.seq, *scan),
                    merge: merge_back.is_some(),
                    ..Batch::default()
                };
                for (key, kept) in keys.iter().filter(|(key, _)| range.contains(key)) {
                    let key = Bytes::from(key.clone());
                    let change = RowChange {
                        row: kept.then(|| row(&key, seq)),
                        key,
                        seq: Seq::new(seq),
                    };
                    model.change(&change, batch.merge);
                    batch.rows.push(change);
                }
                for step in sessions {
                    batch.sessions.push(model.session_step(shard, *step));
                }
                model.progress.insert(shard, batch.progress.clone());
                engine.apply(shard, batch).expect("a batch is applied");
            }
            Step::Wipe { second, scan } => {
                let (shard, range) = shard_of(*second);
                let left = if *scan {
                    progress_at(model.seq, true)
                } else {
                    Progress::default()
                };
                model.rows.retain(|key, _| !range.contains(key));
                model.sessions.retain(|(of, _), _| *of != shard);
                model.progress.insert(shard, left.clone());
                engine.wipe(shard, &range, left).expect("a wipe");
            }
            Step::FlushAndReopen => {
                engine.flush().expect("a flush");
                if has_disk(kind) {
                    drop(engine);
                    engine = try_open(kind, dir.path()).expect("it opens again");
                }
            }
            Step::Page {
                start,
                end,
                rows,
                bytes,
                reverse,
            } => {
                let range = crate::folder::range(start, end.as_deref());
                let limit = PageLimit {
                    rows: *rows,
                    bytes: *bytes,
                };
                let page = crate::folder::page_of(&*engine, &range, limit, *reverse);
                prop_assert_eq!(page, model.page(&range, limit, *reverse));
            }
        }
        reads_like(&engine, &model)?;
    }
    Ok(())
}

fn reads_like(engine: &SharedEngine, model: &Model) -> Result<(), TestCaseError> {
    let view = engine.view().expect("a view");
    for reverse in [false, true] {
        let all = view.page(&KeyRange::all(), crate::folder::EVERYTHING, reverse);
        let expected = model.page(&KeyRange::all(), crate::folder::EVERYTHING, reverse);
        prop_assert_eq!(all.expect("a page"), expected);
    }
    for shard in [ShardId::new(1), ShardId::new(2), ShardId::new(3)] {
        let progress = model.progress.get(&shard).cloned().unwrap_or_default();
        prop_assert_eq!(view.progress(shard).expect("progress"), progress);
        let sessions = model.sessions.iter().filter(|((of, _), _)| *of == shard);
        let sessions: Vec<StoredSession> = sessions.map(|(_, session)| session.clone()).collect();
        prop_assert_eq!(view.sessions(shard).expect("sessions"), sessions);
    }
    for key in model.rows.keys() {
        let expected = model.rows.get(key).cloned();
        prop_assert_eq!(&view.get(key).expect("a row"), &expected);
        prop_assert_eq!(&engine.get(key).expect("a row"), &expected);
        let absent = [&key[..], b"?"].concat();
        prop_assert_eq!(engine.get(&absent).expect("no row"), None);
    }
    Ok(())
}
