//! Raft for the masters: what they agree on, and who of them leads.
//!
//! ```text
//! propose ─▶ openraft ─▶ log_store ─▶ log_thread ─▶ catena-wal
//!               │  ▲
//!      network ─┘  └─ service           (JSON over gRPC, master to master)
//!               ▼
//!        state_machine ─▶ snapshot      ─▶ states(), leadership()
//! ```
//!
//! openraft decides; what is here gives it a disk, a network and a state, and
//! keeps it from what it must not do: vote with a memory that has holes, take a
//! damaged file for an empty one, or go on after a failed sync (FAULTS 11).

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: Raft's clocks, tasks, files and sockets are here"
)]

mod error;
mod fatal;
mod folder;
mod leadership;
mod log_store;
mod log_thread;
mod network;
mod service;
mod snapshot;
mod state_machine;
mod timing;
mod types;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use catena_proto::ids::{ClusterId, MasterId};
use catena_proto::wire;
use catena_proto::wire::raft_server::RaftServer;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::{Raft, ServerState};
use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use self::error::{ProposeError, StartError};
pub use self::fatal::{Alarm, Fatal};
pub use self::log_store::{LogReader, LogStop, LogStore};
pub use self::network::{Network, Peer};
pub use self::service::RaftService;
pub use self::snapshot::SnapshotError;
pub use self::state_machine::{SnapshotBuilder, SnapshotStop, StateMachine};
pub use self::types::{
    COMMAND_BYTES_MAX, Entry, LogId, MasterNode, MasterRaft, Membership, RAFT_MESSAGE_BYTES_MAX,
    SNAPSHOT_BYTES_MAX, SnapshotMeta, StorageError, Term, Vote,
};

use self::folder::Folder;
use crate::state::{Applied, Command, MasterState};

/// What a master's Raft is started with.
#[derive(Clone, Debug)]
pub struct RaftConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// This master.
    pub me: MasterId,
    /// Every master, this one too. The same on all of them when the cluster is new.
    pub masters: BTreeMap<MasterId, MasterNode>,
    /// This master's folder.
    pub dir: PathBuf,
    /// The cluster is new: an empty folder is one that was never used. A used one ignores it.
    pub bootstrap: bool,
}

/// What is known of Raft here and now: for status and metrics, never for decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftView {
    /// `leader`, `follower`, `candidate`, `learner` or `stopped`.
    pub role: &'static str,
    /// The newest term that this master knows.
    pub term: u64,
    /// Index of the last applied entry; 0 also before the first.
    pub applied: u64,
    /// The leader that this master knows, with its gRPC address.
    pub leader: Option<(MasterId, String)>,
}

/// A master's part in Raft, running.
pub struct RaftHandle {
    cluster: ClusterId,
    me: MasterId,
    masters: Arc<BTreeMap<MasterId, MasterNode>>,
    raft: Raft<MasterRaft>,
    states: watch::Receiver<Arc<MasterState>>,
    leadership: watch::Receiver<Option<Term>>,
    alarm: Alarm,
    proposals: Semaphore,
    log: LogStop,
    snapshots: Arc<SnapshotStop>,
    /// Until it has stopped: the folder, and the task that watches over leadership.
    running: Mutex<Option<(Folder, JoinHandle<()>)>>,
}

impl RaftHandle {
    /// Recovers what this master holds, and takes part: it votes, follows, and leads when it is elected. What it
    /// answers to others goes through [`RaftHandle::service`].
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed that a later start would miss.
    pub async fn start(config: RaftConfig) -> Result<Self, StartError> {
        let RaftConfig {
            cluster,
            me,
            masters,
            dir,
            bootstrap,
        } = config;
        if !masters.contains_key(&me) {
            return Err(StartError::NotListed { me });
        }
        let alarm = Alarm::default();
        let opening = alarm.clone();
        let opened =
            tokio::task::spawn_blocking(move || open(&dir, cluster, me, bootstrap, &opening));
        let (mut folder, log, machine) = opened
            .await
            .map_err(|why| StartError::Raft(why.to_string()))??;
        if !log.is_used() {
            log.note_used()
                .await
                .map_err(|why| StartError::disk(&folder.log_dir(), &why))?;
            folder.note_log_used()?;
        }
        let masters = Arc::new(masters);
        let network = Network {
            cluster,
            me,
            masters: Arc::clone(&masters),
        };
        let (states, log_stop) = (machine.states(), log.stopper());
        let snapshots = Arc::new(machine.stopper());
        let timing = timing::config(cluster.to_string())
            .validate()
            .map_err(|why| StartError::Raft(why.to_string()))?;
        let raft = Raft::new(me, Arc::new(timing), network, log, machine)
            .await
            .map_err(|why| StartError::Raft(why.to_string()))?;
        if bootstrap {
            initialize(&raft, &masters).await?;
        }
        let leadership = watch::Sender::new(None);
        let led = leadership.subscribe();
        let watching = leadership::watch(raft.clone(), leadership, alarm.clone());
        let watching = tokio::spawn(watching);
        Ok(Self {
            cluster,
            me,
            masters,
            raft,
            states,
            leadership: led,
            alarm,
            proposals: Semaphore::new(timing::PROPOSALS_MAX),
            log: log_stop,
            snapshots,
            running: Mutex::new(Some((folder, watching))),
        })
    }

