//! Masters in this process, each with a folder and a server of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use catena_master::raft::{MasterNode, RaftConfig, RaftHandle, StartError};
use catena_master::state::{Applied, Change, Command, Controller, MasterState, WallMs};
use catena_proto::config::Settings;
use catena_proto::ids::{ClusterId, MasterId};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::server::TcpIncoming;

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xca7e);
/// For what takes a second at most; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn master(id: u64) -> MasterId {
    MasterId::new(id)
}

fn command(change: Change) -> Command {
    Command {
        at: WallMs(1),
        by: Controller::Operator,
        cause: "a test".to_owned(),
        change,
    }
}

/// A command that leaves one line in the event log.
pub(crate) fn note(subject: impl ToString) -> Command {
    command(Change::Note {
        subject: subject.to_string(),
        what: "hold".to_owned(),
    })
}

/// The first command of a cluster.
pub(crate) fn create() -> Command {
    command(Change::CreateCluster {
        cluster: CLUSTER,
        split_keys: vec![bytes::Bytes::from_static(b"m")],
        replicas: 3,
        settings: Settings::default(),
    })
}

/// The subjects of all notes, oldest first.
pub(crate) fn subjects(state: &MasterState) -> Vec<String> {
    let notes = state.events().filter(|event| event.action == "hold");
    notes.map(|event| event.subject.clone()).collect()
}

/// Waits for a condition, and says which one never came.
pub(crate) async fn wait<T>(what: &str, condition: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, condition).await {
        Ok(met) => met,
        Err(_) => panic!("never: {what}"),
    }
}

/// A master that runs, with its server.
pub(crate) struct Running {
    pub(crate) raft: RaftHandle,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// Some masters and their folders.
pub(crate) struct Masters {
    folders: BTreeMap<MasterId, TempDir>,
    addresses: BTreeMap<MasterId, SocketAddr>,
    pub(crate) running: BTreeMap<MasterId, Running>,
}

impl Masters {
    /// A new cluster, all of them running.
    pub(crate) async fn start(count: u64) -> Self {
        let mut masters = Self {
            folders: BTreeMap::new(),
            addresses: BTreeMap::new(),
            running: BTreeMap::new(),
        };
        let mut listeners = Vec::new();
        for id in (1..=count).map(master) {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            masters.addresses.insert(id, address);
            masters
                .folders
                .insert(id, tempfile::tempdir().expect("a folder"));
            listeners.push((id, listener));
        }
        for (id, listener) in listeners {
            masters.run(id, listener, true).await.expect("it starts");
        }
        masters
    }

    pub(crate) fn folder(&self, id: MasterId) -> &Path {
        self.folders[&id].path()
    }

    pub(crate) fn config(&self, id: MasterId, bootstrap: bool) -> RaftConfig {
        let node = |(id, address): (&MasterId, &SocketAddr)| {
            let addr = address.to_string();
            let http = String::new();
            (*id, MasterNode { addr, http })
        };
        RaftConfig {
            cluster: CLUSTER,
            me: id,
            masters: self.addresses.iter().map(node).collect(),
            dir: self.folder(id).to_owned(),
            bootstrap,
        }
    }

    async fn run(
        &mut self,
        id: MasterId,
        listener: TcpListener,
        bootstrap: bool,
    ) -> Result<(), StartError> {
        let raft = RaftHandle::start(self.config(id, bootstrap)).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tonic::transport::Server::builder()
            .add_service(raft.service())
            .serve_with_incoming_shutdown(TcpIncoming::from(listener), async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(async {
            server.await.expect("it served");
        });
        let running = Running { raft, stop, server };
        self.running.insert(id, running);
        Ok(())
    }

    /// Starts a master again, on its folder and address.
    pub(crate) async fn restart(&mut self, id: MasterId) -> Result<(), StartError> {
        let listener = TcpListener::bind(self.addresses[&id]).await.expect("free");
        self.run(id, listener, false).await
    }

    pub(crate) async fn stop(&mut self, id: MasterId) {
        let running = self.running.remove(&id).expect("it runs");
        running.raft.shutdown().await;
        let _ = running.stop.send(());
        wait("its server ends", running.server)
            .await
            .expect("it ends in order");
    }

    pub(crate) async fn stop_all(&mut self) {
        let all: Vec<_> = self.running.keys().copied().collect();
        for id in all {
            self.stop(id).await;
        }
    }

    pub(crate) fn raft(&self, id: MasterId) -> &RaftHandle {
        &self.running[&id].raft
    }

    /// The master that leads with a state that is caught up.
    pub(crate) async fn leader(&self) -> MasterId {
        let leads = self.running.iter().map(|(id, running)| {
            let mut leadership = running.raft.leadership();
            Box::pin(async move {
                leadership.wait_for(Option::is_some).await.expect("it runs");
                *id
            })
        });
        let (leader, ..) = wait("a leader", futures::future::select_all(leads)).await;
        leader
    }

    /// Proposes to whoever leads, until it is taken. Never use it for what must not happen twice.
    pub(crate) async fn propose(&self, command: &Command) -> Applied {
        let until_taken = async {
            loop {
                let leader = self.raft(self.leader().await);
                if let Ok(applied) = leader.propose(command.clone()).await {
                    return applied;
                }
            }
        };
        wait("a command is taken", until_taken).await
    }

    /// Waits until every running master has this note, and that they agree; the state.
    pub(crate) async fn agree_on(&self, subject: &str) -> Arc<MasterState> {
        let mut agreed: Option<Arc<MasterState>> = None;
        for (id, running) in &self.running {
            let mut states = running.raft.states();
            let seen = states.wait_for(|state| subjects(state).iter().any(|s| s == subject));
            let what = format!("master {id} applies {subject}");
            let state = Arc::clone(&*wait(&what, seen).await.expect("it runs"));
            if let Some(agreed) = &agreed {
                assert_eq!(*agreed, state, "masters hold the same state");
            }
            agreed = Some(state);
        }
        agreed.expect("somebody runs")
    }
}
