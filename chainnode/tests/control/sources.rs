//! Where a config comes from when it is not pushed, and which master is asked.

use std::time::Duration;

use catena_proto::config::DeltaItem;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::redirect;
use catena_proto::report::MasterFrame;
use tonic::Status;

use super::master::Master;
use super::nodes::{Nodes, PATIENCE, at, delta, version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_too_far_behind_reads_the_store_and_costs_the_master_nothing() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    (nodes.masters, nodes.with_store) = (vec![master.addr], true);
    nodes.start(1).await;
    let session = master.session().await;
    // While a master is connected, the store is left alone; give the last look before that time to end.
    nodes.until(1, |s| version(s) == 0).await;
    nodes.publish(&nodes.state(40, &[1], 1));
    session.send(MasterFrame::ReadSnapshot(at(40)).into()).await;
    let mut session = master.session().await;
    assert_eq!(session.open.position, at(40));
    let next = delta(40, 41, vec![DeltaItem::Chain(nodes.chain(&[1], 2))]);
    assert_eq!(session.push(&next).await.refused, Vec::new());
    session.effective(at(41)).await;
    assert_eq!(master.fetched(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_store_the_master_hands_out_its_state_when_it_has_time() {
    for with_store in [false, true] {
        let mut master = Master::start().await;
        let mut nodes = Nodes::new(1);
        (nodes.masters, nodes.with_store) = (vec![master.addr], with_store);
        nodes.start(1).await;
        // A store that is there and holds only garbage is as good as none.
        std::fs::write(nodes.store().join("snapshot-x"), b"garbage").expect("written");
        let busy = Refusal::new(Reason::Overloaded, "too many fetch at once");
        let busy = busy.retry_after(Duration::from_millis(700)).to_status();
        master.answer_fetches(vec![Err(busy), Ok(nodes.state(8, &[1], 1))]);
        let session = master.session().await;
        session.send(MasterFrame::ReadSnapshot(at(8)).into()).await;
        let soon = tokio::time::timeout(Duration::from_millis(700), master.session()).await;
        assert!(soon.is_err(), "it was told when to come again");
        let session = master.session().await;
        assert_eq!(master.fetched(), 1);
        session.send(MasterFrame::ReadSnapshot(at(8)).into()).await;
        let mut session = master.session().await;
        assert_eq!((session.open.position, master.fetched()), (at(8), 2));
        session.effective(at(8)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_is_found_through_any_master_and_again_when_it_dies() {
    let (follower, mut leader) = (Master::start().await, Master::start().await);
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![follower.addr];
    follower.refuse(Some(redirect::not_leader(None)));
    nodes.start(1).await;
    follower.refuse(Some(redirect::not_leader(Some(&leader.addr.to_string()))));
    let mut session = leader.session().await;
    session
        .push(&nodes.first_delta(&nodes.state(1, &[1], 1)))
        .await;

    let mut next = Master::start().await;
    follower.refuse(Some(redirect::not_leader(Some(&next.addr.to_string()))));
    drop((leader, session));
    let session = next.session().await;
    assert_eq!(session.open.position, at(1));
    let page = nodes.until(1, |s| version(s) == 1).await;
    assert_eq!(page.config_source, "push");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_master_is_left_and_the_store_is_followed_meanwhile() {
    let master = Master::start().await;
    let mut nodes = Nodes::new(1);
    (nodes.masters, nodes.with_store) = (vec![master.addr], true);
    // It takes connections and says nothing at all.
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    nodes.masters = vec![deaf.local_addr().expect("an address")];
    nodes.start(1).await;
    nodes.publish(&nodes.state(3, &[1], 1));
    nodes.until(1, |s| version(s) == 3).await;
    nodes.publish(&nodes.state(4, &[1], 2));
    let status = nodes
        .until(1, |s| s.replicas.iter().any(|r| r.serving_reads))
        .await;
    assert_eq!(status.config_source, "snapshot");
    drop((master, deaf));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_refuses_everything_changes_nothing() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut session = master.session().await;
    session
        .push(&nodes.first_delta(&nodes.state(1, &[1], 1)))
        .await;
    session
        .push(&delta(1, 2, vec![DeltaItem::Chain(nodes.chain(&[1], 2))]))
        .await;
    session.effective(at(2)).await;
    for refusal in [
        Status::invalid_argument("no"),
        Status::unavailable("no"),
        Refusal::new(Reason::ForeignCluster, "this is another cluster").to_status(),
    ] {
        master.refuse(Some(refusal));
        drop(session);
        let status = nodes
            .until(1, |s| s.replicas.iter().any(|r| r.serving_reads))
            .await;
        assert_eq!(version(&status), 2);
        master.refuse(None);
        let found = tokio::time::timeout(PATIENCE, master.session()).await;
        session = found.expect("it comes again");
    }
}
