//! The log over a faulty disk: what was synced survives, what is damaged is said, nothing is made up.
#![allow(missing_docs, reason = "a test")]

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::ids::{Epoch, Incarnation, LogGeneration, Origin, Seq, ShardId};
use catena_wal::{
    Disk, DiskError, Entry, Fault, Log, LogError, LogOptions, ReadError, RealDisk, SimDisk, Tail,
};
use proptest::prelude::*;

const SEGMENT: u32 = 8 << 10;
const OPTIONS: LogOptions = LogOptions {
    log_id: 7,
    segment_bytes: SEGMENT,
    retained_bytes: 4 * SEGMENT as u64,
};
const A: ShardId = ShardId::new(1);
const B: ShardId = ShardId::new(2);

fn origin(epoch: u64) -> Origin {
    Origin {
        epoch: Epoch::new(epoch),
        incarnation: Incarnation::new(9),
    }
}

fn group(shard: ShardId, first: u64, last: u64, fill: u8, len: usize) -> Entry {
    let records = Bytes::from(vec![fill; len]);
    Entry::Group {
        shard,
        origin: origin(1),
        first: Seq::new(first),
        last: Seq::new(last),
        records,
    }
}

fn meta(shard: ShardId, text: &'static str) -> Entry {
    Entry::Meta {
        shard,
        blob: Bytes::from_static(text.as_bytes()),
    }
}

fn open(disk: SimDisk) -> (Log<SimDisk>, catena_wal::Recovered) {
    Log::open(disk, OPTIONS).expect("it opens")
}

fn read(log: &Log<SimDisk>, shard: ShardId) -> Vec<(u64, u64, u8)> {
    let start = log.range(shard).map_or(Seq::ZERO, |(start, _)| start);
    let groups = log.read(shard, start, usize::MAX).expect("readable");
    groups
        .iter()
        .map(|g| (g.first.get(), g.valid_to.get(), g.records[0]))
        .collect()
}

/// The segment file that is written now.
fn newest(disk: &SimDisk) -> String {
    disk.list()
        .expect("listed")
        .iter()
        .rfind(|(n, _)| n.starts_with("segment"))
        .expect("one")
        .0
        .clone()
}

#[test]
fn what_was_synced_comes_back_after_a_crash_and_the_rest_does_not() {
    let (mut log, _) = open(SimDisk::default());
    log.append(&[group(A, 1, 2, 1, 10), group(B, 1, 1, 2, 10), meta(A, "m")])
        .expect("appended");
    log.sync().expect("synced");
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
    log.append(&[group(A, 1, 1, 1, 10)]).expect("appended");
    log.sync().expect("synced");
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
    log.append(&[group(A, 2, 2, 4, 1500)]).expect("appended");
    log.sync().expect("synced");
    let (log, recovered) = open(log.into_disk());
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 4)]);
    assert!(!recovered.shards.contains_key(&B));
}

#[test]
fn damage_in_what_was_synced_is_not_cut_off_and_names_its_shard() {
    let (mut log, _) = open(SimDisk::default());
    for i in 1..=3 {
        log.append(&[group(A, i, i, 1, 100), group(B, i, i, 2, 100)])
            .expect("appended");
        log.sync().expect("synced");
    }
    let mut disk = log.into_disk();
    let file = newest(&disk);
    // Inside the payload of A's second group.
    disk.flip(&file, 64 + 2 * 192 + 100, 3);
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
    log.append(&[
        meta(A, "a"),
        meta(B, "b"),
        group(A, 1, 1, 1, 100),
        group(B, 1, 1, 2, 100),
    ])
    .expect("appended");
    log.sync().expect("synced");
    log.append(&[group(A, 2, 2, 1, 100)]).expect("appended");
    log.sync().expect("synced");
    log.append(&[
        group(B, 2, 2, 2, 100),
        meta(B, "b2"),
        group(A, 3, 3, 1, 100),
    ])
    .expect("appended");
    log.sync().expect("synced");
    log.append(&[group(A, 4, 4, 1, 100)]).expect("appended");
    log.sync().expect("synced");
    let mut disk = log.into_disk();
    let file = newest(&disk);
    // The header of A's second group: metas take 96 bytes, groups 192.
    disk.flip(&file, 64 + 2 * 96 + 2 * 192 + 30, 0);
    let (mut log, recovered) = open(disk);
    assert!(recovered.shards[&A].damage.is_some());
    assert_eq!(recovered.shards[&A].end, Seq::new(1));
    assert_eq!(
        recovered.shards[&B].damage, None,
        "its records continue and its metadata is newer"
    );
    // The replica repairs: it cuts, and writes its metadata anew. Then the hole matters no more.
    let generation = LogGeneration::new(1);
    log.append(&[Entry::Cut {
        shard: A,
        after: Seq::new(1),
        generation,
    }])
    .expect("appended");
    log.sync().expect("synced");
    let (mut log, recovered) = open(log.into_disk());
    assert!(
        recovered.shards[&A].damage.is_some(),
        "its metadata may still be lost"
    );
    log.append(&[meta(A, "unsynced"), group(A, 2, 2, 5, 10)])
        .expect("appended");
    log.sync().expect("synced");
    let (log, recovered) = open(log.into_disk());
    assert_eq!(recovered.shards[&A].damage, None);
    assert_eq!(read(&log, A), [(1, 1, 1), (2, 2, 5)]);
}

