//! Both planes from outside: the masters exclude what is dead, take it back in,
//! and the data plane does not miss them when they are gone (DESIGN §4).

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests drive processes, and load beside them"
)]

mod harness;

use std::sync::atomic::{AtomicBool, Ordering};

use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::ids::{ClusterId, ConfigVersion, Generation};
use catena_proto::snapshot;
use harness::load::Load;
use harness::{Cluster, signal, wait_until};
use rustix::process::Signal;
use serde_json::Value;

/// Acknowledgements of every writer before and after each fault.
const SOME: u64 = 30;

/// The members of a shard's chain, head first.
fn members(cluster: &Cluster, shard: u64) -> Vec<u64> {
    let Some(status) = cluster.status() else {
        return Vec::new();
    };
    let chain = chain(&status, shard);
    let members = chain["members"].as_array().cloned().unwrap_or_default();
    members.iter().filter_map(|m| m["node"].as_u64()).collect()
}

fn chain(status: &Value, shard: u64) -> Value {
    let chains = status["chains"].as_array().cloned().unwrap_or_default();
    let found = chains.into_iter().find(|c| c["shard"] == shard);
    found.unwrap_or(Value::Null)
}

/// Waits until the chain has `count` members, all in sync.
#[track_caller]
fn wait_whole(cluster: &Cluster, shard: u64, count: usize) {
    let mut last = None;
    wait_until_or("the chain is whole", cluster, || {
        last = cluster.status();
        let Some(status) = &last else {
            return false;
        };
        let chain = chain(status, shard);
        let members = chain["members"].as_array().cloned().unwrap_or_default();
        members.len() == count && members.iter().all(|m| m["in_sync"] == true)
    });
}

/// The same as `wait_until`, with the cluster's last words when it fails.
#[track_caller]
fn wait_until_or(what: &str, cluster: &Cluster, mut condition: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !condition() {
        assert!(
            started.elapsed() < harness::PATIENCE,
            "not in time: {what}\n{}\n{}",
            cluster.run(&["status"]).text(),
            cluster.evidence()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The event log, oldest first.
fn events(cluster: &Cluster) -> Vec<Value> {
    cluster
        .run(&["events", "--output", "json"])
        .ended(0)
        .lines()
}

/// Whether some event of this kind is about the node.
fn told(events: &[Value], action: &str, node: u64) -> bool {
    let node = format!("node {node}");
    events.iter().any(|event| {
        let subject = event["subject"].as_str().unwrap_or("");
        event["action"] == action
            && (subject.ends_with(&node) || subject.contains(&format!("{node},")))
    })
}

#[test]
fn a_dead_member_is_excluded_and_taken_back_in_wherever_it_stands() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    for role in ["head", "middle", "tail"] {
        let id = cluster.with_role(1, role);
        cluster.kill(id);
        wait_until_or("the dead node is excluded", &cluster, || {
            !members(&cluster, 1).contains(&id)
        });
        load.wait_progress(SOME);
        cluster.restart(id);
        wait_until_or("it is a member again", &cluster, || {
            members(&cluster, 1).contains(&id)
        });
        wait_whole(&cluster, 1, 3);
        assert_eq!(
            members(&cluster, 1).last(),
            Some(&id),
            "it came back as the tail"
        );
        load.wait_progress(SOME);
        let events = events(&cluster);
        for action in ["remove-member", "add-learner", "append-member"] {
            assert!(
                told(&events, action, id),
                "no {action} of node {id}: {events:#?}"
            );
        }
    }
    assert!(load.finish() > 0);
}

#[test]
fn a_stopped_tail_is_replaced_and_never_answers_an_old_value_when_it_wakes() {
    let cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let tail = cluster.with_role(1, "tail");
    let direct = cluster.node(tail).addr.clone();
    cluster.run(&["put", "x", "0"]).ended(0);
    let stop = AtomicBool::new(false);
    let floor = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        // A reader that asks that very node only; whatever it answers must not be older than what was
        // acknowledged before it was asked.
        let reader = scope.spawn(|| {
            let mut answers = 0_u64;
            while !stop.load(Ordering::SeqCst) {
                let least = floor.load(Ordering::SeqCst);
                let mut command = harness::catena();
                command.args(["get", "x", "--timeout", "2s", "--output", "json"]);
                command.args(["--endpoints", &direct]);
                let got = harness::finish(&mut command, b"");
                if got.status == 0 {
                    let value = got.json()["value"].as_str().map(str::to_owned);
                    let value: u64 = value.and_then(|v| v.parse().ok()).expect("a number");
                    assert!(
                        value >= least,
                        "{value} was read after {least} was acknowledged"
                    );
                    answers += 1;
                }
            }
            answers
        });
        let mut next = 1;
        let mut write_some = |count: u64| {
            let until = next + count;
            while next < until {
                let done = cluster.run(&["put", "x", &next.to_string(), "--timeout", "5s"]);
                if done.status == 0 {
                    floor.store(next, Ordering::SeqCst);
                }
                next += 1;
            }
        };
        write_some(5);
        signal(cluster.pid(tail), Signal::STOP);
        wait_until_or("the stopped tail is replaced", &cluster, || {
            !members(&cluster, 1).contains(&tail)
        });
        write_some(20);
        signal(cluster.pid(tail), Signal::CONT);
        write_some(20);
        wait_until_or("it is taken back in", &cluster, || {
            members(&cluster, 1).contains(&tail)
        });
        wait_whole(&cluster, 1, 3);
        write_some(5);
        stop.store(true, Ordering::SeqCst);
        assert!(
            reader.join().expect("no old value") > 0,
            "the reader read something"
        );
    });
}

