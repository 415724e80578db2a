//! Asks everybody: first the endpoints that were given, then every node and master that any of them knows.
//!
//! No process has to be up for another one's answer, and none is waited for longer
//! than [`ASK_TIMEOUT`], so that the picture is drawn also when much is down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_client::{Masters, Told};
use catena_proto::ids::ClusterId;
use catena_proto::wire;
use tokio::task::JoinSet;

use crate::cli::Global;
use crate::exit::{Exit, Failure};

/// How long one process is waited for. Loopback and a data centre answer in a millisecond; a dead host costs this once.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Processes asked at the same time, so that a large cluster costs a bounded number of sockets.
const ASKED_AT_ONCE_MAX: usize = 64;
/// Masters believed to be named by one process; more are nonsense (a cluster has 3 or 5).
const MASTERS_NAMED_MAX: usize = 16;

/// What is known about one node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSeen {
    /// As the newest config has it.
    pub(crate) info: wire::NodeInfo,
    /// Its own words, or why there are none.
    pub(crate) status: Result<wire::NodeStatusResponse, String>,
}

/// What is known about one master.
#[derive(Clone, Debug)]
pub(crate) struct MasterSeen {
    /// Its gRPC address.
    pub(crate) addr: String,
    /// Its own words, or why there are none.
    pub(crate) status: Result<wire::MasterStatusResponse, String>,
}

/// What everybody said.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The cluster that all of them belong to.
    pub(crate) cluster: ClusterId,
    /// The newest config that any of them holds.
    pub(crate) config: wire::ClusterConfig,
    /// By id.
    pub(crate) nodes: BTreeMap<u64, NodeSeen>,
    /// By id; none in a cluster that has none, or whose processes do not tell.
    pub(crate) masters: BTreeMap<u64, MasterSeen>,
}

impl Seen {
    /// The master that leads, if it answers and a majority with it: alone, it could change nothing, and what it
    /// says of the nodes may be long past.
    pub(crate) fn leader(&self) -> Option<&wire::MasterStatusResponse> {
        let answers = || {
            let masters = self.masters.values();
            masters.filter_map(|master| master.status.as_ref().ok())
        };
        let leader = answers()
            .filter(|answer| answer.role == "leader")
            .max_by_key(|answer| answer.term)?;
        let agree = answers()
            .filter(|answer| answer.term <= leader.term)
            .count();
        (2 * agree > self.masters.len()).then_some(leader)
    }

    /// How to ask for changes: the leader first, then whoever else may know.
    pub(crate) fn to_masters(&self) -> Masters {
        let leader = self.leader().map(|leader| leader.master_id);
        let mut order: Vec<_> = self.masters.iter().collect();
        order.sort_by_key(|(id, master)| (Some(**id) != leader, master.status.is_err()));
        let addrs = order.into_iter().map(|(_, master)| master.addr.clone());
        Masters::new(addrs.collect(), self.cluster)
    }
}

type Answers = BTreeMap<String, Result<Told, String>>;

/// Asks every process that can be found from the endpoints.
pub(crate) async fn gather(global: &Global) -> Result<Seen, Failure> {
    let timeout = global.timeout.min(ASK_TIMEOUT);
    let mut answers = Answers::new();
    let mut next: BTreeSet<String> = global.endpoints()?.into_iter().collect();
    // One may know others that the first ones do not: go on until nobody is new.
    while !next.is_empty() {
        ask(next, timeout, &mut answers).await;
        let known = answers.values().flatten().flat_map(named_by);
        next = known.filter(|addr| !answers.contains_key(addr)).collect();
    }
    assemble(answers)
}

/// Every address that an answer names.
fn named_by(told: &Told) -> Vec<String> {
    let (config, masters): (_, Vec<String>) = match told {
        Told::Node(node) => (&node.config, node.masters.clone()),
        Told::Master(master) => {
            let masters = master.masters.iter().map(|info| info.addr.clone());
            (&master.config, masters.collect())
        }
    };
    let nodes = config.iter().flat_map(|c| &c.nodes).map(|n| n.addr.clone());
    nodes
        .chain(masters.into_iter().take(MASTERS_NAMED_MAX))
        .filter(|addr| !addr.is_empty())
        .collect()
}

async fn ask(addresses: BTreeSet<String>, timeout: Duration, answers: &mut Answers) {
    let mut under_way = JoinSet::new();
    let mut waiting = addresses.into_iter();
    loop {
        while under_way.len() < ASKED_AT_ONCE_MAX
            && let Some(addr) = waiting.next()
        {
            // A task that panics has no answer; its process shows as one that gave none.
            answers.insert(addr.clone(), Err("it was not asked".into()));
            under_way.spawn(async move {
                let answer = catena_client::status_at(&addr, timeout).await;
                let answer = answer.map_err(|error| reason(&addr, &error));
                (addr, answer)
            });
        }
        match under_way.join_next().await {
            None => return,
            Some(Ok((addr, answer))) => {
                answers.insert(addr, answer);
            }
            Some(Err(_)) => {}
        }
    }
}

/// Why there is no answer, without what the picture says already.
fn reason(addr: &str, error: &catena_client::Error) -> String {
    match error.cause() {
        catena_client::Cause::Unreachable(words) => {
            let bare = words.strip_prefix(addr).and_then(|w| w.strip_prefix(": "));
            bare.unwrap_or(words).to_owned()
        }
        _ => error.to_string(),
    }
}