#[test]
fn cuts_and_resets_are_honoured_by_reads_and_recovery() {
    let (mut log, _) = open(SimDisk::default());
    let generation = LogGeneration::new(1);
    log.append(&[
        group(A, 1, 3, 1, 10),
        group(A, 4, 6, 2, 10),
        Entry::Cut {
            shard: A,
            after: Seq::new(5),
            generation,
        },
        group(A, 6, 7, 3, 10),
        group(B, 1, 4, 4, 10),
        Entry::Reset {
            shard: B,
            base: Seq::new(90),
            origin: origin(3),
            generation,
        },
        group(B, 91, 91, 5, 10),
    ])
    .expect("appended");
    log.sync().expect("synced");
    for _ in 0..2 {
        assert_eq!(read(&log, A), [(1, 3, 1), (4, 5, 2), (6, 7, 3)]);
        assert_eq!(read(&log, B), [(91, 91, 5)]);
        let (reopened, recovered) = open(log.into_disk());
        assert_eq!(recovered.shards[&A].generation, generation);
        assert_eq!(recovered.shards[&B].spans[0], (origin(3), Seq::new(90)));
        log = reopened;
    }
}

#[test]
fn an_entry_that_does_not_follow_is_refused_and_nothing_is_written() {
    let (mut log, _) = open(SimDisk::default());
    let refused = log.append(&[group(A, 1, 1, 1, 10), group(A, 3, 3, 1, 10)]);
    assert!(matches!(refused, Err(LogError::Entry { .. })));
    assert!(matches!(
        log.append(&[group(A, 1, 1, 1, SEGMENT as usize)]),
        Err(LogError::Entry { .. })
    ));
    log.append(&[group(A, 1, 1, 2, 10)]).expect("appended");
    assert_eq!(read(&log, A), [(1, 1, 2)]);
}

#[test]
fn a_full_disk_is_met_before_anything_is_written_and_reads_go_on() {
    let mut disk = SimDisk::default();
    disk.set_capacity(Some(2 * u64::from(SEGMENT)));
    let (mut log, _) = open(disk);
    let mut next = 1;
    let full = loop {
        match log.append(&[group(A, next, next, 1, 1000)]) {
            Ok(()) => next += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::Full { .. }), "{full}");
    log.sync().expect("synced");
    assert_eq!(read(&log, A).len() as u64, next - 1);
    // Room again: it goes on where it was.
    log.disk_mut().set_capacity(None);
    log.append(&[group(A, next, next, 1, 1000)])
        .expect("appended");
}

#[test]
fn a_failed_write_or_sync_breaks_the_log_for_good() {
    for fault in [Fault::Sync, Fault::Write] {
        let (mut log, _) = open(SimDisk::default());
        log.disk_mut().inject(fault);
        let first = log
            .append(&[group(A, 1, 1, 1, 10)])
            .and_then(|()| log.sync());
        assert!(matches!(
            first,
            Err(LogError::Broken(DiskError::Failed { .. }))
        ));
        assert!(matches!(
            log.append(&[group(A, 2, 2, 1, 10)]),
            Err(LogError::AlreadyBroken)
        ));
        assert!(matches!(log.sync(), Err(LogError::AlreadyBroken)));
    }
}

