//! Damage in what was durable: it is said, it is blamed on the right shards, and it stays said.

use catena_proto::ids::{LogGeneration, Seq};
use catena_wal::{Fault, SimDisk, Tail};

use crate::kit::{
    A, B, FIRST, HEADER, SEGMENT, cut, group, meta, newest, offset, open, put, read, reset,
    segments,
};

#[test]
fn damaged_records_are_not_cut_off_and_name_their_shard() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=3 {
        put(&mut log, &[group(A, i, i, 1, 100), group(B, i, i, 2, 100)]);
    }
    let mut disk = log.into_disk();
    let file = newest(&disk);
    // Inside the payload of A's second group.
    disk.flip(&file, FIRST + 2 * 192 + HEADER + 20, 3);
    let (log, recovered) = open(disk);
    assert_eq!(recovered.tail, Tail::Clean);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(
        recovered.shards[&A].end,
        Seq::new(1),
        "what is readable ends before the damage"
    );
    assert_eq!(recovered.shards[&B].damage, None);
    assert_eq!(read(&log, B).len(), 3);
}

#[test]
fn an_unreadable_header_puts_in_doubt_whoever_cannot_be_proven_whole() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[
            meta(A, "a"),
            meta(B, "b"),
            group(A, 1, 1, 1, 100),
            group(B, 1, 1, 2, 100),
        ],
    );
    let at = offset(&log);
    put(&mut log, &[group(A, 2, 2, 1, 100)]);
    put(&mut log, &[group(B, 2, 2, 2, 100), group(A, 3, 3, 1, 100)]);
    put(&mut log, &[group(A, 4, 4, 1, 100)]);
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.flip(&file, at + 30, 0);
    let (mut log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&A].end, Seq::new(1));
    assert_eq!(
        recovered.shards[&B].damage, None,
        "its next frame has the next number: nothing of it was in the hole"
    );
    // The replica repairs: it cuts, and writes its metadata anew. Then the hole matters no more.
    put(&mut log, &[cut(A, 1, 1)]);
    let (mut log, recovered) = open(log.into_disk());
    assert!(
        recovered.shards[&A].damage.is_some(),
        "its metadata may still be lost"
    );
    put(&mut log, &[meta(A, "unsynced"), group(A, 2, 2, 5, 10)]);
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 5)]);
}

#[test]
fn a_lost_cut_is_damage_although_the_records_behind_it_continue() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 10, 1, 100), group(B, 1, 1, 9, 10)]);
    let at = offset(&log);
    put(&mut log, &[cut(A, 5, 1), group(A, 6, 10, 2, 100)]);
    let behind = offset(&log);
    put(&mut log, &[group(A, 11, 11, 3, 100), group(B, 2, 2, 9, 10)]);
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.wipe(&file, at, behind - at);
    let (mut log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&B].damage, None);
    assert!(read(&log, A).iter().all(|g| g.2 == 1), "nothing is mixed");
    // Whatever the replica does next, a later start reads what this one did.
    put(
        &mut log,
        &[cut(A, 3, 2), meta(A, "u"), group(A, 4, 4, 7, 10)],
    );
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(recovered.shards[&A].generation, LogGeneration::new(2));
    assert_eq!(read(&log, A), [(1, 3, 1), (4, 4, 7)]);
}

#[test]
fn a_cut_from_before_the_damage_was_known_does_not_make_it_good() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 10, 1, 100)]);
    let at = offset(&log);
    put(&mut log, &[cut(A, 5, 1), group(A, 6, 10, 2, 100)]);
    let behind = offset(&log);
    put(
        &mut log,
        &[cut(A, 8, 2), meta(A, "m"), group(A, 9, 9, 3, 100)],
    );
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.wipe(&file, at, behind - at);
    let (log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert!(read(&log, A).iter().all(|g| g.2 == 1));
    assert_eq!(recovered.shards[&A].generation, LogGeneration::new(2));
}

#[test]
fn a_reset_behind_damage_makes_the_records_good_and_metadata_itself() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 100), group(A, 2, 2, 1, 100)]);
    put(
        &mut log,
        &[reset(A, 50, 1), meta(A, "m"), group(A, 51, 51, 4, 10)],
    );
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.flip(&file, FIRST + 192 + HEADER + 1, 0);
    let (log, recovered) = open(disk);
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A), [(51, 51, 4)]);
}