/// Puts the answers together; refuses to mix clusters.
fn assemble(answers: Answers) -> Result<Seen, Failure> {
    let cluster = one_cluster(&answers)?;
    let position =
        |c: &wire::ClusterConfig| c.position.map_or((0, 0), |p| (p.generation, p.version));
    let configs = answers.values().flatten().filter_map(|told| match told {
        Told::Node(node) => node.config.as_ref(),
        Told::Master(master) => master.config.as_ref(),
    });
    let config = configs
        .max_by_key(|c| position(c))
        .cloned()
        .unwrap_or_default();
    Ok(Seen {
        cluster,
        nodes: nodes(&config, &answers),
        masters: masters(&answers),
        config,
    })
}

fn one_cluster(answers: &Answers) -> Result<ClusterId, Failure> {
    let what = "asking the cluster";
    let mut cluster: Option<ClusterId> = None;
    for (addr, answer) in answers {
        let Ok(told) = answer else { continue };
        let named = match told {
            Told::Node(node) => &node.cluster_id,
            Told::Master(master) => &master.cluster_id,
        };
        let theirs = ClusterId::from_slice(named).map_err(|why| {
            Failure::new(
                Exit::Failed,
                "internal",
                what,
                format!("{addr}: {why}"),
                "look into that process's log",
            )
        })?;
        match cluster {
            Some(ours) if ours != theirs => {
                return Err(Failure::new(
                    Exit::Failed,
                    "foreign_cluster",
                    what,
                    format!("{addr} is of cluster {theirs}, others are of {ours}"),
                    "use the endpoints of one cluster only",
                ));
            }
            _ => cluster = Some(theirs),
        }
    }
    cluster.ok_or_else(|| {
        let said: Vec<String> = answers
            .iter()
            .map(|(addr, answer)| match answer {
                Err(why) => format!("{addr}: {why}"),
                Ok(_) => addr.clone(),
            })
            .collect();
        Failure {
            retryable: true,
            ..Failure::new(
                Exit::Unavailable,
                "unreachable",
                what,
                format!("no node or master answers ({})", said.join("; ")),
                "check the endpoints, and that a node or master listens there",
            )
        }
    })
}

fn nodes(config: &wire::ClusterConfig, answers: &Answers) -> BTreeMap<u64, NodeSeen> {
    let mut nodes = BTreeMap::new();
    for info in &config.nodes {
        // Another process may have taken the address over; its words are not this node's.
        let status = match answers.get(&info.addr) {
            None => Err("it was not asked".into()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(Told::Node(node))) if node.node_id == info.node_id => Ok((**node).clone()),
            Some(Ok(Told::Node(node))) => {
                Err(format!("node {} answers at its address", node.node_id))
            }
            Some(Ok(Told::Master(master))) => Err(format!(
                "master {} answers at its address",
                master.master_id
            )),
        };
        let info = info.clone();
        nodes.insert(info.node_id, NodeSeen { info, status });
    }
    // A node that no config names (any more) still belongs in the picture.
    for (addr, answer) in answers {
        if let Ok(Told::Node(status)) = answer {
            nodes.entry(status.node_id).or_insert_with(|| NodeSeen {
                info: wire::NodeInfo {
                    node_id: status.node_id,
                    addr: addr.clone(),
                    ..Default::default()
                },
                status: Ok((**status).clone()),
            });
        }
    }
    nodes
}

/// The masters as the one that has applied most names them; else as a node was started with them.
fn masters(answers: &Answers) -> BTreeMap<u64, MasterSeen> {
    let told = || answers.values().flatten();
    let of_masters = told().filter_map(|told| match told {
        Told::Master(master) if !master.masters.is_empty() => Some(master),
        _ => None,
    });
    let named: Vec<(u64, String)> = match of_masters.max_by_key(|master| master.applied) {
        Some(master) => {
            let infos = master.masters.iter();
            infos
                .map(|info| (info.master_id, info.addr.clone()))
                .collect()
        }
        None => {
            let of_nodes = told().filter_map(|told| match told {
                Told::Node(node) => Some(&node.masters),
                Told::Master(_) => None,
            });
            let longest = of_nodes.max_by_key(|list| list.len());
            (1..).zip(longest.cloned().unwrap_or_default()).collect()
        }
    };
    let mut masters = BTreeMap::new();
    for (id, addr) in named.into_iter().take(MASTERS_NAMED_MAX) {
        let status = match answers.get(&addr) {
            None => Err("it was not asked".into()),
            Some(Err(why)) => Err(why.clone()),
            Some(Ok(Told::Master(master))) if master.master_id == id => Ok((**master).clone()),
            Some(Ok(Told::Master(master))) => Err(format!(
                "master {} answers at its address",
                master.master_id
            )),
            Some(Ok(Told::Node(node))) => {
                Err(format!("node {} answers at its address", node.node_id))
            }
        };
        masters.insert(id, MasterSeen { addr, status });
    }
    for (addr, answer) in answers {
        if let Ok(Told::Master(status)) = answer {
            masters
                .entry(status.master_id)
                .or_insert_with(|| MasterSeen {
                    addr: addr.clone(),
                    status: Ok((**status).clone()),
                });
        }
    }
    masters
}

#[cfg(test)]
#[path = "gather_tests.rs"]
mod tests;
