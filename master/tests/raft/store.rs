//! The store by itself: what it keeps over a restart, and what it refuses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use catena_master::raft::{
    Alarm, Entry, LogId, LogStore, MasterRaft, StartError, StateMachine, StorageError, Vote,
};
use catena_proto::ids::DiskId;
use catena_wal::{Disk, DiskError, LogOptions, RealDisk};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogId, RaftLogReader, RaftSnapshotBuilder};
use tempfile::TempDir;

use crate::kit::{CLUSTER, create, master, note, subjects};

const OPTIONS: LogOptions = LogOptions {
    log_id: 7,
    segment_bytes: 16 << 10,
    retained_bytes: 0,
};

fn open_log(dir: &Path) -> Result<LogStore, StartError> {
    let disk = RealDisk::open(dir).expect("a folder");
    LogStore::on(disk, dir, OPTIONS, &Alarm::default())
}

fn open_machine(dir: &Path) -> Result<StateMachine, StartError> {
    StateMachine::open(dir, CLUSTER, master(1), Alarm::default())
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, master(1)), index)
}

fn entry(term: u64, index: u64) -> Entry {
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(note(format!("note-{term}-{index}"))),
    }
}

async fn close(log: LogStore) {
    let stop = log.stopper();
    drop(log);
    stop.stop().await;
}

async fn ids(log: &mut LogStore) -> Vec<LogId> {
    let entries = log.try_get_log_entries(0..).await.expect("readable");
    entries.iter().map(|e| *e.get_log_id()).collect()
}

struct Builder;

impl StoreBuilder<MasterRaft, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError> {
        let dir = tempfile::tempdir().expect("a folder");
        let log = open_log(&dir.path().join("log")).expect("it opens");
        let machine = open_machine(&dir.path().join("state")).expect("it opens");
        Ok((dir, log, machine))
    }
}

#[test]
fn the_store_passes_the_suite_of_openraft() {
    Suite::test_all(Builder).expect("it passes");
}

#[tokio::test]
async fn a_restart_keeps_vote_entries_committed_and_purged() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = open_log(dir.path()).expect("it opens");
    assert!(!log.is_used());
    let vote = Vote::new(3, master(2));
    log.save_vote(&vote).await.expect("saved");
    // Long enough for several segments, so that some are freed.
    let entries: Vec<_> = (0..200).map(|i| entry(1, i)).collect();
    log.blocking_append(entries.clone())
        .await
        .expect("appended");
    log.save_committed(Some(id(1, 150))).await.expect("saved");
    log.purge(id(1, 120)).await.expect("purged");
    close(log).await;

    let mut log = open_log(dir.path()).expect("it opens");
    assert!(log.is_used());
    assert_eq!(log.read_vote().await.expect("read"), Some(vote));
    assert_eq!(log.read_committed().await.expect("read"), Some(id(1, 150)));
    let state = log.get_log_state().await.expect("read");
    assert_eq!(state.last_purged_log_id, Some(id(1, 120)));
    assert_eq!(state.last_log_id, Some(id(1, 199)));
    let kept = log.try_get_log_entries(0..).await.expect("readable");
    assert_eq!(kept, entries[121..]);
    log.blocking_append([entry(2, 200)])
        .await
        .expect("it goes on");
    close(log).await;
}

#[tokio::test]
async fn what_a_conflict_replaced_stays_replaced_over_a_restart() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = open_log(dir.path()).expect("it opens");
    log.blocking_append((0..6).map(|i| entry(1, i)))
        .await
        .expect("appended");
    log.truncate(id(1, 3)).await.expect("truncated");
    assert_eq!(ids(&mut log).await.last(), Some(&id(1, 2)));
    close(log).await;

    let mut log = open_log(dir.path()).expect("it opens");
    assert_eq!(ids(&mut log).await, [id(1, 0), id(1, 1), id(1, 2)]);
    log.blocking_append([entry(2, 3)]).await.expect("appended");
    close(log).await;

    let mut log = open_log(dir.path()).expect("it opens");
    let expected = [id(1, 0), id(1, 1), id(1, 2), id(2, 3)];
    assert_eq!(ids(&mut log).await, expected);
    close(log).await;
}

#[tokio::test]
async fn entries_behind_a_snapshot_need_not_follow_the_log() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = open_log(dir.path()).expect("it opens");
    log.blocking_append((0..4).map(|i| entry(1, i)))
        .await
        .expect("appended");
    log.purge(id(5, 40)).await.expect("purged");
    close(log).await;

    let mut log = open_log(dir.path()).expect("it opens");
    let state = log.get_log_state().await.expect("read");
    assert_eq!(state.last_log_id, Some(id(5, 40)));
    log.blocking_append([entry(5, 41), entry(5, 42)])
        .await
        .expect("appended");
    let hole = log.blocking_append([entry(5, 50)]).await;
    assert!(hole.is_err(), "entries follow each other");
    close(log).await;

    let mut log = open_log(dir.path()).expect("it opens");
    assert_eq!(ids(&mut log).await, [id(5, 41), id(5, 42)]);
    close(log).await;
}

