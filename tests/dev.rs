//! `catena dev` as a user meets it: what it says, what it leaves behind, what it keeps.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests look at files that processes make"
)]

mod harness;

use std::time::Duration;

use harness::{Cluster, Ready, finish, is_alive, signal, wait_until};
use rustix::process::Signal;

/// The promise is 5 s; a test machine with every core busy gets three times that.
const READY_IN_MAX: Duration = Duration::from_secs(15);

fn pids(ready: &Ready) -> Vec<u32> {
    let all = ready.masters.iter().chain(&ready.nodes);
    all.map(|process| process.pid).collect()
}

#[track_caller]
fn wait_gone(pids: &[u32]) {
    wait_until("no child is left", || {
        !pids.iter().any(|pid| is_alive(*pid))
    });
}

#[test]
fn a_cluster_is_ready_in_seconds_and_says_what_it_is() {
    let cluster = Cluster::start(&[]);
    assert!(
        cluster.started_in < READY_IN_MAX,
        "{:?}",
        cluster.started_in
    );
    let said = cluster.said();
    assert!(said.contains("goes away"), "{said}");
    let endpoints = format!("export CATENA_ENDPOINTS={}", cluster.endpoints());
    assert!(said.contains(&endpoints), "{said}");
    assert!(said.contains("no masters"), "{said}");
    let ready = cluster.ready();
    assert_eq!((ready.nodes.len(), ready.masters.len()), (3, 0));
    assert!(
        ready.snapshot_store.starts_with("file:///"),
        "{}",
        ready.snapshot_store
    );
    for node in &ready.nodes {
        assert!(is_alive(node.pid) && node.dir.is_dir(), "{node:?}");
        assert!(
            said.contains(&node.pid.to_string()) && said.contains(&node.addr),
            "{said}"
        );
        // The command names nothing inside the node's folder.
        let dir = node.dir.display().to_string();
        assert!(
            node.cmd
                .iter()
                .all(|word| *word == dir || !word.starts_with(&dir)),
            "{node:?}"
        );
    }
}

#[test]
fn three_masters_make_a_cluster_in_seconds_and_are_shown_with_its_nodes() {
    let cluster = Cluster::start_with_masters(&["--shards", "3"]);
    assert!(
        cluster.started_in < READY_IN_MAX,
        "{:?}",
        cluster.started_in
    );
    let (ready, said) = (cluster.ready(), cluster.said());
    assert_eq!((ready.nodes.len(), ready.masters.len()), (3, 3));
    for process in ready.masters.iter().chain(&ready.nodes) {
        assert!(is_alive(process.pid) && process.dir.is_dir(), "{process:?}");
        assert!(
            said.contains(&process.pid.to_string()) && said.contains(&process.addr),
            "{said}"
        );
        // Once the cluster is made, no command makes one: a master that lost its folder must not vote anew.
        assert!(
            !process.cmd.iter().any(|word| word == "--bootstrap"),
            "{process:?}"
        );
    }
    // It serves, and the masters are at work, from the first moment on.
    cluster.json(&["put", "k", "v"]);
    let status = cluster.status().expect("it answers");
    assert_eq!(status["control_plane"], "healthy", "{status}");
    let chains = status["chains"].as_array().expect("chains");
    assert!(
        chains.len() == 3 && chains.iter().all(|chain| chain["state"] == "healthy"),
        "{status}"
    );
}

#[test]
fn a_folder_keeps_its_masters_too() {
    let scratch = tempfile::tempdir().expect("a folder");
    let settings = harness::write(scratch.path(), "settings.toml", "lease_ms = 800\n");
    let dir = scratch.path().join("cluster").display().to_string();
    let mut first = Cluster::start_with_masters(&["--dir", &dir, "--settings", &settings]);
    first.json(&["put", "a", "1"]);
    let version = first.status().expect("it answers")["config_version"].as_u64();
    first.stop(Signal::KILL);
    wait_gone(&pids(first.ready()));
    std::fs::remove_file(settings).expect("it is not needed any more");

    let mut second = Cluster::start_with_masters(&["--dir", &dir]);
    assert_eq!(second.ready().cluster_id, first.ready().cluster_id);
    assert_eq!(second.json(&["get", "a"])["value"], "1");
    wait_until("the masters are back, and know what they knew", || {
        second.status().is_some_and(|status| {
            status["control_plane"] == "healthy" && status["config_version"].as_u64() >= version
        })
    });
    assert!(second.stop(Signal::TERM).success());
    wait_gone(&pids(second.ready()));

    let refused = finish(
        harness::catena().args(["dev", "--dir", &dir, "--masters", "1"]),
        b"",
    );
    assert!(refused.ended(2).stderr.contains("--masters"));
}

