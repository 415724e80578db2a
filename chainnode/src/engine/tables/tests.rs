//! What only shows beneath an engine's public face: damaged bytes, foreign formats, wipes that a crash cut short.
//!
//! Each test runs on every store, with the same bytes written past the rules.

use std::path::Path;

use catena_proto::ids::Seq;

use super::super::fjall::FjallStore;
use super::super::memory::MemoryStore;
use super::super::sled::SledStore;
use super::super::store::Change;
use super::super::{EngineOptions, SlotRow};
use super::*;

const SHARD: ShardId = ShardId::new(1);
const EVERYTHING: PageLimit = PageLimit {
    rows: usize::MAX,
    bytes: usize::MAX,
};

/// Runs a test on each store.
fn on_each(test: impl Fn(Box<dyn AnyTables>)) {
    let dir = |name: &str| {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(name);
        (dir, path)
    };
    let options = EngineOptions::default();
    let (_fjall_dir, path) = dir("fjall");
    test(Box::new(opened(fjall_at(&path, options))));
    let (_sled_dir, path) = dir("sled");
    test(Box::new(opened(
        SledStore::open(&path, options).expect("a store"),
    )));
    test(Box::new(opened(MemoryStore::default())));
}

fn fjall_at(path: &Path, options: EngineOptions) -> FjallStore {
    FjallStore::open(path, options).expect("a store")
}

fn opened<S: Store>(store: S) -> Tables<S> {
    Tables::open(store).expect("a new store opens")
}

/// An engine whose store can be written past the rules, and that can be opened anew without losing it.
trait AnyTables: Engine {
    fn raw(&self, space: Space, key: &[u8]) -> Bytes;
    fn put_raw(&self, space: Space, key: &[u8], value: Option<&[u8]>);
    fn reopened(self: Box<Self>) -> Result<Box<dyn AnyTables>, EngineError>;
}

impl<S: Store + 'static> AnyTables for Tables<S> {
    fn raw(&self, space: Space, key: &[u8]) -> Bytes {
        let found = self.store.get(space, key).expect("the store reads");
        found.expect("the key is there")
    }

    fn put_raw(&self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let change = Change {
            space,
            key: Bytes::copy_from_slice(key),
            value: value.map(Bytes::copy_from_slice),
        };
        self.store.commit(vec![change]).expect("the store writes");
    }

    fn reopened(self: Box<Self>) -> Result<Box<dyn AnyTables>, EngineError> {
        Ok(Box::new(Self::open(self.store)?))
    }
}

fn put(key: &'static str, seq: u64) -> RowChange {
    RowChange {
        key: Bytes::from_static(key.as_bytes()),
        row: Some(StoredRow {
            value: Bytes::from_static(b"value"),
            version: Seq::new(seq),
            expires: None,
        }),
        seq: Seq::new(seq),
    }
}

fn progress(seq: u64) -> Progress {
    Progress {
        applied: Seq::new(seq),
        ..Progress::default()
    }
}

fn batch(rows: Vec<RowChange>, seq: u64) -> Batch {
    Batch {
        rows,
        progress: progress(seq),
        ..Batch::default()
    }
}

fn flip_a_bit(engine: &dyn AnyTables, space: Space, key: &[u8]) {
    let mut bytes = engine.raw(space, key).to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 4;
    engine.put_raw(space, key, Some(&bytes));
}

fn is_damaged<T: std::fmt::Debug>(found: Result<T, EngineError>, names: &str) {
    match found {
        Err(EngineError::Damaged { key }) => assert!(key.contains(names), "{key}"),
        other => panic!("not found to be damaged: {other:?}"),
    }
}

#[test]
fn a_flipped_bit_in_a_row_is_an_error_on_every_way_to_it_and_can_be_wiped() {
    on_each(|engine| {
        let rows = vec![put("a", 1), put("b", 1), put("c", 1)];
        engine.apply(SHARD, batch(rows, 1)).expect("a batch");
        flip_a_bit(&*engine, Space::Rows, b"b");

        is_damaged(engine.get(b"b"), "\"b\"");
        let merge = Batch {
            merge: true,
            ..batch(vec![put("b", 9)], 9)
        };
        is_damaged(engine.apply(SHARD, merge), "\"b\"");
        let view = engine.view().expect("a view");
        is_damaged(view.get(b"b"), "\"b\"");
        for reverse in [false, true] {
            is_damaged(view.page(&KeyRange::all(), EVERYTHING, reverse), "\"b\"");
        }
        assert!(view.get(b"a").expect("a row").is_some());
        assert_eq!(view.progress(SHARD).expect("progress"), progress(1));
        drop(view);

        let all = KeyRange::all();
        engine
            .wipe(SHARD, &all, progress(5))
            .expect("damage is wiped");
        let view = engine.view().expect("a view");
        assert_eq!(
            view.page(&all, EVERYTHING, false).expect("a page"),
            Page::default()
        );
        assert_eq!(view.progress(SHARD).expect("progress"), progress(5));
    });
}

