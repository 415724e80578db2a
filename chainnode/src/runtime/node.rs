//! A node: its folder, log, engine, threads and services, from start to stop.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::ClusterConfig;
use catena_proto::ids::{ClusterId, NodeId, Seq, ShardId};
use catena_proto::message::OriginSpan;
use catena_proto::{limits, wire};
use catena_wal::{Log, LogError, LogOptions, RealDisk, Recovered as RecoveredLog, Tail};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tonic::transport::server::TcpIncoming;

use super::admin::{self, AdminService};
use super::apply_thread::{ApplyQueue, ApplyThread};
use super::clock;
use super::configs::{self, Acceptor};
use super::control::{Control, Myself};
use super::driver::Driver;
use super::fellows;
use super::folder::{Folder, FolderError};
use super::forward::Forwarder;
use super::kv::KvService;
use super::link_in::ChainService;
use super::link_out::{Links, WINDOW_BYTES};
use super::log_thread::{self, Durable, LogQueue, LogThread};
use super::masters::Masters;
use super::pages::session_state;
use super::pipe::PipeService;
use super::report::Reporter;
use super::shared::{Fatal, Held, Me, Shared, Work};
use super::store::{SnapshotStore, StoreError};
use crate::engine::{self, EngineError, EngineKind, EngineOptions, SharedEngine};
use crate::replica::{Meta, MetaNo, Recovered, ScanCursor, StateProgress};

/// How long a stopping node waits for its threads and connections.
const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How long a start waits for another process that holds its folder or addresses: one that was
/// killed keeps them until its last write to the disk returns, and whoever killed it cannot tell.
const COPY_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// Pause between two tries to take them.
const COPY_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a node is started with; everything else is a setting of the cluster.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The cluster that it belongs to.
    pub cluster: ClusterId,
    /// Its number.
    pub node: NodeId,
    /// Its folder.
    pub dir: PathBuf,
    /// The gRPC address to listen on; port 0 takes any.
    pub listen: SocketAddr,
    /// The HTTP address to listen on; port 0 takes any.
    pub http: SocketAddr,
    /// The gRPC address that others reach it at, `host:port`; the address it listens on if `None`.
    pub advertise: Option<String>,
    /// The HTTP address that others reach it at, `host:port`; if `None`, the address it listens on, with the host
    /// of `advertise` when it listens on all.
    pub http_advertise: Option<String>,
    /// Its failure domain; empty when unset.
    pub zone: String,
    /// The masters; none is fine.
    pub masters: Vec<String>,
    /// Where snapshots of the cluster's state are, if anywhere.
    pub snapshot_store: Option<String>,
    /// What keeps the state on disk.
    pub engine: EngineKind,
    /// The build, for status.
    pub version: &'static str,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder is foreign, damaged or in use.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An address cannot be listened on.
    #[error("{addr} cannot be listened on: {why}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's own words.
        why: std::io::Error,
    },
    /// The log cannot be opened.
    #[error("the log cannot be opened: {0}")]
    Log(#[from] LogError),
    /// The engine cannot be opened.
    #[error("the state cannot be opened: {0}")]
    Engine(#[from] EngineError),
    /// The snapshot store's address makes no sense.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
}

impl StartError {
    /// The exit status of the process (INTERFACE, "Processes").
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Folder(FolderError::InUse { .. }) => 5,
            Self::Folder(FolderError::NotOurs { .. } | FolderError::Damaged { .. })
            | Self::Log(LogError::Open(_)) => 3,
            Self::Listen { .. } | Self::Store(_) => 2,
            Self::Folder(_) | Self::Log(_) | Self::Engine(_) | Self::Thread(_) => 4,
        }
    }
}

/// Namespace of [`Node::start`].
#[derive(Debug)]
pub struct Node;

/// A node that runs.
pub struct RunningNode {
    shared: Arc<Shared>,
    /// Its gRPC address.
    pub addr: SocketAddr,
    /// Its HTTP address.
    pub http: SocketAddr,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    server: tokio::task::JoinHandle<Result<(), tonic::transport::Error>>,
    /// Ends when the last thread and task of the node has.
    gone: mpsc::Receiver<std::convert::Infallible>,
}