#[test]
fn without_masters_everything_goes_on_also_when_all_nodes_restart() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    for id in [1, 2, 3] {
        cluster.kill_master(id);
    }
    load.wait_progress(SOME);
    cluster.kill_all();
    for id in [2, 3, 1] {
        cluster.restart(id);
    }
    load.wait_progress(SOME);
    // A client that starts now finds its way.
    cluster.run(&["put", "new-client", "1"]).ended(0);
    let status = cluster.status().expect("nodes answer");
    assert_eq!(status["control_plane"], "unreachable");
    let before = members(&cluster, 1);
    for id in [1, 2, 3] {
        cluster.restart_master(id);
    }
    wait_until_or("the control plane is back", &cluster, || {
        cluster
            .status()
            .is_some_and(|s| s["control_plane"] == "healthy")
    });
    load.wait_progress(SOME);
    assert_eq!(members(&cluster, 1), before, "nothing jumps");
    assert!(load.finish() > 0);
}

#[test]
fn planned_removal_and_addition_under_load() {
    let cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    for role in ["tail", "head", "middle"] {
        let id = cluster.with_role(1, role);
        let node = id.to_string();
        let before = members(&cluster, 1);
        cluster
            .run(&["chain", "remove-member", "1", &node, "--dry-run"])
            .ended(0);
        assert_eq!(members(&cluster, 1), before, "a dry run changes nothing");
        cluster
            .run(&["chain", "remove-member", "1", &node, "--yes"])
            .ended(0);
        assert!(!members(&cluster, 1).contains(&id));
        load.wait_progress(SOME);
        cluster
            .run(&["chain", "add-member", "1", &node, "--timeout", "60s"])
            .ended(0);
        wait_whole(&cluster, 1, 3);
        load.wait_progress(SOME);
    }
    assert!(load.finish() > 0);
}

