//! Nodes in this process, and the states that a master would lead them through.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use catena_chainnode::engine::EngineKind;
use catena_chainnode::runtime::{Node, NodeConfig, RunningNode, folder};
use catena_proto::config::{
    ChainConfig, ChainPhase, ClusterConfig, ConfigPosition, Delta, DeltaItem, KeyRange, Member,
    NodeInfo,
};
use catena_proto::ids::{ClusterId, ConfigVersion, DiskId, Epoch, Generation, NodeId, ShardId};
use catena_proto::{snapshot, wire};

pub(crate) const CLUSTER: ClusterId = ClusterId::new(0xca7);
pub(crate) const SHARD: ShardId = ShardId::new(1);
/// Generous: a condition that does not come about in this time never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const fn at(version: u64) -> ConfigPosition {
    ConfigPosition {
        generation: Generation::new(1),
        version: ConfigVersion::new(version),
    }
}

/// Formatted folders for some nodes, and the nodes that run on them.
pub(crate) struct Nodes {
    dir: tempfile::TempDir,
    disks: Vec<DiskId>,
    addrs: Vec<(SocketAddr, SocketAddr)>,
    running: Vec<Option<RunningNode>>,
    /// The masters that nodes are started with.
    pub(crate) masters: Vec<SocketAddr>,
    pub(crate) with_store: bool,
}

impl Nodes {
    pub(crate) fn new(count: u64) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("store")).expect("the store");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let format = |n| {
            let folder = dir.path().join(format!("node-{n}"));
            folder::format(&folder, CLUSTER, NodeId::new(n)).expect("formatted")
        };
        Self {
            disks: (1..=count).map(format).collect(),
            addrs: (0..count).map(|_| (any, any)).collect(),
            running: (0..count).map(|_| None).collect(),
            dir,
            masters: Vec::new(),
            with_store: false,
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Starts a node on its folder and at its address.
    pub(crate) async fn start(&mut self, n: u64) {
        let at = n as usize - 1;
        let (listen, http) = self.addrs[at];
        let node = Node::start(NodeConfig {
            cluster: CLUSTER,
            node: NodeId::new(n),
            dir: self.dir.path().join(format!("node-{n}")),
            listen,
            http,
            advertise: None,
            http_advertise: None,
            zone: format!("zone-{n}"),
            masters: self.masters.iter().map(ToString::to_string).collect(),
            snapshot_store: (self.with_store).then(|| format!("file://{}", self.store().display())),
            engine: EngineKind::Memory,
            version: "test",
        });
        let node = node.await.expect("started");
        self.addrs[at] = (node.addr, node.http);
        self.running[at] = Some(node);
    }

    pub(crate) async fn stop(&mut self, n: u64) {
        let node = self.running[n as usize - 1].take().expect("it runs");
        node.shutdown().await;
    }

    pub(crate) fn addr(&self, n: u64) -> SocketAddr {
        self.addrs[n as usize - 1].0
    }

    #[cfg(feature = "testing")]
    pub(crate) fn http(&self, n: u64) -> SocketAddr {
        self.addrs[n as usize - 1].1
    }

    pub(crate) fn disk(&self, n: u64) -> DiskId {
        self.disks[n as usize - 1]
    }

    pub(crate) fn info(&self, n: u64) -> NodeInfo {
        let (addr, http) = self.addrs[n as usize - 1];
        NodeInfo {
            node: NodeId::new(n),
            disk: self.disk(n),
            addr: addr.to_string(),
            http: http.to_string(),
            zone: format!("zone-{n}"),
        }
    }

    /// A chain of these nodes over the whole key space; serving from epoch 2 on.
    pub(crate) fn chain(&self, members: &[u64], epoch: u64) -> ChainConfig {
        let member = |n: &u64| Member {
            node: NodeId::new(*n),
            disk: self.disk(*n),
            joined_epoch: Epoch::new(1),
        };
        ChainConfig {
            shard: SHARD,
            epoch: Epoch::new(epoch),
            range: KeyRange::all(),
            phase: match epoch {
                1 => ChainPhase::Creating,
                _ => ChainPhase::Serving,
            },
            recovered: Epoch::ZERO,
            members: members.iter().map(member).collect(),
        }
    }

    /// The state at this version: all nodes, and a chain of these members in this epoch.
    pub(crate) fn state(&self, version: u64, members: &[u64], epoch: u64) -> ClusterConfig {
        let mut config = ClusterConfig::empty(CLUSTER);
        config.position = at(version);
        for n in 1..=self.disks.len() as u64 {
            if self.addr(n).port() != 0 {
                config.nodes.insert(NodeId::new(n), self.info(n));
            }
        }
        config.chains.insert(SHARD, self.chain(members, epoch));
        config
    }

    /// The first delta: from nothing to this state.
    pub(crate) fn first_delta(&self, state: &ClusterConfig) -> Delta {
        ClusterConfig::empty(CLUSTER).delta_to(state)
    }

    /// Puts a state into the snapshot store.
    pub(crate) fn publish(&self, state: &ClusterConfig) {
        let beside = self.store().join("beside");
        std::fs::write(&beside, snapshot::encode(state)).expect("written");
        let name = snapshot::name(state.position);
        std::fs::rename(beside, self.store().join(name)).expect("renamed");
    }

    /// What a node says of itself; `None` while it does not answer.
    pub(crate) async fn status(&self, n: u64) -> Option<wire::NodeStatusResponse> {
        let addr = format!("http://{}", self.addr(n));
        let endpoint = tonic::transport::Endpoint::from_shared(addr).expect("an address");
        let channel = endpoint.connect().await.ok()?;
        let mut admin = wire::admin_client::AdminClient::new(channel);
        let status = admin.node_status(wire::NodeStatusRequest::default()).await;
        Some(status.ok()?.into_inner())
    }

    /// Waits until a node says what is wanted.
    pub(crate) async fn until(
        &self,
        n: u64,
        wanted: impl Fn(&wire::NodeStatusResponse) -> bool,
    ) -> wire::NodeStatusResponse {
        let asked = async {
            loop {
                if let Some(status) = self.status(n).await.filter(&wanted) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, asked).await;
        found.unwrap_or_else(|_| panic!("node {n} is not as wanted"))
    }
}

/// The version of the state that a node holds.
pub(crate) fn version(status: &wire::NodeStatusResponse) -> u64 {
    let position = status.config.as_ref().and_then(|c| c.position);
    position.map_or(0, |p| p.version)
}

/// A delta between two versions.
pub(crate) fn delta(base: u64, to: u64, items: Vec<DeltaItem>) -> Delta {
    Delta {
        cluster: CLUSTER,
        base: if base == 0 {
            ConfigPosition::default()
        } else {
            at(base)
        },
        to: at(to),
        items,
    }
}
