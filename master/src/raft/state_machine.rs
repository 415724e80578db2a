//! What Raft applies its entries to: the masters' state, and nothing else.
//!
//! Only applied entries are ever visible: whoever looks at the published state
//! sees what a majority has agreed on.

use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use catena_proto::ids::{ClusterId, MasterId};
use openraft::storage::RaftStateMachine;
use openraft::{
    AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageError as Failed,
};
use tokio::sync::watch;

use super::StartError;
use super::fatal::Alarm;
use super::snapshot::{SnapshotError, Snapshots, Taken};
use super::types::{
    Entry, LogId, MasterRaft, Membership, SnapshotMeta, StorageError, StorageIoError,
};
use crate::state::{Applied, MasterState};

/// The state with its place in the log, its snapshots, and those who watch it.
#[derive(Debug)]
pub struct StateMachine {
    now: Taken,
    published: watch::Sender<Arc<MasterState>>,
    snapshots: Arc<Snapshots>,
}

/// Stores one state while newer entries are applied.
#[derive(Debug)]
pub struct SnapshotBuilder {
    taken: Taken,
    snapshots: Arc<Snapshots>,
}

/// Ends the storing of snapshots.
#[derive(Debug)]
pub struct SnapshotStop(Arc<Snapshots>);

impl SnapshotStop {
    /// Nothing is stored from here on; it waits for what is being stored. It blocks.
    pub fn stop(&self) {
        self.0.close();
    }
}

impl StateMachine {
    /// Opens the folder of snapshots and takes up the newest. It blocks.
    ///
    /// # Errors
    /// [`StartError::Damaged`]: a snapshot that cannot be trusted is never taken for an empty one.
    pub fn open(
        dir: &Path,
        cluster: ClusterId,
        me: MasterId,
        alarm: Alarm,
    ) -> Result<Self, StartError> {
        let (snapshots, found) = Snapshots::open(dir, cluster, me, alarm)?;
        let now = match found {
            Some(found) => Taken {
                applied: found.meta.last_log_id,
                membership: found.meta.last_membership,
                state: Arc::new(found.state),
            },
            None => Taken {
                applied: None,
                membership: Membership::default(),
                state: Arc::new(MasterState::new()),
            },
        };
        Ok(Self {
            published: watch::Sender::new(Arc::clone(&now.state)),
            now,
            snapshots: Arc::new(snapshots),
        })
    }

    /// The newest applied state, for as long as anybody looks.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Arc<MasterState>> {
        self.published.subscribe()
    }

    /// The last applied entry.
    #[must_use]
    pub const fn applied(&self) -> Option<LogId> {
        self.now.applied
    }

    /// The means to end the storing of snapshots.
    #[must_use]
    pub fn stopper(&self) -> SnapshotStop {
        SnapshotStop(Arc::clone(&self.snapshots))
    }

    fn publish(&self) {
        self.published.send_replace(Arc::clone(&self.now.state));
    }
}

/// Runs what blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, StorageError> {
    let failed = |why: String| -> StorageError {
        Failed::from(StorageIoError::write_snapshot(None, AnyError::error(why)))
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|why| failed(why.to_string())),
        Err(why) => Err(failed(why.to_string())),
    }
}

impl RaftSnapshotBuilder<MasterRaft> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<MasterRaft>, StorageError> {
        let (taken, snapshots) = (self.taken.clone(), Arc::clone(&self.snapshots));
        blocking(move || snapshots.build(&taken)).await
    }
}

impl RaftStateMachine<MasterRaft> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.now.applied, self.now.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Applied>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut answers = Vec::new();
        for entry in entries {
            self.now.applied = Some(entry.log_id);
            answers.push(match entry.payload {
                EntryPayload::Normal(command) => Arc::make_mut(&mut self.now.state).apply(&command),
                EntryPayload::Membership(members) => {
                    self.now.membership = Membership::new(Some(entry.log_id), members);
                    Applied::Kept
                }
                EntryPayload::Blank => Applied::Kept,
            });
        }
        // Before Raft answers whoever proposed: they find what they did.
        self.publish();
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            taken: self.now.clone(),
            snapshots: Arc::clone(&self.snapshots),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let (wanted, snapshots) = (meta.clone(), Arc::clone(&self.snapshots));
        let state = blocking(move || snapshots.install(&wanted, snapshot.into_inner())).await?;
        self.now = Taken {
            applied: meta.last_log_id,
            membership: meta.last_membership.clone(),
            state: Arc::new(state),
        };
        self.publish();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<MasterRaft>>, StorageError> {
        let snapshots = Arc::clone(&self.snapshots);
        blocking(move || snapshots.current()).await
    }
}
