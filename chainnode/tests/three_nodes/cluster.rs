//! Three nodes in this process, on ephemeral ports, with the test in the master's place.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use catena_chainnode::engine::EngineKind;
use catena_chainnode::runtime::{Node, NodeConfig, RunningNode, folder};
use catena_proto::call::{Answer, Call, CallBody, CallId};
use catena_proto::config::{ChainConfig, ChainPhase, ClusterConfig, KeyRange, Member, NodeInfo};
use catena_proto::conversion::pipe;
use catena_proto::ids::{ClusterId, ConfigVersion, DiskId, Epoch, Generation, NodeId, ShardId};
use catena_proto::op::{Command, Outcome, WriteOp};
use catena_proto::{snapshot, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xca7);
pub(crate) const SHARD: ShardId = ShardId::new(1);
/// Generous: a condition that does not come about in this time never will.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of three nodes with one shard; the chain is 1, 2, 3.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    engine: EngineKind,
    disks: Vec<DiskId>,
    addrs: Vec<(SocketAddr, SocketAddr)>,
    pub(crate) nodes: Vec<Option<RunningNode>>,
    version: u64,
}

impl Cluster {
    /// Formats three folders, starts the nodes, and takes the shard from `creating` to `serving`.
    pub(crate) async fn start(engine: EngineKind) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("store")).expect("the store");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut cluster = Self {
            dir,
            engine,
            disks: Vec::new(),
            addrs: vec![(any, any); 3],
            nodes: Vec::new(),
            version: 0,
        };
        for n in 1..=3 {
            let disk = folder::format(&cluster.folder(n), CLUSTER, NodeId::new(n));
            cluster.disks.push(disk.expect("formatted"));
            cluster.nodes.push(None);
            cluster.start_node(n).await;
        }
        cluster.publish(Epoch::new(1), ChainPhase::Creating);
        cluster.until(|r| r.in_sync).await;
        cluster.publish(Epoch::new(2), ChainPhase::Serving);
        cluster.until(|r| r.serving_reads).await;
        cluster
    }

    pub(crate) fn folder(&self, n: u64) -> std::path::PathBuf {
        self.dir.path().join(format!("node-{n}"))
    }

    fn config(&self, n: u64) -> NodeConfig {
        let (listen, http) = self.addrs[n as usize - 1];
        NodeConfig {
            cluster: CLUSTER,
            node: NodeId::new(n),
            dir: self.folder(n),
            listen,
            http,
            advertise: None,
            http_advertise: None,
            zone: String::new(),
            masters: Vec::new(),
            snapshot_store: Some(format!("file://{}", self.store().display())),
            engine: self.engine,
            version: "test",
        }
    }

    pub(crate) fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    /// Starts a node on its folder and at its address.
    pub(crate) async fn start_node(&mut self, n: u64) {
        let node = Node::start(self.config(n)).await.expect("started");
        self.addrs[n as usize - 1] = (node.addr, node.http);
        self.nodes[n as usize - 1] = Some(node);
    }

    /// Stops a node; its folder and address stay.
    pub(crate) async fn stop_node(&mut self, n: u64) {
        let node = self.nodes[n as usize - 1].take().expect("it runs");
        node.shutdown().await;
    }

    /// Puts the next state into the snapshot store.
    pub(crate) fn publish(&mut self, epoch: Epoch, phase: ChainPhase) {
        self.version += 1;
        let mut config = ClusterConfig::empty(CLUSTER);
        config.position.generation = Generation::new(1);
        config.position.version = ConfigVersion::new(self.version);
        let mut members = Vec::new();
        for n in 1..=3 {
            let node = NodeId::new(n);
            let disk = self.disks[n as usize - 1];
            let (addr, http) = self.addrs[n as usize - 1];
            let info = NodeInfo {
                node,
                disk,
                addr: addr.to_string(),
                http: http.to_string(),
                zone: String::new(),
            };
            config.nodes.insert(node, info);
            members.push(Member {
                node,
                disk,
                joined_epoch: Epoch::new(1),
            });
        }
        let chain = ChainConfig {
            shard: SHARD,
            epoch,
            range: KeyRange::all(),
            phase,
            recovered: Epoch::ZERO,
            members,
        };
        config.chains.insert(SHARD, chain);
        put(&self.store(), &config);
    }

    pub(crate) fn addr(&self, n: u64) -> SocketAddr {
        self.addrs[n as usize - 1].0
    }

    pub(crate) fn http(&self, n: u64) -> SocketAddr {
        self.addrs[n as usize - 1].1
    }

    /// What a node says of its replica; `None` while it does not answer.
    pub(crate) async fn replica(&self, n: u64) -> Option<wire::ReplicaStatus> {
        let channel = channel(self.addr(n)).await?;
        let mut admin = wire::admin_client::AdminClient::new(channel);
        let status = admin.node_status(wire::NodeStatusRequest::default()).await;
        status.ok()?.into_inner().replicas.pop()
    }

    /// Waits until every running member's replica is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&wire::ReplicaStatus) -> bool) {
        let running = (1..=3).filter(|n| self.nodes[*n as usize - 1].is_some());
        for n in running {
            self.until_node(n, &wanted).await;
        }
    }

    /// Waits until one node's replica is as wanted.
    pub(crate) async fn until_node(&self, n: u64, wanted: impl Fn(&wire::ReplicaStatus) -> bool) {
        eventually(&format!("node {n} is not as wanted"), async || {
            self.replica(n).await.filter(&wanted)
        })
        .await;
    }

    /// A pipe to a node.
    pub(crate) async fn pipe(&self, n: u64) -> Pipe {
        Pipe::open(self.addr(n)).await
    }

    /// Reads a key at each of the three members.
    pub(crate) async fn read_everywhere(&self, key: &str) -> Vec<Option<String>> {
        let mut found = Vec::new();
        for n in 1..=3 {
            found.push(self.pipe(n).await.get(key).await);
        }
        found
    }
}