#[test]
fn with_supervise_a_master_that_dies_is_started_again() {
    let cluster = Cluster::start_with_masters(&["--supervise"]);
    let old = cluster.ready().masters[0].pid;
    signal(old, Signal::KILL);
    wait_until("master 1 is gone", || !is_alive(old));
    wait_until("every master answers", || {
        let status = cluster.status();
        status.is_some_and(|status| status["control_plane"] == "healthy")
    });
}

#[test]
fn however_dev_ends_no_child_is_left() {
    for with in [Signal::INT, Signal::TERM, Signal::KILL] {
        let flags = &["--nodes", "2", "--engine", "memory"];
        let mut cluster = Cluster::start_with_masters(flags);
        let children = pids(cluster.ready());
        let folder = cluster.node(1).dir.clone();
        let ended = cluster.stop(with);
        if with == Signal::KILL {
            assert!(!ended.success());
        } else {
            assert!(ended.success(), "{with:?}: {ended}, {}", cluster.evidence());
            assert!(
                !folder.exists(),
                "{with:?}: the temporary folder is still there"
            );
        }
        wait_gone(&children);
    }
}

#[test]
fn a_folder_keeps_its_cluster_through_a_stop_and_a_kill() {
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("cluster").display().to_string();
    let mut first = Cluster::start(&["--dir", &dir, "--shards", "2"]);
    assert!(
        first.said().contains("the data is kept"),
        "{}",
        first.said()
    );
    first.json(&["put", "a", "1"]);
    assert!(first.stop(Signal::TERM).success());
    wait_gone(&pids(first.ready()));

    let mut second = Cluster::start(&["--dir", &dir]);
    assert_eq!(second.ready().cluster_id, first.ready().cluster_id);
    assert_eq!(second.endpoints(), first.endpoints());
    assert_eq!(second.json(&["get", "a"])["value"], "1");
    second.json(&["put", "b", "2"]);
    second.stop(Signal::KILL);
    wait_gone(&pids(second.ready()));

    let third = Cluster::start(&["--dir", &dir]);
    assert_eq!(third.json(&["get", "a"])["value"], "1");
    assert_eq!(third.json(&["get", "b"])["value"], "2");
    let chains = third.status().expect("it answers")["chains"]
        .as_array()
        .expect("chains")
        .len();
    assert_eq!(chains, 2);

    let refused = |flags: &[&str]| {
        let words = [&["dev", "--dir", &dir], flags].concat();
        finish(harness::catena().args(&words), b"")
    };
    // The folder is in use, and what it holds is decided.
    assert!(
        refused(&[])
            .ended(1)
            .stderr
            .contains("another `catena dev`")
    );
    drop(third);
    assert!(
        refused(&["--nodes", "5"])
            .ended(2)
            .stderr
            .contains("--nodes")
    );
}

#[test]
fn a_cluster_whose_making_was_interrupted_is_finished_by_the_next_start() {
    for masters in ["0", "3"] {
        interrupted(masters);
    }
}

#[track_caller]
fn interrupted(masters: &str) {
    let scratch = tempfile::tempdir().expect("a folder");
    let dir = scratch.path().join("cluster");
    let dir_word = dir.display().to_string();
    let mut dev = harness::catena()
        .args(["dev", "--masters", masters, "--dir", &dir_word])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("the binary starts");
    // By now the nodes are made and the cluster is not: nobody serves yet, or only just.
    wait_until("every node listens", || {
        (1..=3).all(|node| {
            let log = std::fs::read_to_string(dir.join(format!("node-{node}.log")));
            log.is_ok_and(|log| log.contains(" listens "))
        })
    });
    dev.kill().expect("killed");
    dev.wait().expect("waited for");

    let cluster = Cluster::start(&["--masters", masters, "--dir", &dir_word]);
    cluster.json(&["put", "k", "v"]);
    assert_eq!(cluster.json(&["get", "k"])["value"], "v");
}

#[test]
fn a_node_that_dies_is_told_and_its_command_brings_it_back() {
    let mut cluster = Cluster::start(&[]);
    cluster.json(&["put", "k", "1"]);
    let tail = cluster.with_role(1, "tail");
    cluster.kill(tail);
    wait_until("dev tells of the death", || {
        cluster.said().contains(&format!("node {tail} (pid"))
    });
    let status = cluster.status().expect("two nodes answer");
    assert_eq!(status["chains"][0]["state"], "blocked", "{status}");
    cluster.restart(tail);
    cluster.wait_healthy();
    assert_eq!(cluster.json(&["incr", "k"])["value"], "2");
}

#[test]
fn with_supervise_a_node_that_dies_is_started_again() {
    let cluster = Cluster::start(&["--supervise"]);
    cluster.json(&["put", "k", "1"]);
    let old = cluster.pid(2);
    signal(old, Signal::KILL);
    wait_until("node 2 is gone", || !is_alive(old));
    cluster.wait_healthy();
    assert_eq!(cluster.json(&["incr", "k"])["value"], "2");
}
