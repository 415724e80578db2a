//! The runtime of a master: Raft, the leader's loop, services and pages. Thin on purpose.
//!
//! ```text
//! nodes ──Subscribe──▶ subscriptions ─┐                  ┌─▶ pushes (a queue a node)
//! operators ──Admin──▶ changes ───────┼─▶ leader's loop ─┼─▶ raft ─▶ state
//! time ───────────────────────────────┘   (control)      └─▶ snapshot store
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the runtime is where clocks, files, sockets and tasks are"
)]

mod admin;
mod changes;
mod clock;
mod leader;
mod pages;
mod snapshots;
mod subscriptions;
mod views;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::config::Settings;
use catena_proto::ids::{ClusterId, MasterId};
use catena_proto::redirect;
use catena_proto::time::Mono;
use catena_proto::wire;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic::transport::server::TcpIncoming;

use self::admin::AdminService;
use self::leader::Leader;
use self::snapshots::{Snapshots, StoreError};
use self::subscriptions::ControlService;
use crate::raft::{Fatal, MasterNode, RaftConfig, RaftHandle};
use crate::state::MasterState;

/// Frames of all nodes that wait for the leader's loop; beyond it their streams wait.
const HEARD_MAX: usize = 4096;
/// How long a stopping master waits for its connections.
const STOP_WITHIN: Duration = Duration::from_secs(3);
/// How long a start waits for another process that holds its addresses and is ending.
const COPY_ENDS_WITHIN: Duration = Duration::from_secs(3);
const COPY_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a master is started with; everything else is a setting of the cluster.
#[derive(Clone, Debug)]
pub struct MasterConfig {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its number: its place in `masters`, from 1.
    pub master: MasterId,
    /// Its folder.
    pub dir: PathBuf,
    /// The gRPC address to listen on.
    pub listen: SocketAddr,
    /// The HTTP address to listen on; port 0 takes any.
    pub http: SocketAddr,
    /// The gRPC address that others reach it at; by default its place in `masters`.
    pub advertise: Option<String>,
    /// The gRPC addresses of all masters, in the order of their numbers, from 1.
    pub masters: Vec<String>,
    /// Where snapshots of the cluster's state go, if anywhere.
    pub snapshot_store: Option<String>,
    /// How to create the cluster, if the folder is empty and the cluster is new.
    pub bootstrap: Option<Bootstrap>,
    /// The build, for status.
    pub version: &'static str,
}

/// What a new cluster shall look like.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Where one shard ends and the next begins: rising, none empty.
    pub split_keys: Vec<Bytes>,
    /// Members wanted in each chain; they are created once so many nodes have registered.
    pub replicas: usize,
    /// The settings in force from the start.
    pub settings: Settings,
}

/// Why a master does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The list of masters and this master's number do not fit together.
    #[error(
        "master_id {master} is outside `masters`, which has {count} entries: list every master, in the order of their ids from 1"
    )]
    Masters {
        /// Its number.
        master: MasterId,
        /// How many are listed.
        count: usize,
    },
    /// An address cannot be listened on.
    #[error("{addr} cannot be listened on: {why}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's own words.
        why: std::io::Error,
    },
    /// The snapshot store's address makes no sense.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft, its folder or its log.
    #[error(transparent)]
    Raft(#[from] crate::raft::StartError),
}

impl StartError {
    /// The exit status of the process (INTERFACE, "Processes").
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Masters { .. } | Self::Listen { .. } | Self::Store(_) => 2,
            Self::Raft(why) => why.exit_status(),
        }
    }
}

/// What all tasks of a master share.
pub(crate) struct Inner {
    pub(crate) cluster: ClusterId,
    pub(crate) me: MasterId,
    pub(crate) raft: RaftHandle,
    pub(crate) started: Mono,
    /// A fault switch for tests: no node reaches this master. Never set in builds without the feature `testing`.
    pub(crate) cut_nodes: watch::Sender<bool>,
    stop: watch::Sender<bool>,
}

impl Inner {
    /// The newest applied state.
    pub(crate) fn state(&self) -> Arc<MasterState> {
        Arc::clone(&self.raft.states().borrow())
    }

    /// Whether this master leads, with a state that is caught up.
    pub(crate) fn is_leading(&self) -> bool {
        self.raft.leadership().borrow().is_some()
    }

    /// Sends whoever wants the leader there.
    pub(crate) fn check_leading(&self) -> Result<(), Status> {
        if self.is_leading() {
            return Ok(());
        }
        Err(self.not_leader())
    }

    /// "Ask the leader."
    pub(crate) fn not_leader(&self) -> Status {
        let leader = self.raft.metrics().leader;
        let elsewhere = leader.filter(|(id, _)| *id != self.me);
        redirect::not_leader(elsewhere.as_ref().map(|(_, addr)| addr.as_str()))
    }

    /// Resolves when the master is asked to stop.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.stop.subscribe();
        async move {
            // The sender lives as long as the master; if it is gone, so is the master.
            let _ = stop.wait_for(|stop| *stop).await;
        }
    }
}

