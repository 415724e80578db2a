//! What a reader sees while a writer writes.

use std::thread;

use catena_chainnode::engine::{EngineKind, View};
use catena_proto::config::KeyRange;
use catena_proto::ids::Seq;

use crate::folder::{EVERYTHING, SHARD, batch, delete, key, new_engine, progress, put};

const KEYS: u64 = 64;

/// A view shows its moment to the end, also while (fjall, memory) or before (sled) the writer goes on.
pub(crate) fn a_view_stays_as_it_was(kind: EngineKind) {
    let (_dir, engine) = new_engine(kind);
    let rows = (0..KEYS).map(|no| put(&key(no), 1)).collect();
    engine.apply(SHARD, batch(rows, 1)).expect("a batch");

    let view = engine.view().expect("a view");
    let all = |view: &dyn View| {
        view.page(&KeyRange::all(), EVERYTHING, false)
            .expect("a page")
    };
    let frozen = all(&*view);
    assert_eq!(frozen.rows.len() as u64, KEYS);
    let waits = kind == EngineKind::Sled;
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for seq in 2..300 {
                let gone = (0..KEYS).filter(|no| no % 5 == seq % 5);
                let mut rows: Vec<_> = gone.map(|no| delete(&key(no), seq)).collect();
                rows.extend(
                    (0..KEYS)
                        .filter(|no| no % 5 != seq % 5)
                        .map(|no| put(&key(no), seq)),
                );
                rows.push(put(&key(1000 + seq), seq));
                engine.apply(SHARD, batch(rows, seq)).expect("a batch");
            }
        });
        while !waits && !writer.is_finished() {
            assert_eq!(all(&*view), frozen);
        }
        for _ in 0..20 {
            assert_eq!(all(&*view), frozen);
            assert_eq!(view.progress(SHARD).expect("progress"), progress(1));
            assert_eq!(
                view.get(&key(7)).expect("a row").map(|row| row.version),
                Some(Seq::new(1))
            );
            assert_eq!(view.get(&key(1002)).expect("no row"), None);
        }
        drop(view);
        writer
            .join()
            .expect("the writer finishes once the view is gone");
    });
    let view = engine.view().expect("a view");
    assert_eq!(view.progress(SHARD).expect("progress"), progress(299));
}

/// Every batch writes all keys and the progress with one `seq`; no view ever shows two.
///
/// Large batches and many short views: an engine whose views are torn only
/// while it writes a table out (fjall's own snapshots) has to be met in that moment.
pub(crate) fn rows_and_progress_are_of_one_moment(kind: EngineKind) {
    const LAST: u64 = 1500;
    const WIDE: u64 = 256;
    let (_dir, engine) = new_engine(kind);
    thread::scope(|scope| {
        scope.spawn(|| {
            for seq in 1..=LAST {
                let rows = (0..WIDE).map(|no| put(&key(no), seq)).collect();
                engine.apply(SHARD, batch(rows, seq)).expect("a batch");
            }
        });
        let mut seen = Seq::ZERO;
        for round in 0_u64.. {
            let view = engine.view().expect("a view");
            let applied = view.progress(SHARD).expect("progress").applied;
            assert!(applied >= seen, "time goes forward");
            seen = applied;
            for no in [0, WIDE / 2, WIDE - 1] {
                let version = view.get(&key(no)).expect("a row").map(|row| row.version);
                assert_eq!(version.unwrap_or_default(), applied);
            }
            if round % 64 == 0 {
                let page = view.page(&KeyRange::all(), EVERYTHING, round % 128 == 0);
                let page = page.expect("a page");
                let expected = if applied == Seq::ZERO { 0 } else { WIDE };
                assert_eq!(page.rows.len() as u64, expected);
                assert!(page.rows.iter().all(|(_, row)| row.version == applied));
            }
            drop(view);
            // The fast path runs ahead of views, never behind them.
            let newest = engine.get(&key(0)).expect("a row");
            assert!(newest.map_or(Seq::ZERO, |row| row.version) >= applied);
            if applied == Seq::new(LAST) {
                break;
            }
        }
    });
}
