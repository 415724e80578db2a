//! The control plane as operators see and steer it from the command line: masters, versions, changes of chains,
//! events, switches, and what is left when every master is dead.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests start and kill processes"
)]

mod harness;

use harness::{Cluster, Finished, is_alive, signal, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// One cluster for all of it: starting one takes longer than every command here.
#[test]
fn the_control_plane_is_seen_and_steered_from_the_command_line() {
    let cluster = Cluster::start_with_masters(&["--nodes", "4", "--shards", "2"]);
    wait_control_plane(&cluster, "healthy");
    cluster.wait_healthy();
    masters_and_versions(&cluster);
    a_dry_run_changes_nothing(&cluster);
    the_loop_has_a_switch(&cluster);
    members_come_and_go(&cluster);
    what_is_not_there_or_not_allowed(&cluster);
    events_tell_the_story(&cluster);
    every_master_dead(&cluster);
}

#[track_caller]
fn wait_control_plane(cluster: &Cluster, state: &str) {
    let mut last = None;
    wait_until(&format!("the control plane is {state}"), || {
        last = cluster.status();
        last.as_ref()
            .is_some_and(|status| status["control_plane"] == *state)
    });
}

fn chain_of(cluster: &Cluster, shard: u64) -> Value {
    cluster.json(&["chain", "show", &shard.to_string()])
}

fn members(chain: &Value) -> Vec<u64> {
    let members = chain["members"].as_array().expect("members");
    let ids = members.iter().map(|member| member["node"].as_u64());
    ids.map(|id| id.expect("an id")).collect()
}

fn masters_and_versions(cluster: &Cluster) {
    let list = |words: &[&str]| {
        let words = [words, &["--output", "json"]].concat();
        cluster.run(&words).ended(0).lines()
    };
    let masters = list(&["master", "list"]);
    let leaders = masters.iter().filter(|master| master["role"] == "leader");
    assert_eq!((masters.len(), leaders.count()), (3, 1), "{masters:?}");
    for master in &masters {
        assert!(
            master["id"].is_u64() && master["term"].is_u64() && master["applied"].is_u64(),
            "{master}"
        );
    }
    // What was sent is accepted and in force on every node, sooner or later.
    wait_until("every node acts by what it was sent", || {
        let versions = list(&["config", "versions"]);
        versions.len() == 4
            && versions.iter().all(|line| {
                line["sent_version"].as_u64().is_some_and(|sent| sent > 0)
                    && line["sent_version"] == line["acked_version"]
                    && line["sent_version"] == line["effective_version"]
            })
    });
    // A master's address is as good as a node's.
    let addr = cluster.ready().masters[1].addr.clone();
    let words = ["status", "--output", "json", "--endpoints", &addr];
    let status = cluster.run(&words).ended(0).json();
    assert_eq!(
        status["nodes"].as_array().map(Vec::len),
        Some(4),
        "{status}"
    );
    let words = ["put", "0key", "0", "--output", "json", "--endpoints", &addr];
    assert_eq!(cluster.run(&words).ended(0).json()["key"], "0key");
    for words in [
        &["status"][..],
        &["master", "list"],
        &["config", "versions"],
        &["events"],
    ] {
        assert!(!cluster.run(words).ended(0).stdout.is_empty(), "{words:?}");
    }
}

fn a_dry_run_changes_nothing(cluster: &Cluster) {
    let before = chain_of(cluster, 1);
    let tail = *members(&before).last().expect("a tail");
    let tail = tail.to_string();
    let plan = cluster.json(&["chain", "remove-member", "1", &tail, "--dry-run"]);
    assert_eq!(
        (plan["dry_run"].clone(), plan["in_force"].clone()),
        (json!(true), json!(false))
    );
    assert_eq!(plan["before"]["epoch"], before["epoch"]);
    assert_eq!(
        plan["after"]["members"].as_array().map(Vec::len),
        Some(2),
        "{plan}"
    );
    assert!(
        plan["effects"]
            .as_array()
            .is_some_and(|all| !all.is_empty()),
        "{plan}"
    );
    cluster.json(&["chain", "recover", "1", &tail, "--dry-run"]);
    let after = chain_of(cluster, 1);
    assert_eq!(
        (&after["epoch"], members(&after)),
        (&before["epoch"], members(&before))
    );
}

fn the_loop_has_a_switch(cluster: &Cluster) {
    let line = cluster.json(&["controller", "pause"]);
    assert_eq!(line, json!({"controller": "membership", "paused": true}));
    assert_eq!(
        cluster.status().expect("it answers")["paused_controllers"],
        json!(["membership"])
    );
    cluster.json(&["controller", "resume", "membership"]);
    assert_eq!(
        cluster.status().expect("it answers")["paused_controllers"],
        json!([])
    );
}

fn members_come_and_go(cluster: &Cluster) {
    cluster.json(&["put", "0key", "1"]);
    let tail = *members(&chain_of(cluster, 1)).last().expect("a tail");
    let word = tail.to_string();
    let gone = cluster.json(&["chain", "remove-member", "1", &word]);
    assert_eq!(gone["in_force"], true, "{gone}");
    assert!(!members(&chain_of(cluster, 1)).contains(&tail));
    cluster.json(&["put", "0key", "2"]);

    let back = cluster.json(&["chain", "add-member", "1", &word]);
    assert_eq!(back["in_force"], true, "{back}");
    let chain = chain_of(cluster, 1);
    let all = chain["members"].as_array().expect("members");
    let joined = all.iter().find(|member| member["node"] == tail);
    assert!(
        joined.is_some_and(|member| member["in_sync"] == true),
        "{chain}"
    );
    assert_eq!(cluster.json(&["get", "0key"])["value"], "2");
}

fn what_is_not_there_or_not_allowed(cluster: &Cluster) {
    for words in [
        ["chain", "remove-member", "99", "1"],
        ["chain", "add-member", "1", "99"],
    ] {
        cluster.run(&words).ended(3);
    }
    let here = members(&chain_of(cluster, 1))[0].to_string();
    let moved = [
        "chain",
        "remove-member",
        "1",
        &here,
        "--expect-epoch",
        "999999",
    ];
    let error = run_here(cluster, &moved).ended(1).error();
    assert_eq!(error["code"], "refused", "{error}");
}

fn run_here(cluster: &Cluster, words: &[&str]) -> Finished {
    cluster.run(&[words, &["--output", "json"]].concat())
}

fn events_tell_the_story(cluster: &Cluster) {
    let events = run_here(cluster, &["events"]).ended(0).lines();
    for event in &events {
        for field in ["at", "controller", "cause", "action", "subject"] {
            assert!(event[field].is_string(), "{event}");
        }
        assert!(event["config_version"].is_u64(), "{event}");
    }
    let operator =
        |event: &&Value| event["controller"] == "operator" && event["action"] == "remove-member";
    assert!(events.iter().any(|event| operator(&event)), "{events:#?}");
    let last = run_here(cluster, &["events", "--limit", "2"])
        .ended(0)
        .lines();
    assert_eq!(last.len(), 2, "{last:?}");
    assert_eq!(last.last(), events.last());
}

fn every_master_dead(cluster: &Cluster) {
    let before = cluster.status().expect("it answers");
    for master in &cluster.ready().masters {
        signal(master.pid, Signal::KILL);
    }
    wait_until("every master is gone", || {
        cluster
            .ready()
            .masters
            .iter()
            .all(|master| !is_alive(master.pid))
    });
    let status = cluster.status().expect("the nodes answer");
    assert_eq!(status["control_plane"], "unreachable", "{status}");
    let masters = status["masters"].as_array().expect("masters");
    assert!(
        masters.len() == 3 && masters.iter().all(|master| master["role"] == "down"),
        "{status}"
    );
    assert!(
        cluster
            .run(&["status"])
            .ended(0)
            .text()
            .contains("unreachable")
    );
    cluster.json(&["put", "0key", "3"]);
    assert_eq!(cluster.json(&["get", "0key"])["value"], "3");
    let words = ["chain", "remove-member", "1", "1", "--timeout", "1s"];
    let error = run_here(cluster, &words).ended(5).error();
    assert_eq!(error["retryable"], true, "{error}");
    run_here(cluster, &["events", "--timeout", "1s"]).ended(5);

    let mut again: Vec<_> = cluster
        .ready()
        .masters
        .iter()
        .map(|master| {
            std::process::Command::new(&master.cmd[0])
                .args(&master.cmd[1..])
                .arg("--parent-pid")
                .arg(std::process::id().to_string())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .expect("its command starts it")
        })
        .collect();
    wait_control_plane(cluster, "healthy");
    let after = cluster.status().expect("it answers");
    let epochs = |status: &Value| -> Vec<Value> {
        let chains = status["chains"].as_array().expect("chains");
        chains.iter().map(|chain| chain["epoch"].clone()).collect()
    };
    assert_eq!(epochs(&after), epochs(&before), "nothing jumps");
    for child in &mut again {
        let _ = child.kill();
        let _ = child.wait();
    }
}