#[test]
fn damaged_metadata_is_damage_and_leaves_the_records() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[meta(A, "old"), group(A, 1, 1, 1, 100)]);
    let at = offset(&log);
    put(&mut log, &[meta(A, "new")]);
    put(&mut log, &[group(A, 2, 2, 2, 100)]);
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.flip(&file, at + HEADER, 0);
    let (log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&A].meta.as_deref(), Some(&b"old"[..]));
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 2)]);
}

#[test]
fn a_damaged_segment_header_loses_nothing_and_is_mended() {
    for (number, byte) in [(1, 3), (2, 9), (3, 20)] {
        let (mut log, _) = open(SimDisk::default());
        for i in 1..=20 {
            put(&mut log, &[group(A, i, i, 1, 900)]);
        }
        let mut disk = log.into_disk();
        assert_eq!(segments(&disk).len(), 3);
        disk.flip(&format!("segment-{number:010}"), byte, 1);
        for _ in 0..2 {
            let (log, recovered) = open(disk);
            assert_eq!(recovered.shards[&A].damage, None);
            assert_eq!(read(&log, A).len(), 20);
            disk = log.into_disk();
        }
    }
}

#[test]
fn a_missing_segment_is_damage() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=20 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    let mut disk = log.into_disk();
    catena_wal::Disk::remove(&mut disk, "segment-0000000002").expect("removed");
    let (log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&A].end, Seq::new(7));
    assert_eq!(read(&log, A).len(), 7);
}

#[test]
fn the_last_batch_of_an_idle_log_is_told_from_a_torn_end() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 100)]);
    let at = offset(&log);
    put(&mut log, &[group(A, 2, 2, 2, 100)]);
    let unmarked = log.disk_mut().clone();
    log.mark().expect("marked");
    let marked = offset(&log);
    for _ in 0..5 {
        log.sync().expect("synced");
        log.mark().expect("marked");
    }
    assert_eq!(offset(&log), marked, "an idle log writes nothing more");
    let disk = log.into_disk();
    let file = newest(&disk);
    for (mut disk, told) in [(unmarked, false), (disk.clone(), true)] {
        disk.flip(&file, at + HEADER, 0);
        let (_, recovered) = open(disk);
        assert_eq!(recovered.shards[&A].end, Seq::new(1));
        assert_eq!(recovered.shards[&A].damage.is_some(), told);
        assert_eq!(recovered.tail == Tail::Clean, told);
    }
    // A start says so as well.
    let (log, _) = open(disk);
    let mut disk = log.into_disk();
    disk.flip(&file, at + HEADER, 0);
    assert!(open(disk).1.shards[&A].damage.is_some());
}

#[test]
fn writes_that_never_happen_or_land_elsewhere_are_damage() {
    for fault in [Fault::LostWrite, Fault::Misplace(-150)] {
        let (mut log, _) = open(SimDisk::default());
        put(&mut log, &[group(B, 1, 1, 1, 100), group(A, 1, 1, 1, 100)]);
        put(&mut log, &[group(A, 2, 2, 2, 100)]);
        log.disk_mut().inject(fault);
        put(&mut log, &[group(A, 3, 3, 3, 100)]);
        put(&mut log, &[group(A, 4, 4, 4, 100), group(B, 2, 2, 2, 100)]);
        let (log, recovered) = open(log.into_disk());
        assert!(recovered.shards[&A].damage.is_some(), "{fault:?}");
        assert_eq!(recovered.shards[&B].damage, None, "{fault:?}");
        let held = read(&log, A);
        assert!(held.len() < 3 && held.iter().all(|g| g.0 == u64::from(g.2)));
    }
}

#[test]
fn damage_stays_said_when_its_segment_is_trimmed() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[
            meta(A, "old"),
            group(A, 1, 1, 1, 100),
            group(A, 2, 2, 1, 100),
        ],
    );
    put(&mut log, &[group(B, 1, 1, 1, 100)]);
    let mut disk = log.into_disk();
    let file = newest(&disk);
    disk.flip(&file, FIRST + 96 + 192 + HEADER, 0);
    let (mut log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    for i in 2..=80 {
        put(&mut log, &[group(B, i, i, 1, 900)]);
        log.trim(|_| Seq::new(i)).expect("trimmed");
    }
    assert!(!segments(log.disk_mut()).contains(&file));
    let (mut log, recovered) = open(log.into_disk());
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&A].end, Seq::new(1));
    assert_eq!(recovered.shards[&A].meta.as_deref(), Some(&b"old"[..]));
    put(&mut log, &[meta(A, "unsynced")]);
    assert_eq!(open(log.into_disk()).1.shards[&A].damage, None);
}

