//! Asks the nodes: first the endpoints that were given, then every node that any of them knows.
//!
//! No node has to be up for another one's answer, and none is waited for longer
//! than [`ASK_TIMEOUT`], so that the picture is drawn also when much is down.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_proto::ids::ClusterId;
use catena_proto::wire;
use tokio::task::JoinSet;

use crate::cli::Global;
use crate::exit::{Exit, Failure};

/// How long one node is waited for. Loopback and a data centre answer in a millisecond; a dead host costs this once.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Nodes asked at the same time, so that a large cluster costs a bounded number of sockets.
const ASKED_AT_ONCE_MAX: usize = 64;

/// What is known about one node.
#[derive(Clone, Debug)]
pub(crate) struct NodeSeen {
    /// As the newest config has it.
    pub(crate) info: wire::NodeInfo,
    /// Its own words, or why there are none.
    pub(crate) status: Result<wire::NodeStatusResponse, String>,
}

/// What the nodes said.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The cluster that all of them belong to.
    pub(crate) cluster: ClusterId,
    /// The newest config that any of them holds.
    pub(crate) config: wire::ClusterConfig,
    /// By id.
    pub(crate) nodes: BTreeMap<u64, NodeSeen>,
}

type Answers = BTreeMap<String, Result<wire::NodeStatusResponse, String>>;

/// Asks every node that can be found from the endpoints.
pub(crate) async fn gather(global: &Global) -> Result<Seen, Failure> {
    let timeout = global.timeout.min(ASK_TIMEOUT);
    let mut answers = Answers::new();
    ask(
        global.endpoints()?.into_iter().collect(),
        timeout,
        &mut answers,
    )
    .await;
    // A node may know others that the first ones do not: go on until nobody is new.
    loop {
        let known = answers.values().flatten().filter_map(|a| a.config.as_ref());
        let addresses = known.flat_map(|c| &c.nodes).map(|n| n.addr.clone());
        let new: BTreeSet<String> = addresses
            .filter(|addr| !answers.contains_key(addr))
            .collect();
        if new.is_empty() {
            break;
        }
        ask(new, timeout, &mut answers).await;
    }
    assemble(answers)
}

async fn ask(addresses: BTreeSet<String>, timeout: Duration, answers: &mut Answers) {
    let mut under_way = JoinSet::new();
    let mut waiting = addresses.into_iter();
    loop {
        while under_way.len() < ASKED_AT_ONCE_MAX
            && let Some(addr) = waiting.next()
        {
            under_way.spawn(async move {
                let answer = catena_client::node_status_at(&addr, timeout).await;
                (addr, answer.map_err(|error| error.to_string()))
            });
        }
        match under_way.join_next().await {
            None => return,
            Some(Ok((addr, answer))) => {
                answers.insert(addr, answer);
            }
            // A task that panicked has no answer; its node shows as one that gave none.
            Some(Err(_)) => {}
        }
    }
}

/// Puts the answers together; refuses to mix clusters.
fn assemble(answers: Answers) -> Result<Seen, Failure> {
    let what = "asking the cluster";
    let mut cluster: Option<ClusterId> = None;
    for (addr, answer) in &answers {
        let Ok(status) = answer else { continue };
        let theirs = ClusterId::from_slice(&status.cluster_id).map_err(|why| {
            Failure::new(
                Exit::Failed,
                "internal",
                what,
                format!("{addr}: {why}"),
                "look into that node's log",
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
    let Some(cluster) = cluster else {
        let said: Vec<String> = answers
            .iter()
            .map(|(addr, answer)| match answer {
                Err(why) => format!("{addr}: {why}"),
                Ok(_) => addr.clone(),
            })
            .collect();
        return Err(Failure {
            retryable: true,
            ..Failure::new(
                Exit::Unavailable,
                "unreachable",
                what,
                format!("no node answers ({})", said.join("; ")),
                "check the endpoints, and that a node listens there",
            )
        });
    };
    let position =
        |c: &wire::ClusterConfig| c.position.map_or((0, 0), |p| (p.generation, p.version));
    let configs = answers.values().flatten().filter_map(|a| a.config.as_ref());
    let config = configs
        .max_by_key(|c| position(c))
        .cloned()
        .unwrap_or_default();

    let mut nodes = BTreeMap::new();
    for info in &config.nodes {
        let status = answers.get(&info.addr).cloned();
        let status = status.unwrap_or_else(|| Err("it was not asked".into()));
        // Another node may have taken the address over; its words are not this node's.
        let status = status.and_then(|s| {
            if s.node_id == info.node_id {
                Ok(s)
            } else {
                Err(format!("node {} answers at its address", s.node_id))
            }
        });
        nodes.insert(
            info.node_id,
            NodeSeen {
                info: info.clone(),
                status,
            },
        );
    }
    // A node that no config names (any more) still belongs in the picture.
    for (addr, answer) in answers {
        if let Ok(status) = answer {
            nodes.entry(status.node_id).or_insert_with(|| NodeSeen {
                info: wire::NodeInfo {
                    node_id: status.node_id,
                    addr,
                    ..Default::default()
                },
                status: Ok(status),
            });
        }
    }
    Ok(Seen {
        cluster,
        config,
        nodes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(cluster: u128, node_id: u64, version: u64) -> wire::NodeStatusResponse {
        let info = |id: u64| wire::NodeInfo {
            node_id: id,
            addr: format!("h:{id}"),
            ..Default::default()
        };
        wire::NodeStatusResponse {
            cluster_id: ClusterId::new(cluster).to_bytes().to_vec().into(),
            node_id,
            config: Some(wire::ClusterConfig {
                position: Some(wire::ConfigPosition {
                    generation: 1,
                    version,
                }),
                nodes: vec![info(1), info(2)],
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_config_counts_and_a_silent_node_stays_in_the_picture() {
        let answers = Answers::from([
            ("h:1".into(), Ok(answer(7, 1, 3))),
            ("h:2".into(), Err("refused".into())),
            ("h:9".into(), Ok(answer(7, 9, 2))),
        ]);
        let seen = assemble(answers).expect("one cluster");
        assert_eq!(seen.config.position.expect("a position").version, 3);
        let up: Vec<(u64, bool)> = seen
            .nodes
            .iter()
            .map(|(id, n)| (*id, n.status.is_ok()))
            .collect();
        assert_eq!(up, [(1, true), (2, false), (9, true)]);
    }

    #[test]
    fn two_clusters_are_never_mixed() {
        let answers = Answers::from([
            ("h:1".into(), Ok(answer(7, 1, 3))),
            ("h:2".into(), Ok(answer(8, 2, 3))),
        ]);
        assert_eq!(
            assemble(answers).expect_err("two clusters").code,
            "foreign_cluster"
        );
    }

    #[test]
    fn nobody_at_all_is_unavailable() {
        let answers = Answers::from([("h:1".into(), Err("refused".into()))]);
        assert_eq!(assemble(answers).expect_err("nobody").status, 5);
    }
}
