//! What the picture says about a healthy cluster and about each thing that can be wrong with it.

use catena_proto::ids::ClusterId;
use catena_proto::wire;

use super::super::gather::NodeSeen;
use super::*;

const SERVING: i32 = wire::ChainPhase::Serving as i32;

fn chain(epoch: u64, nodes: &[u64]) -> wire::ChainConfig {
    let member = |node: &u64| wire::Member {
        node_id: *node,
        disk_id: vec![0; 16].into(),
        joined_epoch: 1,
    };
    wire::ChainConfig {
        shard_id: 1,
        epoch,
        phase: SERVING,
        members: nodes.iter().map(member).collect(),
        ..Default::default()
    }
}

fn status(node_id: u64, chain: &wire::ChainConfig) -> wire::NodeStatusResponse {
    wire::NodeStatusResponse {
        node_id,
        disk_id: vec![0; 16].into(),
        incarnation: 9,
        config_source: "disk".into(),
        config: Some(wire::ClusterConfig {
            position: Some(wire::ConfigPosition {
                generation: 1,
                version: 2,
            }),
            chains: vec![chain.clone()],
            ..Default::default()
        }),
        replicas: vec![wire::ReplicaStatus {
            chain: Some(chain.clone()),
            in_sync: true,
            synced: true,
            serving_reads: true,
            last_seq: 5,
            commit_seq: 5,
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// Three nodes that agree on one chain.
fn healthy() -> Seen {
    let chain = chain(2, &[1, 2, 3]);
    let node = |id: u64| NodeSeen {
        info: wire::NodeInfo {
            node_id: id,
            addr: format!("h:{id}"),
            ..Default::default()
        },
        status: Ok(status(id, &chain)),
    };
    Seen {
        cluster: ClusterId::new(7),
        config: status(1, &chain).config.expect("a config"),
        nodes: (1..=3).map(|id| (id, node(id))).collect(),
        masters: BTreeMap::new(),
    }
}

fn answer(seen: &mut Seen, node: u64) -> &mut wire::NodeStatusResponse {
    let node = seen.nodes.get_mut(&node).expect("a node");
    node.status.as_mut().expect("an answer")
}

fn state_and_why(seen: &Seen) -> (&'static str, String) {
    let drawn = picture(seen);
    (drawn.chains[0].state, drawn.chains[0].why.clone())
}

#[test]
fn a_healthy_cluster_in_the_very_fields_that_scripts_count_on() {
    let json = serde_json::to_value(picture(&healthy())).expect("json");
    assert_eq!(json["cluster_id"], "00000000000000000000000000000007");
    assert_eq!(json["config_version"], 2);
    assert_eq!(json["control_plane"], "unreachable");
    assert_eq!(json["masters"], serde_json::json!([]));
    assert_eq!(
        json["nodes"][0],
        serde_json::json!({
            "id": 1, "addr": "h:1", "incarnation": 9, "state": "up", "zone": "",
            "sent_version": 0, "acked_version": 2, "effective_version": 2,
            "config_source": "disk", "why": "",
        })
    );
    assert_eq!(
        json["chains"][0],
        serde_json::json!({
            "shard": 1, "start": "", "end": null, "epoch": 2, "state": "healthy",
            "members": [
                {"node": 1, "role": "head", "in_sync": true, "last_seq": 5, "commit_seq": 5},
                {"node": 2, "role": "middle", "in_sync": true, "last_seq": 5, "commit_seq": 5},
                {"node": 3, "role": "tail", "in_sync": true, "last_seq": 5, "commit_seq": 5},
            ],
            "learners": [], "why": "",
        })
    );
    assert_eq!(json["alarms"], serde_json::json!([]));
}

#[test]
fn a_node_that_is_down_blocks_its_chain_and_is_named() {
    let mut seen = healthy();
    seen.nodes.get_mut(&2).expect("node 2").status = Err("connection refused".into());
    let (state, why) = state_and_why(&seen);
    assert_eq!(state, "blocked");
    assert!(why.contains("node 2 (middle)"), "{why}");
    let json = serde_json::to_value(picture(&seen)).expect("json");
    assert_eq!(json["nodes"][1]["state"], "down");
    assert_eq!(json["nodes"][1]["why"], "connection refused");
    assert_eq!(
        json["chains"][0]["members"][1]["last_seq"],
        serde_json::Value::Null
    );
}

#[test]
fn the_gravest_reason_comes_first() {
    let mut seen = healthy();
    let replica = &mut answer(&mut seen, 3).replicas[0];
    (replica.in_sync, replica.why) = (false, "its log ends below the barrier".into());
    assert_eq!(state_and_why(&seen).0, "degraded");

    answer(&mut seen, 1).replicas[0].chain = Some(chain(3, &[1, 2, 3]));
    let (state, why) = state_and_why(&seen);
    assert_eq!(state, "reconfiguring");
    assert!(why.contains("the chain in 3"), "{why}");

    answer(&mut seen, 2).replicas[0].fenced = true;
    assert_eq!(state_and_why(&seen).0, "blocked");
}

#[test]
fn a_config_is_effective_only_when_each_replica_it_names_is_in_its_epoch() {
    let mut seen = healthy();
    answer(&mut seen, 1)
        .config
        .as_mut()
        .expect("a config")
        .chains[0]
        .epoch = 3;
    let json = serde_json::to_value(picture(&seen)).expect("json");
    assert_eq!(json["nodes"][0]["acked_version"], 2);
    assert_eq!(
        json["nodes"][0]["effective_version"],
        serde_json::Value::Null
    );
}

#[test]
fn a_chain_that_is_being_created_is_no_healthy_one() {
    let mut seen = healthy();
    let creating = wire::ChainConfig {
        phase: wire::ChainPhase::Creating as i32,
        ..chain(2, &[1, 2, 3])
    };
    for id in 1..=3 {
        answer(&mut seen, id).replicas[0].chain = Some(creating.clone());
    }
    seen.config.chains = vec![creating];
    assert_eq!(state_and_why(&seen).0, "reconfiguring");
}