#[test]
fn damage_that_appears_while_it_runs_is_found_by_the_read() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=3 {
        put(&mut log, &[group(A, i, i, 1, 100)]);
    }
    let file = newest(log.disk_mut());
    log.disk_mut().flip(&file, FIRST + 192 + HEADER + 5, 0);
    let found = log.read(A, Seq::ZERO, usize::MAX);
    assert!(
        matches!(found, Err(catena_wal::ReadError::Damaged { at, .. }) if at == Seq::new(2)),
        "{found:?}"
    );
    assert_eq!(log.read(A, Seq::ZERO, 1).expect("the whole part").len(), 1);
}

#[test]
fn rubbish_in_the_folder_never_panics() {
    for seed in 1..40_u64 {
        let (mut log, _) = open(SimDisk::default());
        for i in 1..=20 {
            put(&mut log, &[group(A, i, i, 1, 900), meta(A, "m")]);
        }
        let mut disk = log.into_disk();
        for i in 0..200 {
            let at = (seed * 7919 + i * 104_729) % u64::from(SEGMENT);
            for file in segments(&disk) {
                disk.flip(&file, at, (i % 8) as u8);
            }
        }
        let (log, _) = open(disk);
        read(&log, A);
    }
}

#[test]
fn a_shard_that_was_proven_whole_stays_whole_when_the_proof_is_trimmed() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(B, 1, 1, 1, 100), group(A, 1, 1, 1, 100)]);
    for i in 2..=9 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    let (file, at) = (newest(log.disk_mut()), offset(&log));
    put(&mut log, &[group(A, 10, 10, 1, 900)]);
    put(&mut log, &[group(B, 2, 2, 2, 100)]);
    let mut disk = log.into_disk();
    assert_eq!(segments(&disk).len(), 2);
    disk.flip(&file, at + 1, 0);
    let (mut log, recovered) = open(disk);
    assert_eq!(recovered.shards[&B].damage, None);
    assert!(recovered.shards[&A].damage.is_some());
    put(&mut log, &[cut(A, 9, 1), meta(A, "unsynced")]);
    for i in 10..=36 {
        put(&mut log, &[group(A, i, i, 3, 900)]);
    }
    log.trim(|shard| Seq::new(if shard == A { 9 } else { 1 }))
        .expect("trimmed");
    let left = segments(log.disk_mut());
    assert_eq!(left[0], file, "only what proved it went");
    let (log, recovered) = open(log.into_disk());
    assert!(recovered.shards.values().all(|s| s.damage.is_none()));
    assert_eq!(read(&log, B), [(2, 2, 2)]);
    assert_eq!(read(&log, A).last(), Some(&(36, 36, 3)));
}

#[test]
fn what_was_found_void_stays_void_when_the_proof_is_trimmed() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[meta(A, "m"), group(A, 1, 5, 1, 100)]);
    for i in 1..=7 {
        put(&mut log, &[group(B, i, i, 9, 900)]);
    }
    let (file, at) = (newest(log.disk_mut()), offset(&log));
    put(&mut log, &[cut(A, 2, 1)]);
    // In the next segment; without the cut it would look like a continuation of what was trimmed.
    put(&mut log, &[group(A, 3, 5, 2, 900)]);
    let mut disk = log.into_disk();
    assert_eq!(segments(&disk).len(), 2);
    disk.flip(&file, at + 30, 0);
    let (mut log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(read(&log, A), [(1, 5, 1)]);
    put(&mut log, &[meta(A, "unsynced"), group(A, 6, 6, 3, 100)]);
    for i in 8..=34 {
        put(&mut log, &[group(B, i, i, 9, 900)]);
    }
    log.trim(|shard| Seq::new(if shard == A { 5 } else { 7 }))
        .expect("trimmed");
    let left = segments(log.disk_mut());
    assert_eq!(left[0], "segment-0000000002", "only the proof went");
    let range = log.range(A);
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(log.range(A), range);
    assert_eq!(read(&log, A), [(6, 6, 3)]);
}
