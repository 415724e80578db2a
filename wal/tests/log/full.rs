//! A full disk: nothing is half done, reads go on, small things still fit, trimming makes room (FAULTS 14).

use catena_proto::ids::Seq;
use catena_wal::{Log, LogError, SimDisk};

use crate::kit::{A, B, OPTIONS, SEGMENT, cut, group, meta, open, put, read};

fn small_disk(segments: u64) -> SimDisk {
    let mut disk = SimDisk::default();
    disk.set_capacity(Some(segments * u64::from(SEGMENT)));
    disk
}

/// Appends until the disk is full; the first position that was refused.
fn fill(log: &mut Log<SimDisk>) -> u64 {
    let mut next = log.range(A).map_or(1, |(_, end)| end.get() + 1);
    loop {
        match log.append(&[group(A, next, next, 1, 1000)]) {
            Ok(()) => next += 1,
            Err(LogError::Full { .. }) => return next,
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_full_disk_is_met_before_anything_is_written_and_reads_go_on() {
    let (mut log, _) = open(small_disk(2));
    let next = fill(&mut log);
    log.sync().expect("synced");
    assert_eq!(read(&log, A).len() as u64, next - 1);
    let writes = log.disk_mut().writes;
    assert_eq!(fill(&mut log), next);
    assert_eq!(log.disk_mut().writes, writes);
    // A restart on the full disk finds everything.
    let (mut log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].end, Seq::new(next - 1));
    // Room again: it goes on where it was.
    log.disk_mut().set_capacity(None);
    put(&mut log, &[group(A, next, next, 1, 1000)]);
}

#[test]
fn a_batch_that_needs_several_segments_is_written_whole_or_not_at_all() {
    let (mut log, _) = open(small_disk(3));
    let batch: Vec<_> = (1..=30).map(|i| group(A, i, i, 1, 900)).collect();
    let full = log.append(&batch);
    assert!(matches!(full, Err(LogError::Full { .. })), "{full:?}");
    assert_eq!(log.range(A), None);
    log.disk_mut().set_capacity(None);
    put(&mut log, &batch);
    let (log, _) = open(log.into_disk());
    assert_eq!(read(&log, A).len(), 30);
}

#[test]
fn metadata_and_cuts_still_fit_when_records_do_not() {
    let (mut log, _) = open(small_disk(1));
    let next = fill(&mut log);
    put(
        &mut log,
        &[meta(A, "epoch 9"), cut(A, next - 2, 1), meta(B, "b")],
    );
    let mixed = log.append(&[meta(A, "not alone"), group(A, next - 1, next - 1, 1, 900)]);
    assert!(matches!(mixed, Err(LogError::Full { .. })));
    let (_, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].meta.as_deref(), Some(&b"epoch 9"[..]));
    assert_eq!(recovered.shards[&A].end, Seq::new(next - 2));
    assert!(recovered.shards[&B].meta.is_some());
}

#[test]
fn a_trim_makes_room_on_a_full_disk_below_what_is_to_be_retained() {
    let (mut log, _) = open(small_disk(3));
    let next = fill(&mut log);
    log.sync().expect("synced");
    assert_eq!(log.trim(|_| Seq::ZERO).expect("trimmed"), []);
    assert_eq!(log.usage().pinned_by, Some(A));
    assert!(log.usage().total_bytes < OPTIONS.retained_bytes);
    log.trim(|_| Seq::new(next - 1)).expect("trimmed");
    assert!(log.usage().spare);
    assert_eq!(log.usage().pinned_by, None);
    put(&mut log, &[group(A, next, next, 1, 1000)]);
    let (_, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].end, Seq::new(next));
    assert_eq!(recovered.shards[&A].damage, None);
}

#[test]
fn no_room_for_the_first_segment_is_full_and_not_broken() {
    let opened = Log::open(small_disk(0), OPTIONS);
    assert!(matches!(opened, Err(LogError::Full { .. })));
}
