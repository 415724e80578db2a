//! Power cuts: what was synced comes back, what was not may, a torn end is cut.

use catena_proto::ids::Seq;
use catena_wal::{SimDisk, Tail};

use crate::kit::{A, B, Dice, group, meta, open, put, read, segments};

#[test]
fn what_was_synced_comes_back_after_a_crash_and_the_rest_does_not() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[group(A, 1, 2, 1, 10), group(B, 1, 1, 2, 10), meta(A, "m")],
    );
    log.append(&[group(A, 3, 3, 3, 10)]).expect("appended");
    let mut disk = log.into_disk();
    disk.crash(|| false);
    let (log, recovered) = open(disk);
    assert_eq!(read(&log, A), [(1, 2, 1)]);
    assert_eq!(read(&log, B), [(1, 1, 2)]);
    assert_eq!(recovered.shards[&A].meta.as_deref(), Some(&b"m"[..]));
    assert_eq!(recovered.tail, Tail::Clean);
}

#[test]
fn a_torn_batch_with_a_hole_in_it_is_cut_and_is_no_damage() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 10)]);
    // Two frames of one unsynced batch; the first one's sectors are lost, the second one's are not.
    log.append(&[group(A, 2, 2, 2, 1500), group(B, 1, 1, 3, 600)])
        .expect("appended");
    let mut disk = log.into_disk();
    let mut sector = 0;
    disk.crash(|| {
        sector += 1;
        sector > 2
    });
    let (mut log, recovered) = open(disk);
    assert!(
        matches!(recovered.tail, Tail::Torn { .. }),
        "{:?}",
        recovered.tail
    );
    assert!(recovered.shards.values().all(|s| s.damage.is_none()));
    assert_eq!(read(&log, A), [(1, 1, 1)]);
    // What was left behind the cut never comes back, whatever is written in front of it.
    put(&mut log, &[group(A, 2, 2, 4, 1500)]);
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.tail, Tail::Clean);
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 4)]);
    assert!(!recovered.shards.contains_key(&B));
}

#[test]
fn a_torn_batch_that_reaches_into_the_next_segment_is_cut_in_the_first() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 10)]);
    let batch: Vec<_> = (2..=20).map(|i| group(A, i, i, 2, 900)).collect();
    log.append(&batch).expect("appended");
    let mut disk = log.into_disk();
    // Names are durable; of the first segment nothing more is, of the later ones everything.
    let mut asked = 0;
    disk.crash(|| {
        asked += 1;
        asked > 16
    });
    assert_eq!(segments(&disk).len(), 3);
    let (mut log, recovered) = open(disk);
    assert!(matches!(recovered.tail, Tail::Torn { segment: 1, .. }));
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A), [(1, 1, 1)]);
    for i in 2..=20 {
        put(&mut log, &[group(A, i, i, 3, 900)]);
    }
    let (log, _) = open(log.into_disk());
    assert!(read(&log, A)[1..].iter().all(|g| g.2 == 3));
}

#[test]
fn a_segment_whose_name_was_lost_is_made_again() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=7 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    let one = log.disk_mut().clone();
    put(&mut log, &[group(A, 8, 8, 1, 900)]);
    // As if the name of the new segment had not reached the disk: only the first one is there, with its `End`.
    let mut disk = log.into_disk();
    assert_eq!((segments(&one).len(), segments(&disk).len()), (1, 2));
    catena_wal::Disk::remove(&mut disk, "segment-0000000002").expect("removed");
    let (mut log, recovered) = open(disk);
    assert_eq!(recovered.shards[&A].end, Seq::new(7));
    for i in 8..=20 {
        put(&mut log, &[group(A, i, i, 2, 500)]);
    }
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A).len(), 20);
}

#[test]
fn everything_found_is_durable_before_it_is_announced() {
    for seed in 0..50 {
        let (mut log, _) = open(SimDisk::default());
        put(&mut log, &[group(A, 1, 1, 1, 600)]);
        for i in 2..=6 {
            log.append(&[group(A, i, i, 1, 600)]).expect("appended");
        }
        let mut disk = log.into_disk();
        // The process dies, the system lives: the page cache holds it all, the disk some of it.
        let mut dice = Dice::new(seed);
        disk.write_back(|| dice.coin());
        let (log, recovered) = open(disk);
        assert_eq!(recovered.shards[&A].end, Seq::new(6));
        let mut disk = log.into_disk();
        disk.crash(|| dice.coin());
        let (log, recovered) = open(disk);
        assert_eq!(recovered.shards[&A].damage, None);
        assert_eq!(read(&log, A).len(), 6);
    }
}

#[test]
fn starting_again_and_again_after_crashes_loses_nothing() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 600), meta(A, "m")]);
    let mut dice = Dice::new(5);
    for _ in 0..200 {
        let mut disk = log.into_disk();
        disk.crash(|| dice.coin());
        let (reopened, recovered) = open(disk);
        assert_eq!(recovered.shards[&A].damage, None);
        assert_eq!(recovered.shards[&A].meta.as_deref(), Some(&b"m"[..]));
        log = reopened;
        assert_eq!(read(&log, A), [(1, 1, 1)]);
    }
}
