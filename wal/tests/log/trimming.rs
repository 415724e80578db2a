//! What may go, and what must not go with it.

use catena_proto::ids::{LogGeneration, Seq, ShardId};
use catena_wal::{Log, ReadError, SimDisk};

use crate::kit::{A, B, cut, group, meta, open, put, read, segments};

/// Fills segments with records of A, which need not be kept.
fn age(log: &mut Log<SimDisk>) {
    let from = log.range(A).map_or(0, |(_, end)| end.get());
    for i in from + 1..=from + 60 {
        put(log, &[group(A, i, i, 1, 900)]);
    }
}

fn trim(log: &mut Log<SimDisk>, floor_of_b: u64) -> Vec<(ShardId, Seq)> {
    let all = Seq::new(u64::MAX);
    log.trim(|shard| {
        if shard == A {
            all
        } else {
            Seq::new(floor_of_b)
        }
    })
    .expect("trimmed")
}

#[test]
fn trimming_keeps_what_is_above_the_floor_and_copies_a_cold_shard_forward() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[meta(B, "cold"), group(B, 1, 1, 9, 10)]);
    age(&mut log);
    let before = log.usage().total_bytes;
    // A hot shard that still needs its records holds everything.
    assert_eq!(log.trim(|_| Seq::ZERO).expect("trimmed"), []);
    assert_eq!(log.usage().pinned_by, Some(A));
    let moved = log
        .trim(|shard| if shard == A { Seq::new(55) } else { Seq::ZERO })
        .expect("trimmed");
    assert!(log.usage().total_bytes < before);
    assert!(
        moved
            .iter()
            .any(|(s, start)| *s == A && *start <= Seq::new(55))
    );
    for _ in 0..2 {
        let (start, end) = log.range(A).expect("there");
        assert!(start <= Seq::new(55) && end == Seq::new(60));
        assert_eq!(read(&log, B), [(1, 1, 9)]);
        let gone = log.read(A, Seq::ZERO, 1);
        assert!(matches!(gone, Err(ReadError::Trimmed { .. })));
        let (reopened, recovered) = open(log.into_disk());
        assert_eq!(recovered.shards[&B].meta.as_deref(), Some(&b"cold"[..]));
        assert!(
            recovered.shards.values().all(|s| s.damage.is_none()),
            "{recovered:?}"
        );
        log = reopened;
    }
}

#[test]
fn a_shard_whose_records_all_went_keeps_its_position_generation_and_metadata() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[meta(B, "b"), group(B, 1, 7, 9, 10), cut(B, 5, 3)],
    );
    for _ in 0..3 {
        age(&mut log);
        trim(&mut log, 5);
        let (reopened, recovered) = open(log.into_disk());
        let found = &recovered.shards[&B];
        assert_eq!((found.start, found.end), (Seq::new(5), Seq::new(5)));
        assert_eq!(found.generation, LogGeneration::new(3));
        assert_eq!(found.meta.as_deref(), Some(&b"b"[..]));
        log = reopened;
    }
    put(&mut log, &[group(B, 6, 6, 4, 10)]);
    assert_eq!(read(&open(log.into_disk()).0, B), [(6, 6, 4)]);
}

#[test]
fn metadata_older_than_the_newest_cut_is_carried_forward() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[meta(B, "b"), group(B, 1, 1, 9, 10)]);
    for i in 1..=20 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    put(&mut log, &[cut(B, 1, 1)]);
    age(&mut log);
    trim(&mut log, 1);
    let (_, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&B].meta.as_deref(), Some(&b"b"[..]));
}

#[test]
fn a_generation_without_metadata_is_carried_forward() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(B, 1, 9, 9, 10), cut(B, 5, 4)]);
    let mut end = 5;
    for _ in 0..3 {
        age(&mut log);
        end += 1;
        put(&mut log, &[group(B, end, end, 9, 10)]);
        trim(&mut log, end - 1);
    }
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&B].generation, LogGeneration::new(4));
    assert_eq!(read(&log, B), [(end, end, 9)]);
}

#[test]
fn a_cold_shard_with_a_cut_inside_a_group_pins_nothing() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[group(B, 1, 4, 5, 10), cut(B, 2, 1), group(B, 3, 3, 6, 10)],
    );
    age(&mut log);
    let before = segments(log.disk_mut()).len();
    trim(&mut log, 0);
    assert!(segments(log.disk_mut()).len() < before);
    for _ in 0..2 {
        assert_eq!(read(&log, B), [(1, 2, 5), (3, 3, 6)]);
        log = open(log.into_disk()).0;
    }
}

#[test]
fn a_lukewarm_shard_with_a_few_records_in_many_segments_pins_nothing() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=80 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
        if i % 9 == 0 {
            put(&mut log, &[group(B, i / 9, i / 9, 2, 50)]);
        }
    }
    let moved = trim(&mut log, 3);
    assert_eq!(log.usage().pinned_by, None);
    assert!(log.usage().total_bytes <= 6 * u64::from(crate::kit::SEGMENT));
    let start = log.range(B).expect("there").0;
    assert!(start <= Seq::new(3));
    assert!(start == Seq::ZERO || moved.contains(&(B, start)));
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&B].start, start);
    assert_eq!(read(&log, B).last(), Some(&(8, 8, 2)));
}

#[test]
fn a_cut_below_records_of_a_later_segment_survives_the_trim_of_the_first() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=9 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    put(&mut log, &[cut(A, 6, 1)]);
    for i in 7..=50 {
        put(&mut log, &[group(A, i, i, 2, 900)]);
    }
    log.trim(|_| Seq::new(7)).expect("trimmed");
    let range = log.range(A);
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(log.range(A), range);
}

#[test]
fn a_crash_anywhere_in_a_trim_loses_nothing() {
    for seed in 1..60 {
        let (mut log, _) = open(SimDisk::default());
        put(&mut log, &[meta(B, "b"), group(B, 1, 1, 9, 10)]);
        age(&mut log);
        let mut asked = 0;
        trim(&mut log, 0);
        let mut disk = log.into_disk();
        disk.crash(|| {
            asked += 1;
            asked % (seed + 1) == 0
        });
        let (log, recovered) = open(disk);
        assert_eq!(recovered.shards[&B].meta.as_deref(), Some(&b"b"[..]));
        assert_eq!(read(&log, B), [(1, 1, 9)]);
        assert_eq!(recovered.shards[&A].end, Seq::new(60));
    }
}
