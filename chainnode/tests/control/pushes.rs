//! What is pushed: accepted item by item, persisted before it is used, never backwards.

use std::time::Duration;

use catena_proto::config::{ConfigPosition, DeltaItem, KeyRange, Settings};
use catena_proto::ids::{ClusterId, ShardId};
use catena_proto::report::{MasterFrame, Standing};
use catena_proto::{config::Role, wire};

use super::master::Master;
use super::nodes::{Nodes, PATIENCE, at, delta, version};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_node_registers_by_subscribing_and_keeps_what_is_pushed_without_any_master() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut session = master.session().await;
    let first = session.open.clone();
    assert_eq!(first.position, ConfigPosition::default());
    assert_eq!((first.disk, first.zone.as_str()), (nodes.disk(1), "zone-1"));
    assert_eq!(first.addr, nodes.addr(1).to_string());
    let report = session.report().await;
    assert_eq!((report.no, report.replicas.len()), (1, 0));

    let outcome = session
        .push(&nodes.first_delta(&nodes.state(1, &[1], 1)))
        .await;
    assert_eq!((outcome.to, outcome.refused), (at(1), Vec::new()));
    let report = session.effective(at(1)).await;
    assert_eq!(report.acked, at(1));
    let report = match report.replicas[0].in_sync {
        true => report,
        false => session.report_where(|r| r.replicas[0].in_sync).await,
    };
    assert_eq!(report.replicas[0].joined_epoch.get(), 1);
    let serving = delta(1, 2, vec![DeltaItem::Chain(nodes.chain(&[1], 2))]);
    let outcome = session.push(&serving).await;
    assert_eq!((outcome.to, outcome.refused), (at(2), Vec::new()));
    let report = session
        .report_where(|r| r.effective == at(2) && r.replicas[0].in_sync)
        .await;
    assert_eq!(report.replicas[0].standing, Standing::Member(Role::Solo));
    assert_eq!(report.config_source, "push");

    nodes.stop(1).await;
    nodes.masters.clear();
    nodes.start(1).await;
    let alone = nodes
        .until(1, |s| s.replicas.iter().any(|r| r.serving_reads))
        .await;
    assert_eq!((version(&alone), alone.config_source.as_str()), (2, "disk"));

    nodes.stop(1).await;
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let session = master.session().await;
    assert_eq!(
        session.open.position,
        at(2),
        "only what came since is wanted"
    );
    assert!(session.open.incarnation > first.incarnation);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_item_is_refused_by_its_place_and_its_siblings_apply() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut session = master.session().await;
    session
        .push(&nodes.first_delta(&nodes.state(1, &[1], 1)))
        .await;

    // Unreadable, out of bounds, in contradiction to its sibling, and good.
    let mut twin = nodes.chain(&[1], 1);
    (twin.shard, twin.range) = (ShardId::new(9), KeyRange::all());
    let settings = Settings {
        lease_ms: 400,
        ..Settings::default()
    };
    let items = vec![
        DeltaItem::Chain(nodes.chain(&[1], 2)),
        DeltaItem::Chain(twin),
        DeltaItem::Settings(settings),
    ];
    let mut raw = wire::Delta::from(&delta(1, 2, items));
    raw.items.insert(0, wire::DeltaItem { item: None });
    let mut wild = wire::Settings::from(&Settings::default());
    wild.lease_ms = 1_000_000;
    let wild = wire::delta_item::Item::Settings(wild);
    raw.items.insert(2, wire::DeltaItem { item: Some(wild) });
    let outcome = session.push_raw(raw).await;
    assert_eq!(outcome.to, at(2));
    let places: Vec<_> = outcome.refused.iter().map(|r| r.index).collect();
    assert_eq!(places, [0, 2, 3], "{:?}", outcome.refused);
    assert!(outcome.refused[1].reason.contains("lease_ms"));
    assert!(outcome.refused[2].reason.contains("overlap"));
    session.report_where(|r| r.effective == at(2)).await;

    // The master says everything once more, on top of what the node holds: what is good by now is taken.
    let mended = Settings {
        lease_ms: 300,
        ..Settings::default()
    };
    let again = delta(
        2,
        2,
        vec![
            DeltaItem::Chain(nodes.chain(&[1], 2)),
            DeltaItem::Settings(mended),
        ],
    );
    assert_eq!(session.push(&again).await.refused, Vec::new());

    // What was kept can be read again.
    nodes.stop(1).await;
    nodes.start(1).await;
    assert_eq!(master.session().await.open.position, at(2));
    let status = nodes
        .until(1, |s| s.replicas.iter().any(|r| r.serving_reads))
        .await;
    let config = status.config.expect("a config");
    assert_eq!(config.settings.expect("settings").lease_ms, 300);
    assert_eq!(config.chains.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missed_delta_is_asked_for_anew_and_an_older_one_is_refused() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut session = master.session().await;
    let first = nodes.first_delta(&nodes.state(5, &[1], 1));
    session.push(&first).await;
    let again = session.push(&first).await;
    assert_eq!(again.refused, Vec::new(), "a doubled one is acknowledged");
    let older = delta(3, 4, vec![DeltaItem::Chain(nodes.chain(&[1], 7))]);
    let outcome = session.push(&older).await;
    assert_eq!((outcome.to, outcome.refused.len()), (at(4), 1));
    let mut back = delta(5, 9, vec![DeltaItem::Chain(nodes.chain(&[1], 8))]);
    back.to.generation = catena_proto::ids::Generation::ZERO;
    assert_eq!(
        session.push(&back).await.refused.len(),
        1,
        "an older generation"
    );

    // The one from 5 to 6 never came.
    let later = delta(6, 7, vec![DeltaItem::Chain(nodes.chain(&[1], 3))]);
    session.send(MasterFrame::Push(later).into()).await;
    let mut session = master.session().await;
    assert_eq!(session.open.position, at(5));
    let missed = delta(5, 7, vec![DeltaItem::Chain(nodes.chain(&[1], 2))]);
    assert_eq!(session.push(&missed).await.refused, Vec::new());
    session.effective(at(7)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_configs_of_one_epoch_stop_the_replica_and_the_master_hears_of_it() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(2);
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
    let twin = nodes.chain(&[1, 2], 2);
    let outcome = session
        .push(&delta(2, 3, vec![DeltaItem::Chain(twin)]))
        .await;
    assert_eq!(outcome.refused.len(), 1);
    let report = session.report_where(|r| r.replicas[0].fenced).await;
    assert_eq!(report.alarms[0].0, "REPLICA_FENCED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_makes_no_sense_is_left_and_met_again_slowly() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(1);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut foreign = nodes.first_delta(&nodes.state(1, &[1], 1));
    foreign.cluster = ClusterId::new(9);
    let unnamed = wire::Delta::default();
    let odd = [
        wire::MasterFrame { frame: None },
        MasterFrame::Push(foreign).into(),
        wire::MasterFrame {
            frame: Some(wire::master_frame::Frame::Push(unnamed)),
        },
        wire::MasterFrame {
            frame: Some(wire::master_frame::Frame::ReadSnapshot(
                wire::ReadSnapshot { newest: None },
            )),
        },
    ];
    for frame in odd {
        let mut session = master.session().await;
        assert_eq!(session.open.position, ConfigPosition::default());
        session.send(frame).await;
        assert!(session.ends_within(PATIENCE).await);
        let soon = tokio::time::timeout(Duration::from_secs(1), master.session()).await;
        assert!(soon.is_err(), "it comes again in no hurry");
    }
    let mut session = master.session().await;
    session
        .push(&nodes.first_delta(&nodes.state(1, &[1], 1)))
        .await;
    session.effective(at(1)).await;
}