impl Node {
    /// Starts a node on its folder: recovers, listens, and serves as soon as the rules allow.
    ///
    /// # Errors
    /// [`StartError`]; nothing was changed that a later start would miss.
    pub async fn start(config: NodeConfig) -> Result<RunningNode, StartError> {
        let mut folder = take_folder(&config).await?;
        let store = config
            .snapshot_store
            .as_deref()
            .map(SnapshotStore::open)
            .transpose()?;
        let grpc = listen(config.listen).await?;
        let pages = listen(config.http).await?;
        let (addr, http) = (local(&grpc, config.listen)?, local(&pages, config.http)?);
        let first = first_config(&folder, &config, store.as_ref()).await;
        let (log, recovered, options) = open_log(&mut folder, &first.0)?;
        let me = Me {
            cluster: config.cluster,
            node: config.node,
            disk: folder.disk,
            incarnation: folder.incarnation,
        };
        tracing::info!(node = %me.node, disk = %me.disk, incarnation = %me.incarnation, %addr, "starting");
        let engine = open_engine(&folder, config.engine, &recovered)?;
        let started = clock::now();
        let log_dir = folder.log_dir();
        let (alive, gone) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(
            me,
            Arc::clone(&engine),
            first.0,
            started,
            config.version,
            Held {
                folder,
                _alive: alive,
            },
        ));
        *shared.config_source.lock() = first.1;
        let config_dir = shared.held.folder.config_dir();
        let (shards, mut threads) = start_threads(&shared, &engine, log, recovered)?;
        drop(engine);
        tracing::info!(shards, "recovered");
        let acceptor = Arc::new(Acceptor::new(Arc::clone(&shared), config_dir));
        if let Some(store) = store.clone() {
            tokio::spawn(Arc::clone(&acceptor).follow_store(store));
        }
        let control = Control {
            shared: Arc::clone(&shared),
            acceptor,
            store,
            masters: Masters::new(config.masters.clone()),
            myself: myself(&config, addr, http),
            reporter: Reporter::new(Arc::clone(&shared)),
        };
        tokio::spawn(control.run());
        let ticking = Arc::clone(&shared);
        tokio::spawn(async move {
            while !ticking.stopping.load(Ordering::SeqCst) {
                ticking.fellows.tick(clock::now());
                ticking.pause(fellows::TICK_EVERY).await;
            }
        });
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(admin::serve_http(
            Arc::clone(&shared),
            pages,
            stopping.clone(),
        ));
        let server = tokio::spawn(serve(Arc::clone(&shared), config.masters, grpc, stopping));
        threads.push(spawn(&shared, "catena-spare", {
            let shared = Arc::clone(&shared);
            move || log_thread::keep_spare(&shared, log_dir, options)
        })?);
        Ok(RunningNode {
            shared,
            addr,
            http,
            stop,
            threads,
            server,
            gone,
        })
    }
}

/// How the node says that it is reached.
fn myself(config: &NodeConfig, addr: SocketAddr, http: SocketAddr) -> Myself {
    let advertised = config.advertise.clone().unwrap_or_else(|| addr.to_string());
    let host = advertised.rsplit_once(':').map(|(host, _)| host);
    let http = match (&config.http_advertise, host) {
        (Some(named), _) => named.clone(),
        (None, Some(host)) if http.ip().is_unspecified() => format!("{host}:{}", http.port()),
        (None, _) => http.to_string(),
    };
    Myself {
        addr: advertised,
        http,
        zone: config.zone.clone(),
    }
}

/// Opens the log. One that is lost makes the folder another disk, before anything is promised in its name (C4).
fn open_log(
    folder: &mut Folder,
    config: &ClusterConfig,
) -> Result<(Log<RealDisk>, RecoveredLog, LogOptions), StartError> {
    loop {
        let mut options = LogOptions::new(folder.disk.get());
        options.retained_bytes = config.settings.log_retained_bytes;
        let (log, recovered) = Log::open(open_disk(folder)?, options)?;
        if let Tail::Torn { segment, offset } = recovered.tail {
            tracing::warn!(
                segment,
                offset,
                "a torn end of the log was cut: it was never acknowledged"
            );
        }
        let holds_meta = recovered.shards.values().any(|s| s.meta.is_some());
        if holds_meta {
            folder.note_log_used()?;
        } else if folder.is_log_used() {
            drop(log);
            folder.renew()?;
            tracing::error!(
                disk = %folder.disk,
                "the log is lost: this folder is a new disk now, and has to be added to its chains again"
            );
            continue;
        }
        return Ok((log, recovered, options));
    }
}

