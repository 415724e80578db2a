//! What does not belong: a second process on a folder, another cluster's node on
//! a folder or at an address, a folder that was emptied. Each is refused with its
//! words and status, and no data is touched.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests drive processes and move their folders"
)]

mod harness;

use harness::contents::Contents;
use harness::{Cluster, finish, wait_until};

/// Keys in the tests' data.
const KEYS: usize = 100;

#[test]
fn a_second_process_on_a_folder_ends_with_status_5_and_the_first_serves_on() {
    let cluster = Cluster::start(&["--engine", "memory"]);
    let second = finish(&mut cluster.restart_command(2), b"").ended(5);
    assert!(
        second.stderr.contains("a copy of this node is running"),
        "{second:?}"
    );
    cluster.json(&["put", "k", "v"]);
    assert_eq!(cluster.json(&["get", "k"])["value"], "v");
}

#[test]
fn a_folder_of_another_cluster_or_node_is_refused_with_status_3_and_stays_as_it_was() {
    let mut cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "mine/", KEYS);
    cluster.kill(2);
    let foreign = "00000000000040008000000000000001";
    for changes in [("--cluster-id", foreign), ("--node-id", "9")] {
        let refused = finish(&mut cluster.changed_command(2, &[changes]), b"").ended(3);
        let owner = format!(
            "belongs to node 2 of cluster {}",
            cluster.ready().cluster_id
        );
        assert!(refused.stderr.contains(&owner), "{changes:?}: {refused:?}");
    }
    cluster.restart(2);
    cluster.wait_healthy();
    contents.check(&cluster);
}

#[test]
fn a_node_of_another_cluster_that_connects_is_refused_and_both_keep_their_data() {
    let (mut ours, mut theirs) = (Cluster::start(&[]), Cluster::start(&[]));
    let (our_data, their_data) = (
        Contents::write(&ours, "same/", KEYS),
        Contents::write(&theirs, "same/", 2 * KEYS),
    );
    // Our node 2 takes the place of their node 2, whose fellows go on calling it there.
    ours.kill(2);
    theirs.kill(2);
    let place = theirs.node(2).addr.clone();
    ours.restart_changed(2, &[("--listen", &place), ("--advertise", &place)]);
    ours.wait_logged(2, "a stream is refused");
    ours.wait_logged(
        2,
        &format!("the sender is of {}", theirs.ready().cluster_id),
    );
    wait_until("a fellow of theirs is told so", || {
        let told = format!("this is cluster {}", ours.ready().cluster_id);
        [1, 3].iter().any(|id| theirs.log(*id).contains(&told))
    });
    ours.kill(2);
    for cluster in [&mut ours, &mut theirs] {
        cluster.restart(2);
        cluster.wait_healthy();
    }
    our_data.check(&ours);
    their_data.check(&theirs);
}

#[test]
fn an_emptied_folder_is_another_disk_which_never_serves_and_says_why() {
    let mut cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "kept/", KEYS);
    // The tail: if it served, every key would be gone.
    let tail = cluster.with_role(1, "tail");
    let disk = cluster.node_status(tail).expect("it answers").disk_id;
    cluster.kill(tail);
    let dir = cluster.node(tail).dir.clone();
    let aside = dir.with_extension("aside");
    std::fs::rename(&dir, &aside).expect("the folder is moved away");
    cluster.restart(tail);
    cluster.wait_why("must be added again");

    let status = cluster.node_status(tail).expect("it answers");
    assert_ne!(status.disk_id, disk);
    assert!(
        status
            .replicas
            .iter()
            .all(|replica| !replica.serving_reads && !replica.in_sync),
        "{status:?}"
    );
    assert!(cluster.page(tail, "/readyz").starts_with("HTTP/1.1 503"));
    assert!(cluster.page(tail, "/livez").starts_with("HTTP/1.1 200"));
    for from in [cluster.node(tail).addr.clone(), cluster.endpoints()] {
        let read = cluster.run(&[
            "get",
            "kept/000001",
            "--timeout",
            "2s",
            "--endpoints",
            &from,
        ]);
        assert!([0, 5].contains(&read.status), "{read:?}");
        let write = cluster.run(&["put", "other", "x", "--timeout", "2s", "--endpoints", &from]);
        assert!([5, 6].contains(&write.status), "{write:?}");
    }

    // The right disk comes back, and with it everything.
    cluster.kill(tail);
    std::fs::remove_dir_all(&dir).expect("the new folder is removed");
    std::fs::rename(&aside, &dir).expect("the folder is moved back");
    cluster.restart(tail);
    cluster.wait_healthy();
    contents.check(&cluster);
}
