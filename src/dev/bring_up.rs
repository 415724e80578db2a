//! Brings a cluster up: waits until it can serve, and plays the master's part where there is none.
//!
//! A new shard begins in a `creating` epoch (rule C4). Once every member has
//! reported in sync there, the next config says `serving`: the masters see to
//! that; without them it is written here, to the snapshot store, where every node
//! looks for news. A cluster that was there before serves without its masters.

use std::time::Duration;

use catena_client::Told;
use catena_master::bootstrap;
use catena_proto::config::{ChainConfig, ChainPhase, ClusterConfig};
use catena_proto::wire;

use super::layout::{ClusterFile, Layout};
use super::store;
use crate::exit::Failure;
use crate::output::note;

/// Pause between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long one node's answer is waited for.
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the masters of a cluster that serves already may take to elect a leader before it is announced without.
const LEADER_GRACE: Duration = Duration::from_secs(3);
/// After this long, and again each time, the user is told what is waited for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Returns when every member of every chain serves.
pub(crate) async fn until_serving(layout: &Layout, config: ClusterConfig) -> Result<(), Failure> {
    let mut config = config;
    if config
        .chains
        .values()
        .any(|chain| chain.phase == ChainPhase::Creating)
    {
        until(&config, unsynced).await;
        if let Some(next) = bootstrap::serving(&config) {
            store::write(layout, &next).await?;
            config = next;
        }
    }
    until(&config, not_serving).await;
    Ok(())
}

/// Returns when every chain that there is serves, and a new cluster has all its processes.
///
/// A cluster that was there before does not need its masters for that; they are
/// given [`LEADER_GRACE`], so that whoever looks next finds them at work.
pub(crate) async fn under_masters(cluster: &ClusterFile) {
    let new = cluster.to_bootstrap.is_some();
    wait(async || {
        if new && let Some(obstacle) = no_leader(cluster).await {
            return Some(obstacle);
        }
        let answers = ask(cluster.nodes.iter().map(|node| node.addr.to_string())).await;
        if new && answers.len() < cluster.nodes.len() {
            return Some(format!(
                "{} of {} nodes answer",
                answers.len(),
                cluster.nodes.len()
            ));
        }
        obstacle_in_newest(&answers)
    })
    .await;
    let leader = wait(async || no_leader(cluster).await);
    // Without one, the cluster serves all the same.
    let _ = tokio::time::timeout(LEADER_GRACE, leader).await;
}

/// Why the masters cannot change anything yet.
async fn no_leader(cluster: &ClusterFile) -> Option<String> {
    let mut asked = tokio::task::JoinSet::new();
    for master in &cluster.masters {
        let addr = master.addr.to_string();
        asked.spawn(async move { catena_client::status_at(&addr, ASK_TIMEOUT).await });
    }
    let (mut answered, mut leads) = (0, false);
    while let Some(answer) = asked.join_next().await {
        if let Ok(Ok(Told::Master(status))) = answer {
            answered += 1;
            leads |= status.role == "leader";
        }
    }
    if answered < cluster.masters.len() {
        let all = cluster.masters.len();
        return Some(format!("{answered} of {all} masters answer"));
    }
    (!leads).then(|| "the masters have no leader".into())
}

/// What keeps a chain of the newest config that any node holds from serving.
fn obstacle_in_newest(answers: &[wire::NodeStatusResponse]) -> Option<String> {
    let position =
        |c: &wire::ClusterConfig| c.position.map_or((0, 0), |p| (p.generation, p.version));
    let held = answers.iter().filter_map(|answer| answer.config.as_ref());
    let newest = held.max_by_key(|c| position(c)).cloned();
    let config = newest.and_then(|config| ClusterConfig::try_from(config).ok());
    let Some(config) = config.filter(|config| !config.chains.is_empty()) else {
        return Some("no node knows of any chain yet".into());
    };
    let creating = |chain: &&ChainConfig| chain.phase == ChainPhase::Creating;
    if let Some(chain) = config.chains.values().find(creating) {
        return Some(format!("shard {} is being created", chain.shard));
    }
    first_obstacle(&config, answers, not_serving)
}

/// What keeps one member of a chain from being where it should be; `None` if nothing does.
type Obstacle = fn(&ChainConfig, &wire::ReplicaStatus) -> Option<String>;

/// Looks again and again until no member of any chain has an obstacle.
async fn until(config: &ClusterConfig, obstacle: Obstacle) {
    wait(async || {
        let answers = ask(config.nodes.values().map(|node| node.addr.clone())).await;
        first_obstacle(config, &answers, obstacle)
    })
    .await;
}