/// Where the only segment holds a text.
fn find(dir: &Path, text: &str) -> (PathBuf, Vec<u8>, usize) {
    let listed = std::fs::read_dir(dir).expect("listed");
    let mut paths: Vec<_> = listed.map(|e| e.expect("an entry").path()).collect();
    paths.retain(|path| path.to_string_lossy().contains("segment-"));
    assert_eq!(paths.len(), 1, "one segment");
    let bytes = std::fs::read(&paths[0]).expect("read");
    let at = bytes
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .expect("it is there");
    (paths.remove(0), bytes, at)
}

#[tokio::test]
async fn a_torn_end_is_cut_and_damage_before_it_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut log = open_log(dir.path()).expect("it opens");
    for i in 0..4 {
        log.blocking_append([entry(1, i)]).await.expect("appended");
    }
    close(log).await;
    let (path, whole, last) = find(dir.path(), "note-1-3");
    // The last write reached the disk in part.
    let mut torn = whole.clone();
    torn[last..].fill(0);
    std::fs::write(&path, &torn).expect("written");
    let mut log = open_log(dir.path()).expect("it opens");
    assert_eq!(ids(&mut log).await, [id(1, 0), id(1, 1), id(1, 2)]);
    log.blocking_append([entry(2, 3)])
        .await
        .expect("it goes on");
    close(log).await;

    let (path, mut damaged, early) = find(dir.path(), "note-1-1");
    damaged[early] ^= 1;
    std::fs::write(&path, &damaged).expect("written");
    for _ in 0..2 {
        let refused = open_log(dir.path()).expect_err("refused, at every start");
        assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
        assert_eq!(refused.exit_status(), 4);
    }
}

#[tokio::test]
async fn a_snapshot_is_taken_up_again_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut machine = open_machine(dir.path()).expect("it opens");
    let mut created = entry(1, 0);
    created.payload = EntryPayload::Normal(create());
    machine
        .apply([created, entry(1, 1), entry(1, 2)])
        .await
        .expect("applied");
    let mut builder = machine.get_snapshot_builder().await;
    machine.apply([entry(1, 3)]).await.expect("applied");
    let late = machine.get_snapshot_builder().await.build_snapshot().await;
    assert_eq!(late.expect("built").meta.last_log_id, Some(id(1, 3)));
    // An older one that is ready only now does not replace it.
    builder.build_snapshot().await.expect("the newer one");
    let state = Arc::clone(&machine.states().borrow());
    assert_eq!(subjects(&state).len(), 3);
    drop((machine, builder));

    let mut again = open_machine(dir.path()).expect("it opens");
    assert_eq!(again.applied(), Some(id(1, 3)));
    assert_eq!(*again.states().borrow(), state);
    assert!(again.get_current_snapshot().await.expect("read").is_some());
    drop(again);

    let foreign = StateMachine::open(
        dir.path(),
        catena_proto::ids::ClusterId::new(1),
        master(1),
        Alarm::default(),
    );
    assert!(matches!(foreign, Err(StartError::Damaged { .. })));

    let path = dir.path().join("snapshot.json");
    let whole = std::fs::read(&path).expect("read");
    let mut flipped = whole.clone();
    let middle = whole.len() - 20;
    flipped[middle] ^= 1;
    for bad in [&flipped[..], &whole[..whole.len() - 1], b"", b"{}\n{}"] {
        std::fs::write(&path, bad).expect("written");
        let refused = open_machine(dir.path()).expect_err("refused");
        assert!(matches!(refused, StartError::Damaged { .. }), "{refused}");
    }
}

/// A disk whose syncs fail on demand.
struct Failing {
    disk: RealDisk,
    fails: Arc<AtomicBool>,
}

impl Disk for Failing {
    fn list(&self) -> Result<Vec<(String, u64)>, DiskError> {
        self.disk.list()
    }
    fn create(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        self.disk.create(file, len)
    }
    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(file, at, buf)
    }
    fn write_at(&mut self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(file, at, bytes)
    }
    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(DiskError::Failed {
                op: "sync",
                file: file.to_owned(),
                why: "EIO".to_owned(),
            });
        }
        self.disk.sync(file)
    }
    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.disk.sync_folder()
    }
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.disk.remove(file)
    }
}

#[tokio::test]
async fn a_failed_sync_ends_the_master_and_is_never_tried_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let fails = Arc::new(AtomicBool::new(false));
    let disk = Failing {
        disk: RealDisk::open(dir.path()).expect("a folder"),
        fails: Arc::clone(&fails),
    };
    let alarm = Alarm::default();
    let mut log = LogStore::on(disk, dir.path(), OPTIONS, &alarm).expect("it opens");
    log.blocking_append([entry(1, 0)]).await.expect("appended");
    assert_eq!(alarm.raised(), None);
    fails.store(true, Ordering::SeqCst);
    assert!(log.blocking_append([entry(1, 1)]).await.is_err());
    let fatal = alarm.wait().await;
    assert_eq!(fatal.exit_status(), 4);
    assert!(fatal.to_string().contains("EIO"), "{fatal}");
    fails.store(false, Ordering::SeqCst);
    assert!(log.save_vote(&Vote::new(9, master(1))).await.is_err());
    close(log).await;
}

#[test]
fn the_log_in_a_folder_is_that_of_its_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let alarm = Alarm::default();
    drop(LogStore::open(dir.path(), DiskId::new(1), &alarm).expect("it opens"));
    let other = LogStore::open(dir.path(), DiskId::new(2), &alarm);
    assert!(matches!(other, Err(StartError::Damaged { .. })));
}