#[test]
fn a_spoilt_snapshot_store_touches_nothing_and_a_node_boots_from_a_good_one() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    let store = cluster
        .ready()
        .snapshot_store
        .trim_start_matches("file://")
        .to_owned();
    let store = std::path::Path::new(&store);
    let objects = || {
        let found = std::fs::read_dir(store).into_iter().flatten().flatten();
        let mut names: Vec<_> = found.map(|e| e.path()).filter(|p| p.is_file()).collect();
        names.sort();
        names
    };
    let older: Vec<(std::path::PathBuf, Vec<u8>)> = objects()
        .into_iter()
        .filter_map(|path| std::fs::read(&path).ok().map(|bytes| (path, bytes)))
        .collect();
    // Garbage in every object, one that claims to be newest, and another cluster's that is newer than ours.
    for object in objects() {
        std::fs::write(object, b"garbage").expect("written");
    }
    let name = format!("snapshot-{:020}-{:020}", 9, 9);
    std::fs::write(store.join(name), b"garbage").expect("written");
    let mut foreign = ClusterConfig::empty(ClusterId::new(1));
    foreign.position = ConfigPosition {
        generation: Generation::new(8),
        version: ConfigVersion::new(8),
    };
    let name = snapshot::name(foreign.position);
    std::fs::write(store.join(name), snapshot::encode(&foreign)).expect("written");
    let id = cluster.with_role(1, "middle");
    cluster.kill(id);
    cluster.restart(id);
    wait_whole(&cluster, 1, 3);
    load.wait_progress(SOME);
    // An older copy: nobody goes back to it.
    let version = cluster.status().map(|s| s["config_version"].clone());
    for object in objects() {
        std::fs::remove_file(object).expect("removed");
    }
    for (path, bytes) in older {
        std::fs::write(path, bytes).expect("written");
    }
    let id = cluster.with_role(1, "head");
    cluster.kill(id);
    cluster.restart(id);
    wait_whole(&cluster, 1, 3);
    load.wait_progress(SOME);
    let now = cluster.status().map(|s| s["config_version"].clone());
    assert!(now.as_ref().and_then(Value::as_u64) >= version.as_ref().and_then(Value::as_u64));
    // Gone altogether: the leader makes it again at its pace.
    std::fs::remove_dir_all(store).expect("removed");
    let whole = |path: &std::path::PathBuf| {
        std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"CATSNAP"))
    };
    wait_until_or("the leader writes the store again", &cluster, || {
        objects().iter().any(whole)
    });
    // A node without a config boots from the store with every master dead.
    for id in [1, 2, 3] {
        cluster.kill_master(id);
    }
    let id = cluster.with_role(1, "tail");
    cluster.kill(id);
    let configs = cluster.node(id).dir.join("config");
    std::fs::remove_dir_all(&configs).expect("the node's configs");
    cluster.restart(id);
    wait_whole(&cluster, 1, 3);
    load.wait_progress(SOME);
    assert!(load.finish() > 0);
}

#[test]
fn a_reconfiguration_survives_its_leader_and_needs_a_majority() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    // The leader dies right after a member has: one outcome, by whoever leads then.
    let leader = cluster.leader();
    let id = cluster.with_role(1, "tail");
    cluster.kill(id);
    cluster.kill_master(leader);
    wait_until_or(
        "the dead node is excluded by the next leader",
        &cluster,
        || !members(&cluster, 1).contains(&id),
    );
    load.wait_progress(SOME);
    cluster.restart(id);
    wait_whole(&cluster, 1, 3);
    // Two of three masters dead: nothing changes, serving goes on.
    let leader = cluster.leader();
    cluster.kill_master(leader);
    let node = id.to_string();
    let refused = cluster.run(&[
        "chain",
        "remove-member",
        "1",
        &node,
        "--yes",
        "--timeout",
        "3s",
    ]);
    assert_eq!(refused.status, 5, "{refused:?}");
    assert_eq!(members(&cluster, 1).len(), 3);
    load.wait_progress(SOME);
    cluster.restart_master(leader);
    wait_until_or("a leader is there again", &cluster, || {
        cluster
            .status()
            .is_some_and(|s| s["control_plane"] != "unreachable")
    });
    cluster
        .run(&["chain", "remove-member", "1", &node, "--yes"])
        .ended(0);
    assert_eq!(members(&cluster, 1).len(), 2);
    assert!(load.finish() > 0);
}

