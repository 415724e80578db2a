//! What a master answers to one that is not a fellow of its own.

use bytes::Bytes;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::ClusterId;
use catena_proto::wire::RaftRequest;
use catena_proto::wire::raft_client::RaftClient;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::kit::{CLUSTER, Masters, master};

fn client_of(addr: &str) -> RaftClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address");
    RaftClient::new(endpoint.connect_lazy())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_a_mislead_and_a_garbled_message_change_nothing() {
    let mut masters = Masters::start(1).await;
    masters.leader().await;
    let addr = masters.config(master(1), false).masters[&master(1)]
        .addr
        .clone();
    let mut client = client_of(&addr);
    let message = |cluster: ClusterId, to: u64, payload: &'static [u8]| RaftRequest {
        cluster_id: Bytes::copy_from_slice(&cluster.to_bytes()),
        from_master_id: 2,
        to_master_id: to,
        payload: Bytes::from_static(payload),
    };
    let term = masters.raft(master(1)).metrics().term;
    // A vote that would be granted, if it came from a fellow.
    let vote = br#"{"vote":{"leader_id":{"term":99,"node_id":2},"committed":false},"last_log_id":{"leader_id":{"term":98,"node_id":2},"index":1000}}"#;

    let foreign = client.vote(message(ClusterId::new(1), 1, vote)).await;
    let foreign = foreign.expect_err("refused");
    assert_eq!(foreign.code(), Code::FailedPrecondition);
    let refusal = Refusal::from_status(&foreign);
    assert_eq!(refusal.reason, Reason::ForeignCluster, "{foreign}");
    assert!(!refusal.indefinite);

    for call in [
        client.vote(message(CLUSTER, 3, vote)).await,
        client.append(message(CLUSTER, 1, b"{")).await,
        client.vote(message(CLUSTER, 1, b"{\"vote\":7}")).await,
        client.install_snapshot(message(CLUSTER, 1, b"")).await,
    ] {
        let status = call.expect_err("refused");
        assert_eq!(Refusal::from_status(&status).reason, Reason::Invalid);
    }
    assert_eq!(masters.raft(master(1)).metrics().term, term);
    masters.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_not_whole_is_refused_and_raft_goes_on() {
    let mut masters = Masters::start(1).await;
    masters.leader().await;
    let addr = masters.config(master(1), false).masters[&master(1)]
        .addr
        .clone();
    let mut client = client_of(&addr);
    let piece = |offset: u64, data: &[u8], done: bool| {
        let json = serde_json::json!({
            "vote": {"leader_id": {"term": 99, "node_id": 2}, "committed": true},
            "meta": {
                "last_log_id": {"leader_id": {"term": 98, "node_id": 2}, "index": 1000},
                "last_membership": {"log_id": null, "membership": {"configs": [], "nodes": {}}},
                "snapshot_id": "s",
            },
            "offset": offset, "data": data, "done": done,
        });
        RaftRequest {
            cluster_id: Bytes::copy_from_slice(&CLUSTER.to_bytes()),
            from_master_id: 2,
            to_master_id: 1,
            payload: Bytes::from(json.to_string()),
        }
    };
    // A piece of nothing that began, with an offset that nobody should make room for.
    let gap = client.install_snapshot(piece(1 << 60, b"x", false)).await;
    let gap = gap.expect("answered").into_inner();
    let text = String::from_utf8_lossy(&gap.payload).into_owned();
    assert!(text.contains("SnapshotMismatch"), "{text}");

    client
        .install_snapshot(piece(0, b"{\"format\":1", false))
        .await
        .expect("taken");
    let torn = client.install_snapshot(piece(11, b"\n{}", true)).await;
    let torn = torn.expect_err("refused");
    assert_eq!(
        Refusal::from_status(&torn).reason,
        Reason::Invalid,
        "{torn}"
    );
    masters.propose(&crate::kit::note("one")).await;
    masters.stop_all().await;
}
