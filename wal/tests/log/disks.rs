//! The two disks: the faulty one fails as it says, the real one keeps what was synced.

use catena_proto::ids::Seq;
use catena_wal::{Disk, DiskError, Fault, Log, RealDisk, SimDisk, Tail, make_spare};

use crate::kit::{A, OPTIONS, SEGMENT, group};

fn bytes(disk: &impl Disk, file: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    disk.read_at(file, 0, &mut bytes).expect("read");
    bytes
}

#[test]
fn a_crash_tears_unsynced_writes_at_sectors_and_keeps_synced_ones() {
    let mut disk = SimDisk::default();
    disk.create("f", 2048).expect("created");
    disk.sync_folder().expect("synced");
    disk.write_at("f", 0, &[1; 512]).expect("written");
    disk.sync("f").expect("synced");
    disk.write_at("f", 0, &[2; 2048]).expect("written");
    let mut turn = false;
    disk.crash(|| {
        turn = !turn;
        turn
    });
    let found = bytes(&disk, "f", 2048);
    let sectors: Vec<u8> = found.chunks(512).map(|s| s[0]).collect();
    assert_eq!(sectors, [2, 0, 2, 0]);
}

#[test]
fn a_failed_sync_leaves_the_cache_clean_and_the_disk_old() {
    let mut disk = SimDisk::default();
    disk.create("f", 512).expect("created");
    disk.sync_folder().expect("synced");
    disk.write_at("f", 0, &[7; 512]).expect("written");
    disk.inject(Fault::Sync);
    assert!(disk.sync("f").is_err());
    disk.sync("f").expect("a second try proves nothing");
    assert_eq!(bytes(&disk, "f", 1), [7]);
    disk.crash(|| true);
    assert_eq!(bytes(&disk, "f", 1), [0]);
}

#[test]
fn names_are_durable_with_the_folder_and_in_order() {
    let mut disk = SimDisk::default();
    disk.create("a", 512).expect("created");
    disk.sync_folder().expect("synced");
    disk.rename("a", "b").expect("renamed");
    disk.create("c", 512).expect("created");
    let older = disk.clone();
    let mut asked = 0;
    disk.crash(|| {
        asked += 1;
        asked == 1
    });
    assert_eq!(disk.list().expect("listed"), [("b".to_owned(), 512)]);
    let mut disk = older;
    disk.crash(|| false);
    assert_eq!(disk.list().expect("listed"), [("a".to_owned(), 512)]);
}

#[test]
fn it_is_full_only_when_a_file_is_made() {
    let mut disk = SimDisk::default();
    disk.set_capacity(Some(1000));
    disk.create("f", 600).expect("created");
    let full = disk.create("g", 600);
    assert!(matches!(full, Err(DiskError::Full { .. })));
    disk.write_at("f", 0, &[1; 600]).expect("written");
    assert!(disk.write_at("f", 1, &[1; 600]).is_err());
}

#[test]
fn a_hung_disk_says_so_until_it_is_let_go_or_restarted() {
    let mut disk = SimDisk::default();
    disk.set_hung(true);
    assert!(disk.is_hung());
    disk.crash(|| true);
    assert!(!disk.is_hung());
}

#[test]
fn a_real_folder_keeps_what_was_synced() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("deep").join("log");
    for round in 0..3_u64 {
        let disk = RealDisk::open(&folder).expect("opened");
        let (mut log, recovered) = Log::open(disk, OPTIONS).expect("opened");
        assert_eq!(recovered.tail, Tail::Clean);
        let held = recovered.shards.get(&A).map_or(0, |s| s.end.get());
        assert_eq!(held, round * 20);
        for i in 1..=20 {
            log.append(&[group(A, held + i, held + i, 1, 700)])
                .expect("appended");
        }
        log.sync().expect("synced");
        let groups = log.read(A, Seq::ZERO, usize::MAX).expect("read");
        assert_eq!(groups.len() as u64, held + 20);
        log.trim(|_| Seq::ZERO).expect("ticked");
    }
}

#[test]
fn a_real_torn_file_is_cut_and_a_flipped_one_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = || {
        let disk = RealDisk::open(folder.path()).expect("opened");
        Log::open(disk, OPTIONS).expect("opened")
    };
    let (mut log, _) = make();
    for i in 1..=4 {
        log.append(&[group(A, i, i, 1, 700)]).expect("appended");
        log.sync().expect("synced");
    }
    drop(log);
    let mut other = RealDisk::open(folder.path()).expect("opened");
    let mut write = |at, bytes: &[u8]| {
        other
            .write_at("segment-0000000001", at, bytes)
            .expect("written");
    };
    // The last frame loses its end.
    write(64 + 3 * 792 + 488, &[0; 300]);
    let (log, recovered) = make();
    assert!(matches!(recovered.tail, Tail::Torn { .. }));
    assert_eq!(recovered.shards[&A].end, Seq::new(3));
    assert_eq!(recovered.shards[&A].damage, None);
    drop(log);
    write(64 + 792 + 100, &[9]);
    let (_, recovered) = make();
    assert_eq!(recovered.shards[&A].end, Seq::new(1));
    assert!(recovered.shards[&A].damage.is_some());
}

#[test]
fn a_spare_made_by_somebody_else_becomes_the_next_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = RealDisk::open(folder.path()).expect("opened");
    let (mut log, _) = Log::open(disk, OPTIONS).expect("opened");
    let mut other = RealDisk::open(folder.path()).expect("opened");
    make_spare(&mut other, "spare.new", SEGMENT).expect("made");
    assert!(log.usage().spare);
    for i in 1..=10 {
        log.append(&[group(A, i, i, 1, 900)]).expect("appended");
    }
    log.sync().expect("synced");
    assert!(!log.usage().spare);
    make_spare(&mut other, "spare.new", SEGMENT).expect("made");
    // A half-made one is tidied away by the next start.
    other.create("spare.new", 100).expect("created");
    drop(log);
    let (log, recovered) = Log::open(other, OPTIONS).expect("opened");
    assert_eq!(recovered.shards[&A].end, Seq::new(10));
    assert!(log.usage().spare);
    let left = RealDisk::open(folder.path()).expect("opened");
    let names = left.list().expect("listed");
    assert!(names.iter().all(|(name, _)| name != "spare.new"));
}
