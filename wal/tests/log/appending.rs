//! What is accepted, how it is written, and how it is read.

use catena_proto::ids::{LogGeneration, Seq};
use catena_wal::{Fault, Log, LogError, LogOptions, ReadError, SimDisk};

use crate::kit::{A, B, OPTIONS, SEGMENT, cut, group, meta, open, origin, put, read, reset};

#[test]
fn cuts_and_resets_are_honoured_by_reads_and_recovery() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[
            group(A, 1, 3, 1, 10),
            group(A, 4, 6, 2, 10),
            cut(A, 5, 1),
            group(A, 6, 7, 3, 10),
            group(B, 1, 4, 4, 10),
            reset(B, 90, 1),
            group(B, 91, 91, 5, 10),
        ],
    );
    for _ in 0..3 {
        assert_eq!(read(&log, A), [(1, 3, 1), (4, 5, 2), (6, 7, 3)]);
        assert_eq!(read(&log, B), [(91, 91, 5)]);
        let (reopened, recovered) = open(log.into_disk());
        assert_eq!(recovered.shards[&A].generation, LogGeneration::new(1));
        assert_eq!(recovered.shards[&B].spans[0], (origin(3), Seq::new(90)));
        log = reopened;
    }
}

#[test]
fn a_generation_never_goes_back() {
    let (mut log, _) = open(SimDisk::default());
    put(
        &mut log,
        &[group(A, 1, 9, 1, 10), cut(A, 5, 4), cut(A, 3, 2)],
    );
    let (_, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].generation, LogGeneration::new(4));
    assert_eq!(recovered.shards[&A].end, Seq::new(3));
}

#[test]
fn an_entry_that_does_not_follow_is_refused_and_nothing_is_written() {
    let (mut log, _) = open(SimDisk::default());
    let refused = log.append(&[group(A, 1, 1, 1, 10), group(A, 3, 3, 1, 10)]);
    assert!(matches!(refused, Err(LogError::Entry { .. })));
    let too_large = log.append(&[group(A, 1, 1, 1, SEGMENT as usize)]);
    assert!(matches!(too_large, Err(LogError::Entry { .. })));
    let backwards = log.append(&[group(A, 1, 0, 1, 10)]);
    assert!(matches!(backwards, Err(LogError::Entry { .. })));
    assert_eq!(log.range(A), None, "nothing was ever said of it");
    log.append(&[group(A, 1, 1, 2, 10)]).expect("appended");
    assert_eq!(read(&log, A), [(1, 1, 2)]);
}

#[test]
fn a_batch_is_one_write_and_one_sync_for_all_shards() {
    let (mut log, _) = open(SimDisk::default());
    let (writes, syncs) = (log.disk_mut().writes, log.disk_mut().syncs);
    put(
        &mut log,
        &[group(A, 1, 1, 1, 100), group(B, 1, 1, 2, 100), meta(A, "m")],
    );
    assert_eq!(log.disk_mut().writes - writes, 1);
    assert_eq!(log.disk_mut().syncs - syncs, 1);
}

#[test]
fn reads_are_bounded_and_start_where_they_are_asked_to() {
    let (mut log, _) = open(SimDisk::default());
    for i in 0..20 {
        put(&mut log, &[group(A, 3 * i + 1, 3 * i + 3, i as u8, 900)]);
        put(&mut log, &[group(B, i + 1, i + 1, i as u8, 50)]);
    }
    let one = log.read(A, Seq::new(31), 1).expect("read");
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].first, one[0].last), (Seq::new(31), Seq::new(33)));
    let some = log.read(A, Seq::new(30), 2000).expect("read");
    assert_eq!(some.len(), 3);
    assert_eq!(log.read(A, Seq::new(60), 1).expect("read"), []);
    assert_eq!(log.read(A, Seq::new(999), 1).expect("read"), []);
}

#[test]
fn a_failed_write_or_sync_breaks_the_log_for_good() {
    for fault in [Fault::Sync, Fault::Write] {
        let (mut log, _) = open(SimDisk::default());
        put(&mut log, &[group(A, 1, 1, 1, 10)]);
        log.disk_mut().inject(fault);
        let first = log
            .append(&[group(A, 2, 2, 1, 10)])
            .and_then(|()| log.sync());
        assert!(matches!(first, Err(LogError::Broken(_))), "{first:?}");
        let syncs = log.disk_mut().syncs;
        let again = log.append(&[group(A, 3, 3, 1, 10)]);
        assert!(matches!(again, Err(LogError::AlreadyBroken)));
        assert!(matches!(log.sync(), Err(LogError::AlreadyBroken)));
        assert!(matches!(
            log.trim(|_| Seq::ZERO),
            Err(LogError::AlreadyBroken)
        ));
        assert_eq!(log.read(A, Seq::ZERO, 1), Err(ReadError::Broken));
        assert_eq!(log.disk_mut().syncs, syncs, "a sync is never tried again");
        // What was synced before is there after the restart.
        let mut disk = log.into_disk();
        disk.crash(|| false);
        assert_eq!(read(&open(disk).0, A), [(1, 1, 1)]);
    }
}

#[test]
fn a_read_that_fails_is_said_and_breaks_nothing() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 10)]);
    log.disk_mut().inject(Fault::Read);
    let failed = log.read(A, Seq::ZERO, 1);
    assert!(matches!(failed, Err(ReadError::Damaged { at, .. }) if at == Seq::new(1)));
    put(&mut log, &[group(A, 2, 2, 2, 10)]);
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 2)]);
}

#[test]
fn segments_of_another_log_and_of_another_format_are_refused_untouched() {
    let (mut log, _) = open(SimDisk::default());
    put(&mut log, &[group(A, 1, 1, 1, 10)]);
    let disk = log.into_disk();
    let other = LogOptions {
        log_id: 8,
        ..OPTIONS
    };
    let refused = Log::open(disk.clone(), other);
    assert!(matches!(&refused, Err(LogError::Open(why)) if why.contains("another disk")));
    let small = LogOptions {
        segment_bytes: 100,
        ..OPTIONS
    };
    assert!(matches!(Log::open(disk, small), Err(LogError::Open(_))));
}

#[test]
fn another_segment_length_leaves_older_segments_readable() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=12 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    let larger = LogOptions {
        segment_bytes: 2 * SEGMENT,
        ..OPTIONS
    };
    let (mut log, recovered) = Log::open(log.into_disk(), larger).expect("opened");
    assert_eq!(recovered.shards[&A].end, Seq::new(12));
    for i in 13..=40 {
        put(&mut log, &[group(A, i, i, 1, 900)]);
    }
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A).len(), 40);
}
