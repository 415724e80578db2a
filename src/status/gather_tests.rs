//! Who belongs in the picture, whoever of them answers.

use super::*;

fn config(version: u64) -> wire::ClusterConfig {
    let info = |id: u64| wire::NodeInfo {
        node_id: id,
        addr: format!("h:{id}"),
        ..Default::default()
    };
    wire::ClusterConfig {
        position: Some(wire::ConfigPosition {
            generation: 1,
            version,
        }),
        nodes: vec![info(1), info(2)],
        ..Default::default()
    }
}

fn node(cluster: u128, node_id: u64, version: u64) -> Result<Told, String> {
    Ok(Told::Node(Box::new(wire::NodeStatusResponse {
        cluster_id: ClusterId::new(cluster).to_bytes().to_vec().into(),
        node_id,
        config: Some(config(version)),
        masters: vec!["m:1".into(), "m:2".into(), "m:3".into()],
        ..Default::default()
    })))
}

fn master(id: u64, role: &str, term: u64) -> Result<Told, String> {
    let info = |id: u64| wire::MasterInfo {
        master_id: id,
        addr: format!("m:{id}"),
        ..Default::default()
    };
    Ok(Told::Master(Box::new(wire::MasterStatusResponse {
        cluster_id: ClusterId::new(7).to_bytes().to_vec().into(),
        master_id: id,
        role: role.into(),
        term,
        masters: (1..=3).map(info).collect(),
        config: Some(config(4)),
        ..Default::default()
    })))
}

fn away() -> Result<Told, String> {
    Err("refused".into())
}

#[test]
fn the_newest_config_counts_and_a_silent_node_stays_in_the_picture() {
    let answers = Answers::from([
        ("h:1".into(), node(7, 1, 3)),
        ("h:2".into(), away()),
        ("h:9".into(), node(7, 9, 2)),
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
fn a_master_alone_names_every_node_and_a_node_alone_every_master() {
    let by_master = assemble(Answers::from([("m:2".into(), master(2, "follower", 1))]));
    let seen = by_master.expect("one cluster");
    assert_eq!((seen.nodes.len(), seen.masters.len()), (2, 3));

    let by_node = assemble(Answers::from([("h:1".into(), node(7, 1, 3))]));
    let seen = by_node.expect("one cluster");
    let masters: Vec<(u64, &str)> = seen
        .masters
        .iter()
        .map(|(id, master)| (*id, master.addr.as_str()))
        .collect();
    assert_eq!(masters, [(1, "m:1"), (2, "m:2"), (3, "m:3")]);
    assert!(seen.leader().is_none());

    let told = master(1, "leader", 1).expect("it answers");
    assert_eq!(named_by(&told), ["h:1", "h:2", "m:1", "m:2", "m:3"]);
}

#[test]
fn a_leader_counts_only_with_a_majority_and_in_the_newest_term() {
    let leader = |answers: [(&str, Result<Told, String>); 3]| {
        let answers = answers.map(|(addr, answer)| (addr.to_owned(), answer));
        let seen = assemble(Answers::from(answers)).expect("one cluster");
        seen.leader().map(|leader| leader.master_id)
    };
    let follower = || master(2, "follower", 3);
    assert_eq!(
        leader([
            ("m:1", master(1, "leader", 3)),
            ("m:2", follower()),
            ("m:3", away())
        ]),
        Some(1)
    );
    assert_eq!(
        leader([
            ("m:1", master(1, "leader", 3)),
            ("m:2", away()),
            ("m:3", away())
        ]),
        None
    );
    // The one that leads in an older term has been replaced and does not know it yet.
    assert_eq!(
        leader([
            ("m:1", master(1, "leader", 2)),
            ("m:2", follower()),
            ("m:3", master(3, "leader", 3))
        ]),
        Some(3)
    );
    // Everybody else has moved on to a newer term: nobody follows it.
    assert_eq!(
        leader([
            ("m:1", master(1, "leader", 2)),
            ("m:2", follower()),
            ("m:3", master(3, "candidate", 3))
        ]),
        None
    );
}

#[test]
fn an_address_that_somebody_else_took_over_is_not_believed() {
    let seen = assemble(Answers::from([
        ("h:1".into(), node(7, 1, 3)),
        ("h:2".into(), master(1, "leader", 1)),
        ("m:1".into(), node(7, 2, 3)),
    ]))
    .expect("one cluster");
    assert!(
        seen.nodes[&2]
            .status
            .as_ref()
            .is_err_and(|why| why.contains("master 1"))
    );
    assert!(
        seen.masters[&1]
            .status
            .as_ref()
            .is_err_and(|why| why.contains("node 2"))
    );
}

#[test]
fn two_clusters_are_never_mixed() {
    let answers = Answers::from([("h:1".into(), node(7, 1, 3)), ("h:2".into(), node(8, 2, 3))]);
    assert_eq!(
        assemble(answers).expect_err("two clusters").code,
        "foreign_cluster"
    );
}

#[test]
fn nobody_at_all_is_unavailable() {
    let answers = Answers::from([("h:1".into(), away())]);
    assert_eq!(assemble(answers).expect_err("nobody").status, 5);
}