/// Opens the engine. Files that cannot be read are put aside: log and fellows rebuild the state.
fn open_engine(
    folder: &Folder,
    kind: EngineKind,
    log: &RecoveredLog,
) -> Result<SharedEngine, StartError> {
    let open = || -> Result<SharedEngine, EngineError> {
        let engine = engine::open::open(kind, &folder.state_dir(), EngineOptions::default())?;
        let view = engine.view()?;
        for shard in log.shards.keys() {
            view.progress(*shard)?;
            view.sessions(*shard)?;
        }
        drop(view);
        Ok(engine)
    };
    match open() {
        Err(why @ (EngineError::Unusable { .. } | EngineError::Damaged { .. })) => {
            let aside = folder.put_aside(&folder.state_dir())?;
            tracing::error!(%why, aside = %aside.display(), "the state is put aside and rebuilt");
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// Starts a thread. One that panics ends the node: an invariant does not hold.
fn spawn(
    shared: &Arc<Shared>,
    name: &'static str,
    work: impl FnOnce() + std::marker::Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StartError> {
    struct Watch(Arc<Shared>, &'static str);
    impl Drop for Watch {
        fn drop(&mut self) {
            if std::thread::panicking() {
                tracing::error!(thread = self.1, "a thread panicked: the node stops");
                self.0.die(Fatal::Bug);
            }
        }
    }
    let watch = Watch(Arc::clone(shared), name);
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let watch = watch;
            work();
            drop(watch);
        })
        .map_err(StartError::Thread)
}

/// Takes the folder; a process that still holds it gets [`COPY_ENDS_WITHIN`] to end.
async fn take_folder(config: &NodeConfig) -> Result<Folder, FolderError> {
    let began = clock::now();
    loop {
        match Folder::open(&config.dir, config.cluster, config.node) {
            Err(FolderError::InUse { .. }) if clock::now().since(began) < COPY_ENDS_WITHIN => {
                tokio::time::sleep(COPY_LOOK_EVERY).await;
            }
            taken => return taken,
        }
    }
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

fn open_disk(folder: &Folder) -> Result<RealDisk, StartError> {
    RealDisk::open(&folder.log_dir()).map_err(|e| StartError::Log(LogError::Broken(e)))
}

/// Disk, then store; a node that finds neither waits for one with an empty config.
async fn first_config(
    folder: &Folder,
    config: &NodeConfig,
    store: Option<&SnapshotStore>,
) -> (ClusterConfig, &'static str) {
    if let Some(found) = configs::newest_on_disk(&folder.config_dir(), config.cluster) {
        return (found, "disk");
    }
    if store.is_none() {
        tracing::warn!("no config on disk and no snapshot store: waiting for a master");
    }
    // The store is read by `follow_store`, through the one place where configs are accepted.
    (ClusterConfig::empty(config.cluster), "none")
}

/// What the log and the engine hold of each shard, and the threads that go on from there.
fn start_threads(
    shared: &Arc<Shared>,
    engine: &SharedEngine,
    log: Log<RealDisk>,
    recovered: RecoveredLog,
) -> Result<(usize, Vec<std::thread::JoinHandle<()>>), StartError> {
    let mut replicas = BTreeMap::new();
    let (mut durable, mut progress, mut flushed) =
        (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for (shard, found) in recovered.shards {
        if let Some(damage) = &found.damage {
            tracing::error!(shard = shard.get(), damage, "the log is damaged");
        }
        let replica = recover_shard(engine, &log, shard, &found)?;
        let held = Durable {
            generation: found.generation,
            durable: found.end,
            meta: MetaNo::default(),
        };
        durable.insert(shard, held);
        let view = engine.view()?;
        let state = view.progress(shard)?;
        let whole = state.scan.is_none();
        flushed.insert(shard, if whole { state.applied } else { Seq::ZERO });
        progress.insert(shard, state);
        replicas.insert(shard, replica);
    }
    let count = replicas.len();
    let log_queue = Arc::new(LogQueue::new());
    let apply_queue = Arc::new(ApplyQueue::new());
    let tokio = tokio::runtime::Handle::current();
    let links = Links::new(Arc::clone(shared), tokio.clone());
    let driver = Driver::new(
        Arc::clone(shared),
        links,
        Arc::clone(&log_queue),
        Arc::clone(&apply_queue),
        tokio,
    );
    let log_thread = LogThread {
        shared: Arc::clone(shared),
        queue: log_queue,
        log,
        durable,
    };
    let apply_thread = ApplyThread {
        shared: Arc::clone(shared),
        queue: apply_queue,
        progress,
        flushed,
    };
    let threads = vec![
        spawn(shared, "catena-log", move || log_thread.run())?,
        spawn(shared, "catena-apply", move || apply_thread.run())?,
        spawn(shared, "catena-driver", move || driver.run(replicas))?,
    ];
    Ok((count, threads))
}

fn recover_shard(
    engine: &SharedEngine,
    log: &Log<RealDisk>,
    shard: ShardId,
    found: &catena_wal::RecoveredShard,
) -> Result<Recovered, StartError> {
    let view = engine.view()?;
    let progress = view.progress(shard)?;
    let sessions = view.sessions(shard)?;
    let mut damage = found.damage.clone();
    let meta = found
        .meta
        .clone()
        .and_then(|blob| match Meta::decode(blob) {
            Ok(meta) => Some(meta),
            Err(why) => {
                damage.get_or_insert(why.to_string());
                None
            }
        });
    let from = progress
        .applied
        .clamp(found.start, found.end.max(found.start));
    let groups = match log.read(shard, from, usize::MAX) {
        Ok(groups) => groups.into_iter().filter_map(log_thread::group).collect(),
        Err(why) => {
            damage.get_or_insert(why.to_string());
            Vec::new()
        }
    };
    let span = |(origin, first): &(_, Seq)| OriginSpan {
        origin: *origin,
        first: *first,
    };
    Ok(Recovered {
        meta,
        state: StateProgress {
            applied: progress.applied,
            applied_origin: progress.applied_origin,
            log_time: progress.log_time,
            merge_until: progress.merge_until,
            scan: progress.scan.map(|scan| ScanCursor {
                after: scan.cursor,
                page_no: scan.page_no,
            }),
        },
        sessions: sessions.into_iter().map(session_state).collect(),
        log_start: found.start,
        log_end: found.end,
        origins: found.spans.iter().map(span).collect(),
        groups,
        generation: found.generation,
        damage,
    })
}

async fn serve(
    shared: Arc<Shared>,
    masters: Vec<String>,
    listener: TcpListener,
    stop: watch::Receiver<bool>,
) -> Result<(), tonic::transport::Error> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let forwarder = Forwarder::new(Arc::clone(&shared));
    let kv = wire::kv_server::KvServer::new(KvService {
        shared: Arc::clone(&shared),
        forwarder,
    })
    .max_decoding_message_size(limits::UNARY_BYTES_MAX)
    .max_encoding_message_size(limits::UNARY_BYTES_MAX);
    let pipe = wire::kv_stream_server::KvStreamServer::new(PipeService {
        shared: Arc::clone(&shared),
    })
    .max_decoding_message_size(2 * limits::PIPE_FRAME_BYTES_MAX)
    .max_encoding_message_size(2 * limits::PIPE_FRAME_BYTES_MAX);
    let chain = wire::chain_server::ChainServer::new(ChainService::new(Arc::clone(&shared)))
        .max_decoding_message_size(limits::LINK_FRAME_BYTES_MAX);
    let admin = wire::admin_server::AdminServer::new(AdminService { shared, masters });
    let mut server = tonic::transport::Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)));
    let server = server
        .add_service(health_service)
        .add_service(kv)
        .add_service(pipe)
        .add_service(chain)
        .add_service(admin);
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
    // Nagle and delayed acknowledgements together cost 40 ms a frame.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server
        .serve_with_incoming_shutdown(incoming, admin::stopped(stop))
        .await
}

impl RunningNode {
    /// Resolves when the node cannot go on; the reason was logged.
    ///
    /// Cancel-safe.
    pub async fn failed(&self) -> Fatal {
        let mut fatal = self.shared.fatal.subscribe();
        loop {
            if let Some(why) = *fatal.borrow_and_update() {
                return why;
            }
            if fatal.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops: no more connections, queues are worked off, the state is flushed; within a bound.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        self.shared.close();
        self.shared.inbox.push(Work::Stop);
        drop(self.shared);
        let ended = async {
            let threads = self.threads;
            // A thread that panicked has said so.
            let join = move || threads.into_iter().for_each(|t| drop(t.join()));
            drop(tokio::task::spawn_blocking(join).await);
            // Connections end by themselves once their streams have.
            let server = tokio::time::timeout(STOP_WITHIN / 5, &mut self.server);
            if server.await.is_err() {
                self.server.abort();
            }
            // Then the engine is closed and the folder is free.
            self.gone.recv().await
        };
        if tokio::time::timeout(STOP_WITHIN, ended).await.is_err() {
            tracing::warn!("something did not end in time; the next start replays the log");
        }
    }
}