#[test]
fn the_leader_dies_in_the_middle_of_an_operators_change_and_there_is_one_outcome() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    for word in ["remove-member", "add-member", "remove-member", "add-member"] {
        let id = match word {
            // The addition before may have had the other outcome.
            "remove-member" if members(&cluster, 1).len() < 3 => continue,
            "remove-member" => cluster.with_role(1, "middle"),
            _ => {
                let present = members(&cluster, 1);
                let absent = cluster.node_ids().into_iter();
                // The removal before may have had the other outcome.
                let Some(id) = absent.into_iter().find(|id| !present.contains(id)) else {
                    continue;
                };
                id
            }
        };
        let leader = cluster.leader();
        let node = id.to_string();
        let words = ["chain", word, "1", &node, "--yes", "--no-wait"];
        let words: Vec<&str> = words
            .into_iter()
            .filter(|w| word == "remove-member" || *w != "--yes")
            .collect();
        let mut asking = cluster
            .command(&words)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the binary starts");
        cluster.kill_master(leader);
        let _ = asking.wait();
        load.wait_progress(SOME);
        cluster.restart_master(leader);
        wait_until_or("the masters are whole", &cluster, || {
            cluster
                .status()
                .is_some_and(|s| s["control_plane"] == "healthy")
        });
        // Whichever it is, it is the same for everybody, and the chain is in sync as it stands.
        wait_until_or("there is one outcome", &cluster, || {
            let status = cluster.status().unwrap_or(Value::Null);
            let chain = chain(&status, 1);
            let members = chain["members"].as_array().cloned().unwrap_or_default();
            let version = &status["config_version"];
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            members.len() >= 2
                && members.iter().all(|m| m["in_sync"] == true)
                && nodes.iter().all(|n| n["effective_version"] == *version)
        });
        load.wait_progress(SOME);
    }
    assert!(load.finish() > 0);
}

#[test]
fn a_leader_that_no_node_reaches_excludes_nobody_and_says_so() {
    let cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let leader = cluster.leader();
    let http = cluster.master(leader).http.clone();
    let before = members(&cluster, 1);
    harness::post(&http, "/debug/testing/cut-nodes?on=true");
    wait_until_or("the hold shows", &cluster, || {
        cluster.status().is_some_and(|s| {
            let alarms = s["alarms"].as_array().cloned().unwrap_or_default();
            alarms.iter().any(|a| a["name"] == "SUSPICION_HOLD")
        })
    });
    assert_eq!(members(&cluster, 1), before, "nobody was excluded");
    cluster.run(&["put", "k", "v"]).ended(0);
    harness::post(&http, "/debug/testing/cut-nodes?on=false");
    wait_until_or("the hold is over", &cluster, || {
        cluster
            .status()
            .is_some_and(|s| s["alarms"].as_array().is_some_and(Vec::is_empty))
    });
    assert_eq!(members(&cluster, 1), before);
}

#[test]
fn a_node_that_takes_no_newer_config_is_excluded_with_its_versions_and_comes_back() {
    let cluster = Cluster::start(&["--masters", "3", "--nodes", "4"]);
    wait_whole(&cluster, 1, 3);
    let head = cluster.with_role(1, "head");
    let others: Vec<u64> = members(&cluster, 1)
        .into_iter()
        .filter(|id| *id != head)
        .collect();
    let http = cluster.node(head).http.clone();
    harness::post(&http, "/debug/testing/refuse-configs?on=true&mode=nack");
    // Something changes, and this node does not take it.
    let node = others[1].to_string();
    cluster
        .run(&["chain", "remove-member", "1", &node, "--yes", "--no-wait"])
        .ended(0);
    wait_until_or("the stale node is excluded", &cluster, || {
        !members(&cluster, 1).contains(&head)
    });
    let events = events(&cluster);
    let about = events.iter().filter(|event| {
        event["action"] == "remove-member"
            && event["controller"] == "membership"
            && event["subject"]
                .as_str()
                .is_some_and(|s| s.ends_with(&format!("node {head}")))
    });
    let causes: Vec<&str> = about.filter_map(|event| event["cause"].as_str()).collect();
    assert!(
        causes
            .iter()
            .any(|cause| cause.contains("version") || cause.contains("epoch")),
        "{events:#?}"
    );
    // Whoever asks the stale node is told nothing: what it takes in its old epoch never commits.
    let others: Vec<&str> = cluster
        .ready()
        .nodes
        .iter()
        .filter(|n| n.id != head)
        .map(|n| &*n.addr)
        .collect();
    cluster
        .run(&["put", "k", "v", "--endpoints", &others.join(",")])
        .ended(0);
    harness::post(&http, "/debug/testing/refuse-configs?on=false");
    wait_until_or("it is taken back in", &cluster, || {
        members(&cluster, 1).contains(&head)
    });
    wait_until("every member is in sync", || {
        let status = cluster.status().unwrap_or(Value::Null);
        let chain = chain(&status, 1);
        let members = chain["members"].as_array().cloned().unwrap_or_default();
        !members.is_empty() && members.iter().all(|m| m["in_sync"] == true)
    });
}