/// Looks again and again until there is no obstacle, and tells the user of one that stays.
async fn wait(look: impl AsyncFn() -> Option<String>) {
    let mut told = tokio::time::Instant::now();
    loop {
        let Some(found) = look().await else {
            return;
        };
        if told.elapsed() >= TELL_EVERY {
            told = tokio::time::Instant::now();
            note(&format!("still waiting: {found}\n"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn ask(nodes: impl Iterator<Item = String>) -> Vec<wire::NodeStatusResponse> {
    let mut asked = tokio::task::JoinSet::new();
    for addr in nodes {
        asked.spawn(async move { catena_client::node_status_at(&addr, ASK_TIMEOUT).await });
    }
    let mut answers = Vec::new();
    while let Some(asked) = asked.join_next().await {
        answers.extend(asked.ok().and_then(Result::ok));
    }
    answers
}

fn first_obstacle(
    config: &ClusterConfig,
    answers: &[wire::NodeStatusResponse],
    obstacle: Obstacle,
) -> Option<String> {
    for chain in config.chains.values() {
        for member in &chain.members {
            let answer = answers
                .iter()
                .find(|answer| answer.node_id == member.node.get());
            let Some(answer) = answer else {
                return Some(format!("node {} does not answer", member.node));
            };
            let replica = answer.replicas.iter().find(|replica| {
                replica
                    .chain
                    .as_ref()
                    .is_some_and(|c| c.shard_id == chain.shard.get())
            });
            let found = match replica {
                None => Some("it does not hold the shard yet".into()),
                Some(replica) => obstacle(chain, replica),
            };
            if let Some(found) = found {
                return Some(format!(
                    "node {}, shard {}: {found}",
                    member.node, chain.shard
                ));
            }
        }
    }
    None
}

fn unsynced(chain: &ChainConfig, replica: &wire::ReplicaStatus) -> Option<String> {
    let epoch = replica.chain.as_ref().map_or(0, |c| c.epoch);
    if epoch < chain.epoch.get() {
        return Some(format!(
            "it is in epoch {epoch}, the chain in {}",
            chain.epoch
        ));
    }
    (!replica.in_sync).then(|| format!("it is not in sync: {}", replica.why))
}

fn not_serving(chain: &ChainConfig, replica: &wire::ReplicaStatus) -> Option<String> {
    unsynced(chain, replica).or_else(|| {
        (!replica.serving_reads).then(|| format!("it serves no reads: {}", replica.why))
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use catena_proto::config::{NodeInfo, Settings};
    use catena_proto::ids::{ClusterId, DiskId, NodeId};

    use super::*;

    fn config() -> ClusterConfig {
        let node = |id: u64| NodeInfo {
            node: NodeId::new(id),
            disk: DiskId::new(u128::from(id)),
            addr: format!("127.0.0.1:{id}"),
            http: String::new(),
            zone: String::new(),
        };
        bootstrap::creating(bootstrap::Plan {
            cluster: ClusterId::new(1),
            nodes: vec![node(1), node(2)],
            split_keys: vec![Bytes::from("m")],
            replicas: 2,
            settings: Settings::default(),
        })
        .expect("a valid plan")
    }

    /// Both nodes, in sync in `epoch` of both shards.
    fn answers(epoch: u64) -> Vec<wire::NodeStatusResponse> {
        let replica = |shard_id| wire::ReplicaStatus {
            chain: Some(wire::ChainConfig {
                shard_id,
                epoch,
                ..Default::default()
            }),
            in_sync: true,
            ..Default::default()
        };
        let node = |node_id| wire::NodeStatusResponse {
            node_id,
            replicas: vec![replica(1), replica(2)],
            ..Default::default()
        };
        vec![node(1), node(2)]
    }

    #[test]
    fn every_member_of_every_chain_has_to_be_in_sync_in_the_right_epoch() {
        let config = config();
        let obstacle =
            |answers: &[wire::NodeStatusResponse]| first_obstacle(&config, answers, unsynced);
        assert_eq!(obstacle(&answers(1)), None);
        assert!(obstacle(&answers(0)).is_some_and(|why| why.contains("epoch 0")));

        let mut one_missing = answers(1);
        one_missing.pop();
        assert_eq!(
            obstacle(&one_missing),
            Some("node 2 does not answer".into())
        );

        let mut one_behind = answers(1);
        one_behind[1].replicas[1].in_sync = false;
        assert!(obstacle(&one_behind).is_some_and(|why| why.starts_with("node 2, shard 2")));

        let mut one_without = answers(1);
        one_without[0].replicas.pop();
        assert!(obstacle(&one_without).is_some_and(|why| why.contains("does not hold")));
    }

    #[test]
    fn in_sync_is_not_yet_serving() {
        let config = config();
        let mut answers = answers(1);
        assert!(first_obstacle(&config, &answers, not_serving).is_some());
        for replica in answers.iter_mut().flat_map(|a| &mut a.replicas) {
            replica.serving_reads = true;
        }
        assert_eq!(first_obstacle(&config, &answers, not_serving), None);
    }
}
