//! Limits, directions and odd ranges, each by itself.

use catena_chainnode::engine::{EngineKind, PageLimit, Progress};
use catena_proto::config::KeyRange;
use catena_proto::ids::ShardId;

use crate::folder::{EVERYTHING, SHARD, batch, key, new_engine, page_of, put, range, row};

/// A page ends at its rows or its bytes, whichever comes first; one long first row still makes progress.
pub(crate) fn limits_cut_pages_and_say_so(kind: EngineKind) {
    let (_dir, engine) = new_engine(kind);
    let rows = (0..10).map(|no| put(&key(no), 5)).collect();
    engine.apply(SHARD, batch(rows, 5)).expect("a batch");
    let one = key(0).len() + row(&key(0), 5).value.len();
    for reverse in [false, true] {
        let page = |rows, bytes| {
            let page = page_of(
                &*engine,
                &KeyRange::all(),
                PageLimit { rows, bytes },
                reverse,
            );
            (page.rows.len(), page.more)
        };
        assert_eq!(page(10, usize::MAX), (10, false));
        assert_eq!(page(9, usize::MAX), (9, true));
        assert_eq!(page(0, usize::MAX), (0, true));
        assert_eq!(page(10, 3 * one), (3, true));
        assert_eq!(page(10, 3 * one - 1), (2, true));
        assert_eq!(page(10, 0), (1, true));
        assert_eq!(page(10, 10 * one), (10, false));
    }
    let first = page_of(&*engine, &KeyRange::all(), EVERYTHING, true)
        .rows
        .swap_remove(0);
    assert_eq!(first, (key(9), row(&key(9), 5)));
}

/// Ranges that hold nothing, or whose bounds stand in the wrong order, are empty pages and no panic.
pub(crate) fn odd_ranges_are_empty(kind: EngineKind) {
    let (_dir, engine) = new_engine(kind);
    engine
        .apply(SHARD, batch(vec![put(&key(5), 1)], 1))
        .expect("a batch");
    for reverse in [false, true] {
        for (start, end) in [
            (&b"z"[..], None),
            (b"a", Some(&b"b"[..])),
            (b"z", Some(b"a")),
            (b"key-000005", Some(b"key-000005")),
            (b"", Some(b"")),
            (b"key-000005\0", None),
        ] {
            let page = page_of(&*engine, &range(start, end), EVERYTHING, reverse);
            assert!(page.rows.is_empty() && !page.more, "{start:?}..{end:?}");
        }
        let exact = range(b"key-000005", Some(b"key-000005\0"));
        assert_eq!(page_of(&*engine, &exact, EVERYTHING, reverse).rows.len(), 1);
    }
    assert_eq!(engine.get(b"").expect("no row"), None);
}

/// A wipe of more rows than one of its steps takes leaves the progress it was given, and every other shard.
pub(crate) fn a_long_range_is_wiped_and_its_neighbours_stay(kind: EngineKind) {
    let (_dir, engine) = new_engine(kind);
    let rows = (0..5000).map(|no| put(&key(no), 1)).collect();
    engine.apply(SHARD, batch(rows, 1)).expect("a batch");
    let neighbours = vec![put(&key(9000), 1), put(&b"a".as_slice().into(), 1)];
    let other = ShardId::new(2);
    engine.apply(other, batch(neighbours, 4)).expect("a batch");

    let wiped = range(&key(0), Some(&key(9000)));
    engine
        .wipe(SHARD, &wiped, Progress::default())
        .expect("a wipe");

    let view = engine.view().expect("a view");
    let left = view
        .page(&KeyRange::all(), EVERYTHING, false)
        .expect("a page");
    let left: Vec<_> = left.rows.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [b"a".as_slice().into(), key(9000)]);
    assert_eq!(view.progress(SHARD).expect("progress"), Progress::default());
    assert_eq!(
        view.progress(other).expect("progress"),
        crate::folder::progress(4)
    );
}