/// A connection to a node; `None` if it does not listen.
pub(crate) async fn channel(addr: SocketAddr) -> Option<Channel> {
    let endpoint = Channel::from_shared(format!("http://{addr}")).expect("an address");
    endpoint.connect().await.ok()
}

/// Writes an object whole.
pub(crate) fn put(store: &Path, config: &ClusterConfig) {
    let name = snapshot::name(config.position);
    let beside = store.join("beside");
    std::fs::write(&beside, snapshot::encode(config)).expect("written");
    std::fs::rename(beside, store.join(name)).expect("renamed");
}

/// Asks again and again until there is an answer; the test fails if none comes.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| panic!("{what}"))
}

/// A client's pipe, one frame at a time.
pub(crate) struct Pipe {
    frames: mpsc::Sender<wire::PipeRequest>,
    answers: Streaming<wire::PipeResponse>,
    next: u64,
}

impl Pipe {
    async fn open(addr: SocketAddr) -> Self {
        let channel = channel(addr).await.expect("connected");
        let mut client = wire::kv_stream_client::KvStreamClient::new(channel);
        let (frames, sent) = mpsc::channel(16);
        let answers = client.pipe(ReceiverStream::new(sent)).await;
        Self {
            frames,
            answers: answers.expect("opened").into_inner(),
            next: 0,
        }
    }

    /// Sends one frame, and gives the answers in the order of the calls.
    pub(crate) async fn call(&mut self, bodies: Vec<CallBody>) -> Vec<Answer> {
        let first = self.next;
        let count = bodies.len();
        let calls = bodies.into_iter().map(|body| {
            let id = CallId::new(self.next);
            self.next += 1;
            Call {
                id,
                shard: SHARD,
                epoch: None,
                timeout: Some(PATIENCE),
                body,
            }
        });
        let frame = wire::PipeRequest {
            cluster_id: Bytes::copy_from_slice(&CLUSTER.to_bytes()),
            requests: calls.map(wire::Request::from).collect(),
        };
        self.frames.send(frame).await.expect("the node lives");
        let mut answers: Vec<Option<Answer>> = vec![None; count];
        while answers.iter().any(Option::is_none) {
            let frame = tokio::time::timeout(PATIENCE, self.answers.message()).await;
            let frame = frame
                .expect("in time")
                .expect("a frame")
                .expect("the stream goes on");
            for response in frame.responses {
                let at = (response.id - first) as usize;
                answers[at] = Some(pipe::answer(response.result).expect("well formed"));
            }
        }
        answers.into_iter().flatten().collect()
    }

    /// Writes until it is done; refusals that say "nothing was done" are tried again.
    pub(crate) async fn write(&mut self, key: &str, op: WriteOp) -> Outcome {
        for _ in 0..1000 {
            match self.call(vec![write(key, op.clone())]).await.remove(0) {
                Answer::Outcome(outcome) => return outcome,
                Answer::Refused(refusal) if !refusal.indefinite => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                other => panic!("{key}: {other:?}"),
            }
        }
        panic!("{key}: refused again and again");
    }

    pub(crate) async fn put(&mut self, key: &str, value: &str) -> Outcome {
        let value = Bytes::copy_from_slice(value.as_bytes());
        self.write(key, WriteOp::Put { value }).await
    }

    /// Reads until there is an answer.
    pub(crate) async fn get(&mut self, key: &str) -> Option<String> {
        for _ in 0..1000 {
            match self.call(vec![get(key)]).await.remove(0) {
                Answer::Row { row, .. } => {
                    return Some(String::from_utf8_lossy(&row.value).into_owned());
                }
                Answer::Absent { .. } => return None,
                Answer::Refused(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                other => panic!("{key}: {other:?}"),
            }
        }
        panic!("{key}: refused again and again");
    }
}

pub(crate) fn write(key: &str, op: WriteOp) -> CallBody {
    CallBody::Command {
        request: None,
        command: Command::Write {
            key: Bytes::copy_from_slice(key.as_bytes()),
            op,
        },
    }
}

pub(crate) fn get(key: &str) -> CallBody {
    CallBody::Get {
        key: Bytes::copy_from_slice(key.as_bytes()),
        stale: None,
    }
}