#[test]
fn segments_of_another_log_are_refused() {
    let (log, _) = open(SimDisk::default());
    let other = Log::open(
        log.into_disk(),
        LogOptions {
            log_id: 8,
            ..OPTIONS
        },
    );
    assert!(matches!(other, Err(LogError::Open(_))));
}

#[test]
fn trimming_keeps_what_is_above_the_floor_and_copies_a_cold_shard_forward() {
    let (mut log, _) = open(SimDisk::default());
    log.append(&[meta(B, "cold"), group(B, 1, 1, 9, 10)])
        .expect("appended");
    for i in 1..=60 {
        log.append(&[group(A, i, i, 1, 900)]).expect("appended");
        log.sync().expect("synced");
    }
    let before = log.usage().total_bytes;
    // A hot shard that still needs its records holds everything.
    assert_eq!(log.trim(|_| Seq::ZERO).expect("trimmed"), []);
    let moved = log
        .trim(|shard| if shard == A { Seq::new(55) } else { Seq::ZERO })
        .expect("trimmed");
    assert!(log.usage().total_bytes < before);
    assert!(
        moved
            .iter()
            .any(|(shard, start)| *shard == A && *start <= Seq::new(55))
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
fn a_real_folder_keeps_what_was_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..3_u64 {
        let disk = RealDisk::open(folder.path()).expect("opened");
        let (mut log, recovered) = Log::open(disk, OPTIONS).expect("opened");
        let held = recovered.shards.get(&A).map_or(0, |s| s.end.get());
        assert_eq!(held, round * 20);
        for i in 1..=20 {
            log.append(&[group(A, held + i, held + i, 1, 700)])
                .expect("appended");
        }
        log.sync().expect("synced");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, u8, usize),
    Cut(u64, u64),
    Meta(u64, u8),
    Sync,
    Crash(u64),
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..4_u64, 1..5_u8, 1..1200_usize).prop_map(|(s, n, len)| Step::Append(s, n, len)),
        1 => (1..4_u64, 0..6_u64).prop_map(|(s, back)| Step::Cut(s, back)),
        1 => (1..4_u64, any::<u8>()).prop_map(|(s, m)| Step::Meta(s, m)),
        3 => Just(Step::Sync),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => Just(Step::Trim),
    ]
}

/// A shard as it should be: (first, last, fill) of its groups, and its metadata.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    groups: Vec<(u64, u64, u8)>,
    meta: Option<u8>,
    end: u64,
}

impl Model {
    fn cut(&mut self, after: u64) {
        self.groups.retain(|g| g.0 <= after);
        if let Some(last) = self.groups.last_mut() {
            last.1 = last.1.min(after);
        }
        self.end = self.end.min(after);
    }
}

