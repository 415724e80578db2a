//! Makes a new local cluster, or takes the one that a folder holds.
//!
//! With masters, the masters make the cluster out of the nodes that register. A
//! cluster of nodes alone gets its first state written straight into the store.

use bytes::Bytes;
use catena_chainnode::runtime::folder;
use catena_master::bootstrap;
use catena_proto::config::{ClusterConfig, NodeInfo, Settings};
use catena_proto::ids::{ClusterId, DiskId, NodeId};

use super::layout::{BootstrapEntry, ClusterFile, Layout, NodeEntry};
use super::{Args, ports, randomness, store};
use crate::exit::Failure;
use crate::settings;

/// Masters of a new cluster, unless told otherwise.
const MASTERS_DEFAULT: u32 = 3;
/// Nodes of a new cluster, unless told otherwise.
const NODES_DEFAULT: u32 = 3;
/// Copies of each shard, unless told otherwise or there are fewer nodes.
const REPLICAS_DEFAULT: u32 = 3;

/// A cluster whose processes can be started.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its ids and addresses.
    pub(crate) cluster: ClusterFile,
    /// The state that the store holds, for a cluster that has nobody else to change it; `None` with masters.
    pub(crate) config: Option<ClusterConfig>,
}

/// Makes a new cluster: ids, ports, and what its first processes need.
pub(crate) async fn create(args: &Args, layout: &Layout) -> Result<Made, Failure> {
    let settings = settings::read(args.settings.as_deref())?;
    let masters = args.masters.unwrap_or(MASTERS_DEFAULT);
    let nodes = args.nodes.unwrap_or(NODES_DEFAULT);
    let replicas = args.replicas.unwrap_or_else(|| REPLICAS_DEFAULT.min(nodes));
    let cluster_id = randomness::cluster_id()?;
    let count = |n: u32| usize::try_from(n).unwrap_or(0);
    let addresses = ports::free(2 * (count(masters) + count(nodes)))?;
    let (of_masters, of_nodes) = addresses.split_at(2 * count(masters));
    let split_keys = split_keys(args)?;
    let entries = |addresses: &[std::net::SocketAddr]| {
        let pairs = addresses.chunks_exact(2).zip(1..);
        let entry = |(pair, id): (&[std::net::SocketAddr], u64)| NodeEntry {
            id,
            addr: pair[0],
            http: pair[1],
        };
        pairs.map(entry).collect::<Vec<_>>()
    };
    let mut cluster = ClusterFile {
        cluster_id,
        engine: args.engine.unwrap_or_default().to_string(),
        masters: entries(of_masters),
        nodes: entries(of_nodes),
        to_bootstrap: None,
    };
    let plan = plan(cluster_id, &cluster.nodes, &split_keys, replicas, settings);
    // Checked before anything is written.
    bootstrap::creating(plan.clone()).map_err(|why| no_plan(&why))?;
    if masters == 0 {
        let config = write_first_state(layout, plan).await?;
        layout.write_cluster(&cluster)?;
        return Ok(Made {
            cluster,
            config: Some(config),
        });
    }
    store::make(layout)?;
    if let Some(path) = &args.settings {
        // The command that starts a master again must not depend on a file that the user may move.
        std::fs::copy(path, layout.settings_file()).map_err(|why| {
            Failure::local(
                format!("copying {}", path.display()),
                why,
                "check that the cluster's folder can be written to",
            )
        })?;
    }
    cluster.to_bootstrap = Some(BootstrapEntry {
        replicas,
        split_keys,
        settings: args.settings.is_some(),
    });
    layout.write_cluster(&cluster)?;
    Ok(Made {
        cluster,
        config: None,
    })
}

fn plan(
    cluster: ClusterId,
    nodes: &[NodeEntry],
    split_keys: &[String],
    replicas: u32,
    settings: Settings,
) -> bootstrap::Plan {
    bootstrap::Plan {
        cluster,
        nodes: nodes.iter().map(node_info).collect(),
        split_keys: split_keys
            .iter()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()))
            .collect(),
        replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        settings,
    }
}

/// The part of masters that are not there: names the disks, and writes the state that nodes begin with.
async fn write_first_state(
    layout: &Layout,
    mut plan: bootstrap::Plan,
) -> Result<ClusterConfig, Failure> {
    for info in &mut plan.nodes {
        let dir = layout.node_dir(info.node.get());
        let disk = folder::format(&dir, plan.cluster, info.node);
        info.disk = disk.map_err(|why| {
            Failure::local(
                format!("making the folder of node {}", info.node),
                why,
                "name another folder with --dir",
            )
        })?;
    }
    let config = bootstrap::creating(plan).map_err(|why| no_plan(&why))?;
    store::write(layout, &config).await?;
    Ok(config)
}

fn node_info(entry: &NodeEntry) -> NodeInfo {
    NodeInfo {
        node: NodeId::new(entry.id),
        // Known once its folder is made.
        disk: DiskId::new(0),
        addr: entry.addr.to_string(),
        http: entry.http.to_string(),
        zone: String::new(),
    }
}

fn split_keys(args: &Args) -> Result<Vec<String>, Failure> {
    if let Some(keys) = &args.split_keys {
        return Ok(keys.clone());
    }
    let shards = usize::try_from(args.shards.unwrap_or(1)).unwrap_or(usize::MAX);
    let keys = bootstrap::even_split_keys(shards).map_err(|why| no_plan(&why))?;
    // Hex digits, all of them.
    let text = |key: &Bytes| String::from_utf8_lossy(key).into_owned();
    Ok(keys.iter().map(text).collect())
}

fn no_plan(why: &bootstrap::BootstrapError) -> Failure {
    Failure::usage(
        "planning the cluster",
        why.to_string(),
        "`catena dev --help` explains the flags",
    )
}

/// The cluster that the folder holds, unless the flags ask for another one.
pub(crate) async fn keep(
    args: &Args,
    layout: &Layout,
    cluster: ClusterFile,
) -> Result<Made, Failure> {
    let differs = |asked: Option<u32>, held: usize| {
        asked.is_some_and(|asked| usize::try_from(asked) != Ok(held))
    };
    let engine_differs = args
        .engine
        .is_some_and(|engine| engine.as_str() != cluster.engine);
    let flag = [
        ("--nodes", differs(args.nodes, cluster.nodes.len())),
        ("--masters", differs(args.masters, cluster.masters.len())),
        ("--engine", engine_differs),
        ("--shards", args.shards.is_some()),
        ("--split-keys", args.split_keys.is_some()),
        ("--replicas", args.replicas.is_some()),
        ("--settings", args.settings.is_some()),
    ];
    if let Some((flag, _)) = flag.iter().find(|(_, given)| *given) {
        return Err(Failure::usage(
            format!("{flag} with --dir {}", layout.dir().display()),
            "the folder holds a cluster already, and that is decided when a cluster is made",
            format!("leave {flag} away, or name a new folder"),
        ));
    }
    let config = if cluster.masters.is_empty() {
        Some(store::newest(layout, cluster.cluster_id).await?)
    } else {
        // Nodes start from their own disks; nothing here may depend on the store.
        store::make(layout)?;
        None
    };
    Ok(Made { cluster, config })
}