#[test]
fn a_stale_last_member_in_sync_is_not_touched_but_told_of() {
    let cluster = Cluster::start(&["--masters", "3", "--nodes", "2", "--replicas", "1"]);
    wait_whole(&cluster, 1, 1);
    let solo = cluster.with_role(1, "solo");
    let other = if solo == 1 { "2" } else { "1" };
    let http = cluster.node(solo).http.clone();
    harness::post(&http, "/debug/testing/refuse-configs?on=true&mode=nack");
    cluster
        .run(&["chain", "add-member", "1", other, "--no-wait"])
        .ended(0);
    wait_until_or("an alarm tells of it", &cluster, || {
        cluster.status().is_some_and(|s| {
            let alarms = s["alarms"].as_array().cloned().unwrap_or_default();
            let of_control = |a: &Value| a["name"] == "CONTROL_ALARM";
            alarms.iter().any(of_control)
        })
    });
    // The other one may be appended meanwhile, and waits: it follows a source that takes no newer config.
    let head = members(&cluster, 1).first().copied();
    assert_eq!(head, Some(solo), "the last in sync stays");
    let direct = cluster.node(solo).addr.clone();
    cluster
        .run(&["put", "k", "v", "--endpoints", &direct])
        .ended(0);
    harness::post(&http, "/debug/testing/refuse-configs?on=false");
    wait_whole(&cluster, 1, 2);
}

#[test]
fn a_second_process_with_a_nodes_id_is_turned_away_and_changes_nothing() {
    let cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    let version = cluster.json(&["status"])["config_version"].clone();
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let dir = scratch.path().join("impostor").display().to_string();
    let mut impostor = cluster
        .changed_command(
            2,
            &[
                ("--dir", &dir),
                ("--listen", "127.0.0.1:0"),
                ("--http", "127.0.0.1:0"),
            ],
        )
        .spawn()
        .expect("it starts");
    let log = cluster.node(2).dir.with_extension("log");
    wait_until_or("it is turned away", &cluster, || {
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        said.contains("give this process a node id of its own")
    });
    let status = cluster.json(&["status"]);
    let _ = impostor.kill();
    let _ = impostor.wait();
    assert_eq!(status["config_version"], version, "{status:#}");
    wait_whole(&cluster, 1, 3);
}

#[test]
fn an_operator_recovers_a_chain_from_the_one_member_that_is_left() {
    let mut cluster = Cluster::start(&["--masters", "3"]);
    wait_whole(&cluster, 1, 3);
    cluster.run(&["put", "before", "1"]).ended(0);
    let chosen = cluster.with_role(1, "middle");
    let gone: Vec<u64> = members(&cluster, 1)
        .into_iter()
        .filter(|id| *id != chosen)
        .collect();
    for id in &gone {
        cluster.kill(*id);
    }
    let node = chosen.to_string();
    let asked = cluster.run(&["chain", "recover", "1", &node]);
    assert_eq!(asked.status, 2, "nobody confirmed the data loss: {asked:?}");
    cluster
        .run(&["chain", "recover", "1", &node, "--yes"])
        .ended(0);
    assert_eq!(members(&cluster, 1), [chosen]);
    cluster.run(&["put", "after", "2"]).ended(0);
    assert_eq!(cluster.json(&["get", "before"])["value"], "1");
    assert!(told(&events(&cluster), "recover", chosen));
    for id in &gone {
        cluster.restart(*id);
    }
    wait_whole(&cluster, 1, 3);
    for id in gone {
        let addr = cluster.node(id).addr.clone();
        let value = cluster.json(&["get", "after", "--endpoints", &addr]);
        assert_eq!(value["value"], "2", "node {id} copied the chosen data");
    }
}