/// Namespace of [`Master::start`].
#[derive(Debug)]
pub struct Master;

/// A master that runs.
pub struct RunningMaster {
    inner: Arc<Inner>,
    /// Its gRPC address.
    pub addr: SocketAddr,
    /// Its HTTP address.
    pub http: SocketAddr,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    leader: tokio::task::JoinHandle<()>,
}

impl Master {
    /// Starts a master on its folder: recovers, listens, votes, and leads when it is elected.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed that a later start would miss.
    pub async fn start(config: MasterConfig) -> Result<RunningMaster, StartError> {
        let place = usize::try_from(config.master.get()).unwrap_or(usize::MAX);
        if place == 0 || place > config.masters.len() {
            return Err(StartError::Masters {
                master: config.master,
                count: config.masters.len(),
            });
        }
        let store = config
            .snapshot_store
            .as_deref()
            .map(Snapshots::open)
            .transpose()?;
        let grpc = listen(config.listen).await?;
        let pages = listen(config.http).await?;
        let (addr, http) = (local(&grpc, config.listen)?, local(&pages, config.http)?);
        let raft = RaftHandle::start(RaftConfig {
            cluster: config.cluster,
            me: config.master,
            masters: members(&config, http),
            dir: config.dir.clone(),
            bootstrap: config.bootstrap.is_some(),
        })
        .await?;
        tracing::info!(master = %config.master, %addr, %http, "starting");
        let inner = Arc::new(Inner {
            cluster: config.cluster,
            me: config.master,
            raft,
            started: clock::now(),
            cut_nodes: watch::Sender::new(false),
            stop: watch::Sender::new(false),
        });
        let (heard, hearing) = mpsc::channel(HEARD_MAX);
        let leader = Leader::new(Arc::clone(&inner), hearing, config.bootstrap, store);
        let leader = tokio::spawn(leader.run());
        tokio::spawn(pages::serve(Arc::clone(&inner), pages));
        let server = tokio::spawn(serve(Arc::clone(&inner), grpc, heard));
        Ok(RunningMaster {
            inner,
            addr,
            http,
            server,
            leader,
        })
    }
}

/// Every master with its addresses, as far as this one knows them.
fn members(config: &MasterConfig, http: SocketAddr) -> BTreeMap<MasterId, MasterNode> {
    let numbered = (1..).map(MasterId::new).zip(&config.masters);
    numbered
        .map(|(id, listed)| {
            let mine = id == config.master;
            let advertised = config.advertise.as_ref().filter(|_| mine);
            let node = MasterNode {
                addr: advertised.unwrap_or(listed).clone(),
                http: if mine {
                    http.to_string()
                } else {
                    String::new()
                },
            };
            (id, node)
        })
        .collect()
}

/// Listens; the sockets of a process that is ending are still taken for a moment.
async fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let began = clock::now();
    loop {
        match TcpListener::bind(addr).await {
            Err(why)
                if why.kind() == std::io::ErrorKind::AddrInUse
                    && clock::now().since(began) < COPY_ENDS_WITHIN =>
            {
                tokio::time::sleep(COPY_LOOK_EVERY).await;
            }
            bound => return bound.map_err(|why| StartError::Listen { addr, why }),
        }
    }
}

fn local(listener: &TcpListener, addr: SocketAddr) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|why| StartError::Listen { addr, why })
}

async fn serve(
    inner: Arc<Inner>,
    listener: TcpListener,
    heard: mpsc::Sender<subscriptions::Heard>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let control = ControlService::new(Arc::clone(&inner), heard.clone());
    let control = wire::control_server::ControlServer::new(control)
        .max_encoding_message_size(catena_proto::limits::CONFIG_BYTES_MAX)
        // A report of a node with every shard.
        .max_decoding_message_size(catena_proto::limits::CONFIG_BYTES_MAX);
    let admin = wire::admin_server::AdminServer::new(AdminService {
        inner: Arc::clone(&inner),
        heard,
    });
    let raft = inner.raft.service();
    let mut server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    let server = server
        .add_service(health_service)
        .add_service(control)
        .add_service(admin)
        .add_service(raft);
    let server = match tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
        .build_v1()
    {
        Ok(reflection) => server.add_service(reflection),
        Err(why) => {
            tracing::warn!(%why, "no reflection; serving goes on");
            server
        }
    };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server
        .serve_with_incoming_shutdown(incoming, inner.stopped())
        .await
}

impl RunningMaster {
    /// Resolves when the master cannot go on; the reason was logged.
    ///
    /// Cancel-safe.
    pub async fn failed(&self) -> Fatal {
        self.inner.raft.failed().await
    }

    /// Stops: gives up leading, ends the connections; within a bound.
    pub async fn shutdown(mut self) {
        self.inner.stop.send_replace(true);
        let ended = async {
            let _ = (&mut self.leader).await;
            self.inner.raft.shutdown().await;
            let _ = (&mut self.server).await;
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            self.server.abort();
        }
    }
}