    /// Replicates a command and applies it; what it did. When this returns, [`RaftHandle::states`] shows it.
    ///
    /// Bounded in time. Dropping it does not take the command back.
    ///
    /// # Errors
    /// [`ProposeError`]: after `Unavailable` the command may have been applied, after the others it was not.
    pub async fn propose(&self, command: Command) -> Result<Applied, ProposeError> {
        let bytes = serde_json::to_vec(&command).map_or(usize::MAX, |json| json.len());
        if bytes > COMMAND_BYTES_MAX {
            return Err(ProposeError::TooLarge { bytes });
        }
        let within = timing::PROPOSE_WITHIN;
        let permit = tokio::time::timeout(within, self.proposals.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(ProposeError::Busy);
        };
        let unavailable = |why: String| ProposeError::Unavailable { why };
        match tokio::time::timeout(within, self.raft.client_write(command)).await {
            Ok(Ok(done)) => Ok(done.data),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => {
                Err(ProposeError::NotLeader {
                    leader: self.metrics().leader.filter(|(id, _)| *id != self.me),
                })
            }
            Ok(Err(why)) => Err(unavailable(why.to_string())),
            Err(_) => Err(unavailable(format!("waited for {within:?}"))),
        }
    }

    /// The newest applied state.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<Arc<MasterState>> {
        self.states.clone()
    }

    /// The term in which this master leads, with a state that holds everything committed before; `None` else.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Option<Term>> {
        self.leadership.clone()
    }

    /// What is known of Raft here and now.
    #[must_use]
    pub fn metrics(&self) -> RaftView {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let role = match metrics.state {
            _ if metrics.running_state.is_err() => "stopped",
            ServerState::Learner => "learner",
            ServerState::Follower => "follower",
            ServerState::Candidate => "candidate",
            ServerState::Leader => "leader",
            ServerState::Shutdown => "stopped",
        };
        let members = metrics.membership_config.membership();
        let leader = metrics.current_leader.map(|id| {
            let node = self.masters.get(&id).or_else(|| members.get_node(&id));
            (id, node.map_or_else(String::new, |node| node.addr.clone()))
        });
        RaftView {
            role,
            term: metrics.current_term,
            applied: metrics.last_applied.map_or(0, |id| id.index),
            leader,
        }
    }

    /// Every master, as this one knows them.
    #[must_use]
    pub fn members(&self) -> Vec<wire::MasterInfo> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let members = metrics.membership_config.membership();
        let joined = members
            .nodes()
            .filter(|(id, _)| !self.masters.contains_key(id));
        self.masters
            .iter()
            .chain(joined)
            .map(|(id, node)| wire::MasterInfo {
                master_id: id.get(),
                addr: node.addr.clone(),
                http: node.http.clone(),
            })
            .collect()
    }

    /// The service that other masters call; its messages are bounded.
    #[must_use]
    pub fn service(&self) -> RaftServer<RaftService> {
        let service = RaftService::new(self.cluster, self.me, self.raft.clone());
        RaftServer::new(service)
            .max_decoding_message_size(RAFT_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(RAFT_MESSAGE_BYTES_MAX)
    }

    /// Resolves when this master cannot go on: its process must end, with the status that it names. Cancel-safe.
    pub async fn failed(&self) -> Fatal {
        self.alarm.wait().await
    }

    /// Stops taking part. When it returns, the files are closed and the folder may be opened again.
    pub async fn shutdown(&self) {
        if let Err(why) = self.raft.shutdown().await {
            tracing::warn!(%why, "Raft did not end in order");
        }
        self.log.stop().await;
        let snapshots = Arc::clone(&self.snapshots);
        // It waits for a snapshot that is being written.
        let _ = tokio::task::spawn_blocking(move || snapshots.stop()).await;
        let running = self.running.lock().take();
        if let Some((folder, watching)) = running {
            watching.abort();
            let _ = watching.await;
            drop(folder);
        }
    }
}

/// Opens what a master keeps on disk, and holds its parts against each other. It blocks.
fn open(
    dir: &std::path::Path,
    cluster: ClusterId,
    me: MasterId,
    bootstrap: bool,
    alarm: &Alarm,
) -> Result<(Folder, LogStore, StateMachine), StartError> {
    let folder = Folder::open(dir, cluster, me, bootstrap)?;
    let log = LogStore::open(&folder.log_dir(), folder.disk(), alarm)?;
    if folder.is_log_used() && !log.is_used() {
        let why = "it is empty, and held votes before";
        return Err(StartError::damaged(&folder.log_dir(), &why));
    }
    let machine = StateMachine::open(&folder.snapshot_dir(), cluster, me, alarm.clone())?;
    if log.purged() > machine.applied() {
        let why = "the snapshot that replaced the log's beginning is gone";
        return Err(StartError::damaged(&folder.snapshot_dir(), &why));
    }
    Ok((folder, log, machine))
}

/// Writes the first entry, if there is none. It must be the same on every master: the ids alone, since each knows
/// its own addresses best.
async fn initialize(
    raft: &Raft<MasterRaft>,
    masters: &BTreeMap<MasterId, MasterNode>,
) -> Result<(), StartError> {
    let members: BTreeMap<MasterId, MasterNode> = masters
        .keys()
        .map(|id| (*id, MasterNode::default()))
        .collect();
    match raft.initialize(members).await {
        // It was used before, or another master was faster.
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(why) => Err(StartError::Raft(why.to_string())),
    }
}
