//! The thread that owns the log on the disk: no sync holds up the masters' tasks.
//!
//! Jobs are done one by one, in the order in which they were given: Raft's votes
//! and entries must reach the disk in that order. A failure is reported once and
//! nothing is tried again; every later job fails (FAULTS 11).

use catena_proto::ids::{Seq, ShardId};
use catena_wal::{Disk, Log, LogError};
use openraft::storage::LogFlushed;
use tokio::sync::{mpsc, oneshot};

use super::fatal::Alarm;
use super::types::MasterRaft;

/// Jobs that wait for the disk. Raft waits for each of its own before it gives the next.
const JOBS_MAX: usize = 16;
/// The one "shard" that the log holds: Raft's.
pub(super) const RAFT: ShardId = ShardId::new(1);

/// Whom to tell when a job is done.
pub(super) enum Done {
    /// Raft, about appended entries.
    Flushed(LogFlushed<MasterRaft>),
    /// Whoever waits for it.
    Waiting(oneshot::Sender<Result<(), String>>),
    /// Nobody: it matters only once something later is durable.
    Nobody,
}

impl Done {
    fn tell(self, result: Result<(), String>) {
        match self {
            Self::Flushed(raft) => {
                raft.log_io_completed(result.map_err(std::io::Error::other));
            }
            // Whoever stopped waiting does not want to know.
            Self::Waiting(waiting) => drop(waiting.send(result)),
            Self::Nobody => {}
        }
    }
}

/// What the thread does.
pub(super) enum Job {
    /// Appends, and syncs if asked to.
    Write {
        /// In order.
        entries: Vec<catena_wal::Entry>,
        /// Durable when it is done.
        sync: bool,
        /// Whom to tell.
        done: Done,
    },
    /// From now on records up to here may go.
    Trim(Seq),
    /// Closes the log.
    Stop(oneshot::Sender<()>),
}

/// Starts the thread; it ends with `Stop`, or when nobody can give it jobs any more.
pub(super) fn spawn<D: Disk + Send + 'static>(
    log: Log<D>,
    alarm: Alarm,
) -> std::io::Result<mpsc::Sender<Job>> {
    let (jobs, inbox) = mpsc::channel(JOBS_MAX);
    std::thread::Builder::new()
        .name("raft-log".to_owned())
        .spawn(move || run(log, inbox, &alarm))?;
    Ok(jobs)
}

fn run<D: Disk>(mut log: Log<D>, mut inbox: mpsc::Receiver<Job>, alarm: &Alarm) {
    let mut floor = Seq::ZERO;
    while let Some(job) = inbox.blocking_recv() {
        match job {
            Job::Write {
                entries,
                sync,
                done,
            } => {
                let written = write(&mut log, &entries, sync, floor);
                if let Err(why) = &written {
                    alarm.disk(why);
                }
                done.tell(written.map_err(|why| why.to_string()));
            }
            Job::Trim(to) => {
                floor = floor.max(to);
                if let Err(why) = log.trim(|_| floor) {
                    alarm.disk(why);
                }
            }
            Job::Stop(done) => {
                drop(log);
                let _ = done.send(());
                return;
            }
        }
    }
}

fn write<D: Disk>(
    log: &mut Log<D>,
    entries: &[catena_wal::Entry],
    sync: bool,
    floor: Seq,
) -> Result<(), LogError> {
    match log.append(entries) {
        // Nothing was written: what a snapshot replaced may make room, once.
        Err(LogError::Full { .. }) => {
            log.trim(|_| floor)?;
            log.append(entries)?;
        }
        done => done?,
    }
    if sync { log.sync() } else { Ok(()) }
}