fn same(log: &Log<SimDisk>, models: &BTreeMap<u64, Model>) -> Result<(), TestCaseError> {
    for (shard, model) in models {
        let Some((start, end)) = log.range(ShardId::new(*shard)) else {
            prop_assert!(model.groups.is_empty() && model.meta.is_none());
            continue;
        };
        prop_assert_eq!(end.get().max(start.get()), model.end.max(start.get()));
        let held: Vec<_> = model
            .groups
            .iter()
            .copied()
            .filter(|g| g.1 > start.get())
            .collect();
        prop_assert_eq!(read(log, ShardId::new(*shard)), held);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever was appended, synced, cut, trimmed and lost: after a crash each shard is as it was at
    /// some moment between the last sync and the crash, never damaged, and the log goes on.
    #[test]
    fn recovery_is_a_prefix_with_all_that_was_synced(steps in prop::collection::vec(step(), 1..60)) {
        let (mut log, _) = open(SimDisk::default());
        let mut now: BTreeMap<u64, Model> = (1..4).map(|s| (s, Model::default())).collect();
        // Every state since the last sync: one of them must come back.
        let mut possible = vec![now.clone()];
        let mut fill = 0_u8;
        for step in steps {
            match step {
                Step::Append(shard, count, len) => {
                    fill = fill.wrapping_add(1);
                    let model = now.get_mut(&shard).expect("a shard");
                    let (first, last) = (model.end + 1, model.end + u64::from(count));
                    log.append(&[group(ShardId::new(shard), first, last, fill, len)]).expect("appended");
                    model.groups.push((first, last, fill));
                    model.end = last;
                }
                Step::Cut(shard, back) => {
                    let model = now.get_mut(&shard).expect("a shard");
                    let start = log.range(ShardId::new(shard)).map_or(0, |(s, _)| s.get());
                    let after = model.end.saturating_sub(back).max(start);
                    let shard = ShardId::new(shard);
                    let generation = LogGeneration::new(1);
                    log.append(&[Entry::Cut { shard, after: Seq::new(after), generation }]).expect("cut");
                    model.cut(after);
                }
                Step::Meta(shard, m) => {
                    let blob = Bytes::from(vec![m]);
                    log.append(&[Entry::Meta { shard: ShardId::new(shard), blob }]).expect("meta");
                    now.get_mut(&shard).expect("a shard").meta = Some(m);
                }
                Step::Sync => {
                    log.sync().expect("synced");
                    possible.clear();
                }
                Step::Trim => {
                    log.sync().expect("synced");
                    possible.clear();
                    let ends: BTreeMap<u64, u64> = now.iter().map(|(s, m)| (*s, m.end / 2)).collect();
                    log.trim(|shard| Seq::new(ends[&shard.get()])).expect("trimmed");
                }
                Step::Crash(seed) => {
                    let mut dice = seed | 1;
                    let mut disk = log.into_disk();
                    disk.crash(|| {
                        dice ^= dice << 13;
                        dice ^= dice >> 7;
                        dice ^= dice << 17;
                        dice & 1 == 0
                    });
                    let (reopened, recovered) = open(disk);
                    log = reopened;
                    for found in recovered.shards.values() {
                        prop_assert_eq!(&found.damage, &None);
                    }
                    let metas = |models: &BTreeMap<u64, Model>| -> Vec<Option<u8>> {
                        models.values().map(|m| m.meta).collect()
                    };
                    let found_metas: Vec<Option<u8>> = (1..4)
                        .map(|s| recovered.shards.get(&ShardId::new(s)).and_then(|f| f.meta.as_ref()).map(|b| b[0]))
                        .collect();
                    possible.push(now.clone());
                    let back = possible
                        .iter()
                        .rev()
                        .find(|m| metas(m) == found_metas && same(&log, m).is_ok())
                        .cloned();
                    prop_assert!(back.is_some(), "no moment since the last sync looks like this");
                    now = back.expect("just checked");
                    possible.clear();
                }
            }
            possible.push(now.clone());
            same(&log, &now)?;
        }
    }

    /// One flipped bit anywhere in what was synced: never returned as data, and said if it hit anything that counts.
    #[test]
    fn a_flipped_bit_is_never_returned_as_data(at in 64..3000_u64, bit in 0..8_u8) {
        let (mut log, _) = open(SimDisk::default());
        for i in 1..=8 {
            log.append(&[group(A, i, i, i as u8, 120), group(B, i, i, 100 + i as u8, 60), meta(A, "m")]).expect("appended");
            log.sync().expect("synced");
        }
        let mut disk = log.into_disk();
        let file = newest(&disk);
        disk.flip(&file, at, bit);
        let (log, recovered) = open(disk);
        for (shard, base) in [(A, 0), (B, 100)] {
            let found = read(&log, shard);
            for (i, (first, last, fill)) in found.iter().enumerate() {
                let want = i as u64 + 1;
                prop_assert_eq!((*first, *last, u64::from(*fill)), (want, want, base + want));
            }
            let torn = matches!(recovered.tail, Tail::Torn { .. });
            let whole = found.len() == 8;
            // The very last batch cannot be told from a torn one by itself: the state's applied position does.
            prop_assert!(whole || recovered.shards[&shard].damage.is_some() || (torn && found.len() >= 7));
        }
    }
}
