//! Holes that a second reader found in the log, each with the smallest history that shows it.
#![allow(missing_docs, reason = "a test")]

use bytes::Bytes;
use catena_proto::ids::{Epoch, Incarnation, LogGeneration, Origin, Seq, ShardId};
use catena_wal::{Entry, Log, LogError, LogOptions, SimDisk};

const SEGMENT: u32 = 8 << 10;
const OPTIONS: LogOptions = LogOptions {
    log_id: 7,
    segment_bytes: SEGMENT,
    retained_bytes: 2 * SEGMENT as u64,
};
const A: ShardId = ShardId::new(1);
const B: ShardId = ShardId::new(2);
fn o() -> Origin {
    Origin {
        epoch: Epoch::new(1),
        incarnation: Incarnation::new(1),
    }
}
fn g(shard: ShardId, first: u64, last: u64, len: usize) -> Entry {
    Entry::Group {
        shard,
        origin: o(),
        first: Seq::new(first),
        last: Seq::new(last),
        records: Bytes::from(vec![first as u8; len]),
    }
}
#[test]
fn meta_lost_after_cut() {
    let (mut log, _) = Log::open(SimDisk::default(), OPTIONS).unwrap();
    log.append(&[
        Entry::Meta {
            shard: B,
            blob: Bytes::from_static(b"m"),
        },
        g(B, 1, 1, 10),
    ])
    .unwrap();
    for i in 1..=20 {
        log.append(&[g(A, i, i, 900)]).unwrap();
    }
    log.append(&[Entry::Cut {
        shard: B,
        after: Seq::new(1),
        generation: LogGeneration::new(1),
    }])
    .unwrap();
    for i in 21..=30 {
        log.append(&[g(A, i, i, 900)]).unwrap();
    }
    log.sync().unwrap();
    log.trim(|s| if s == A { Seq::new(30) } else { Seq::new(1) })
        .unwrap();
    let (_, r) = Log::open(log.into_disk(), OPTIONS).unwrap();
    assert_eq!(r.shards[&B].meta.as_deref(), Some(&b"m"[..]));
}
#[test]
fn cold_trimmed_keeps_end() {
    let (mut log, _) = Log::open(SimDisk::default(), OPTIONS).unwrap();
    log.append(&[
        Entry::Meta {
            shard: B,
            blob: Bytes::from_static(b"m"),
        },
        g(B, 1, 5, 10),
    ])
    .unwrap();
    for i in 1..=30 {
        log.append(&[g(A, i, i, 900)]).unwrap();
    }
    log.sync().unwrap();
    log.trim(|_| Seq::new(30)).unwrap();
    let (_, r) = Log::open(log.into_disk(), OPTIONS).unwrap();
    assert_eq!(r.shards[&B].end, Seq::new(5));
}
#[test]
fn last_header_flip() {
    let (mut log, _) = Log::open(SimDisk::default(), OPTIONS).unwrap();
    for i in 1..=10 {
        log.append(&[g(A, i, i, 900)]).unwrap();
        log.sync().unwrap();
    }
    let mut d = log.into_disk();
    d.flip("segment-0000000002", 3, 1);
    let (_, r) = Log::open(d, OPTIONS).unwrap();
    assert!(
        r.shards[&A].end == Seq::new(10) || r.shards[&A].damage.is_some(),
        "{r:?}"
    );
}
#[test]
fn lost_cut() {
    let (mut log, _) = Log::open(SimDisk::default(), OPTIONS).unwrap();
    log.append(&[g(A, 1, 10, 100)]).unwrap();
    log.sync().unwrap();
    log.append(&[
        Entry::Cut {
            shard: A,
            after: Seq::new(5),
            generation: LogGeneration::new(1),
        },
        g(A, 6, 10, 100),
    ])
    .unwrap();
    log.sync().unwrap();
    log.append(&[
        g(A, 11, 11, 100),
        Entry::Meta {
            shard: A,
            blob: Bytes::new(),
        },
    ])
    .unwrap();
    log.sync().unwrap();
    let mut d = log.into_disk();
    d.flip("segment-0000000001", 64 + 192 + 30, 1);
    d.flip("segment-0000000001", 64 + 192 + 88 + 30, 1);
    let (_, r) = Log::open(d, OPTIONS).unwrap();
    assert!(r.shards[&A].damage.is_some(), "{r:?}");
}
#[test]
fn wide_append_on_full() {
    let mut d = SimDisk::default();
    d.set_capacity(Some(2 * u64::from(SEGMENT)));
    let (mut log, _) = Log::open(d, OPTIONS).unwrap();
    let many: Vec<_> = (1..=30).map(|i| g(A, i, i, 900)).collect();
    let e = log.append(&many).unwrap_err();
    assert!(matches!(e, LogError::Full { .. }), "{e}");
}
#[test]
fn trimmed_then_cut_below() {
    let (mut log, _) = Log::open(SimDisk::default(), OPTIONS).unwrap();
    for i in 1..=9 {
        log.append(&[g(A, i, i, 900)]).unwrap();
    }
    log.append(&[Entry::Cut {
        shard: A,
        after: Seq::new(6),
        generation: LogGeneration::new(1),
    }])
    .unwrap();
    for i in 7..=30 {
        log.append(&[g(A, i, i, 900)]).unwrap();
    }
    log.sync().unwrap();
    log.trim(|_| Seq::new(7)).unwrap();
    let (_, r) = Log::open(log.into_disk(), OPTIONS).unwrap();
    assert!(r.shards[&A].damage.is_none(), "{r:?}");
}