#[test]
fn a_flipped_bit_in_the_second_space_names_what_it_hit() {
    on_each(|engine| {
        let session = SessionId::new(7);
        let slot = SlotRow {
            session,
            slot: catena_proto::ids::SlotNo::new(2),
            no: catena_proto::ids::RequestNo::new(1),
            seq: Seq::new(1),
            outcome: catena_proto::op::Outcome::NotANumber,
        };
        let sessions = vec![
            SessionRowChange::Used(session, LogTime::new(1)),
            SessionRowChange::Slot(slot),
        ];
        let batch = Batch {
            sessions,
            ..batch(Vec::new(), 1)
        };
        let whole = || engine.apply(SHARD, batch.clone()).expect("a batch");
        for (key, names) in [
            (MetaKey::Session(SHARD, session), "session 7 of shard 1"),
            (
                MetaKey::Slot(SHARD, session, slot.slot),
                "slot 2 of session 7 of shard 1",
            ),
        ] {
            whole();
            flip_a_bit(&*engine, Space::Meta, &key.encode());
            is_damaged(engine.view().expect("a view").sessions(SHARD), names);
        }
        whole();
        flip_a_bit(&*engine, Space::Meta, &MetaKey::Progress(SHARD).encode());
        is_damaged(
            engine.view().expect("a view").progress(SHARD),
            "the progress of shard 1",
        );
        whole();
        assert_eq!(
            engine
                .view()
                .expect("a view")
                .sessions(SHARD)
                .expect("sessions")
                .len(),
            1
        );
    });
}

#[test]
fn a_wipe_that_a_crash_cut_short_is_finished_when_the_engine_opens() {
    on_each(|engine| {
        let session = SessionRowChange::Used(SessionId::new(7), LogTime::new(1));
        let mut first = batch(vec![put("b", 1), put("c", 1), put("d", 1)], 1);
        first.sessions.push(session.clone());
        engine.apply(SHARD, first).expect("a batch");
        let mut second = batch(vec![put("a", 1), put("x", 1)], 1);
        second.sessions.push(session);
        let other = ShardId::new(2);
        engine.apply(other, second).expect("a batch");

        // What the first step of a wipe leaves behind.
        let range = KeyRange {
            start: Bytes::from_static(b"b"),
            end: Some(Bytes::from_static(b"x")),
        };
        let key = MetaKey::Wipe(SHARD).encode();
        let mut note = bytes::BytesMut::new();
        meta::put_entry(&mut note, &key, &meta::encode_wipe(&range));
        engine.put_raw(Space::Meta, &key, Some(&note));
        engine.put_raw(Space::Rows, b"b", None);

        let engine = engine.reopened().expect("it opens");
        let view = engine.view().expect("a view");
        let page = view
            .page(&KeyRange::all(), EVERYTHING, false)
            .expect("a page");
        let keys: Vec<_> = page.rows.iter().map(|(key, _)| &key[..]).collect();
        assert_eq!(keys, [b"a", b"x"]);
        assert_eq!(view.sessions(SHARD).expect("sessions"), []);
        assert_eq!(view.sessions(other).expect("sessions").len(), 1);
        drop(view);

        engine
            .apply(SHARD, batch(vec![put("c", 2)], 2))
            .expect("a batch");
        let engine = engine.reopened().expect("it opens");
        assert!(
            engine.get(b"c").expect("a row").is_some(),
            "the wipe happened once"
        );
    });
}

#[test]
fn another_format_is_refused_and_left_alone() {
    on_each(|engine| {
        let key = MetaKey::Format.encode();
        let mut entry = bytes::BytesMut::new();
        meta::put_entry(&mut entry, &key, &7_u32.to_le_bytes());
        engine.put_raw(Space::Meta, &key, Some(&entry));
        let name = engine.name();
        let error = engine.reopened().err().expect("it is refused");
        assert!(
            matches!(&error, EngineError::Format { engine, found: 7, known: 1 } if *engine == name),
            "{error}"
        );
    });
}

#[test]
fn a_folder_with_rows_and_no_format_is_not_ours() {
    on_each(|engine| {
        engine.put_raw(Space::Meta, &MetaKey::Format.encode(), None);
        engine.put_raw(Space::Rows, b"a", Some(b"?"));
        let error = engine.reopened().err().expect("it is refused");
        assert!(
            matches!(error, EngineError::Format { found: 0, .. }),
            "{error}"
        );
    });
}

#[test]
fn a_key_that_no_store_takes_is_an_error_and_no_panic() {
    on_each(|engine| {
        let long = "k".repeat(70_000);
        for key in ["", &long] {
            let mut change = put("a", 1);
            change.key = Bytes::copy_from_slice(key.as_bytes());
            let refused = engine.apply(SHARD, batch(vec![change], 1));
            assert!(matches!(
                refused,
                Err(EngineError::Failed { what: "write", .. })
            ));
        }
        let view = engine.view().expect("a view");
        assert_eq!(view.progress(SHARD).expect("progress"), Progress::default());
    });
}
