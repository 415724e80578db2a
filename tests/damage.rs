//! Logs that were damaged while their node was down: a torn end is cut, a flipped
//! byte makes a replica unsynced, and a fellow repairs it, if it has one above it.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests drive processes and damage their files"
)]

mod harness;

use harness::Cluster;
use harness::contents::Contents;
use harness::segments::Segment;

/// Keys in the tests' data, each in a frame of its own.
const KEYS: usize = 200;
const TORN: &str = "a torn end of the log was cut";
const DAMAGED: &str = "damaged: the replica is unsynced until a fellow has repaired it";

/// A cluster with data, and the same one's node of a role, killed.
fn with_killed(role: &str) -> (Cluster, Contents, u64) {
    let mut cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "d/", KEYS);
    let id = cluster.with_role(1, role);
    cluster.kill(id);
    (cluster, contents, id)
}

/// Starts the node again, waits until all is well, and until all members hold the same.
#[track_caller]
fn comes_back_whole(cluster: &mut Cluster, id: u64, contents: &Contents) {
    cluster.restart(id);
    cluster.wait_healthy();
    contents.check(cluster);
    // A write passes every member, so what it is repaired to is also what it goes on from.
    Contents::write(cluster, "after/", 10).check(cluster);
    let ends = cluster.node_ids().into_iter().map(|id| {
        let status = cluster.node_status(id).expect("it answers");
        status.replicas[0].durable_seq
    });
    let ends: Vec<u64> = ends.collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[test]
fn rubbish_behind_the_last_frame_is_cut_on_every_member() {
    let mut cluster = Cluster::start(&[]);
    let contents = Contents::write(&cluster, "d/", KEYS);
    for id in cluster.node_ids() {
        cluster.kill(id);
        let mut segment = Segment::newest(&cluster.node(id).dir);
        let end = segment.last().end();
        segment.bytes[end..end + 777].fill(0xa5);
        segment.write();
        comes_back_whole(&mut cluster, id, &contents);
        assert!(!cluster.log(id).contains(DAMAGED), "{}", cluster.log(id));
    }
}

#[test]
fn a_half_written_last_frame_is_cut_and_written_again_by_the_predecessor() {
    for role in ["middle", "tail"] {
        let (mut cluster, contents, id) = with_killed(role);
        let mut segment = Segment::newest(&cluster.node(id).dir);
        let last = segment.last();
        segment.bytes[last.payload_at() + last.payload / 2..last.end()].fill(0);
        segment.write();
        comes_back_whole(&mut cluster, id, &contents);
        let log = cluster.log(id);
        assert!(log.contains(TORN) && !log.contains(DAMAGED), "{log}");
    }
}

#[test]
fn a_flipped_byte_in_the_middle_of_a_log_is_told_and_repaired_by_the_predecessor() {
    for role in ["middle", "tail"] {
        let (mut cluster, contents, id) = with_killed(role);
        flip(&cluster, id);
        comes_back_whole(&mut cluster, id, &contents);
        let log = cluster.log(id);
        assert!(log.contains(DAMAGED), "{log}");
        // It is whole again on its own disk too.
        cluster.kill(id);
        comes_back_whole(&mut cluster, id, &contents);
        assert_eq!(cluster.log(id).matches(DAMAGED).count(), 1, "{role}");
    }
}

#[test]
fn a_head_with_a_flipped_byte_serves_nothing_and_status_says_why() {
    let (mut cluster, _, head) = with_killed("head");
    flip(&cluster, head);
    cluster.restart(head);
    cluster.wait_logged(head, DAMAGED);
    cluster.wait_why("rule M3");
    let status = cluster.node_status(head).expect("it answers");
    let replica = &status.replicas[0];
    assert!(
        !replica.synced && !replica.in_sync && !replica.serving_reads,
        "{replica:?}"
    );
    let write = cluster.run(&["put", "d/000000", "x", "--timeout", "2s"]);
    assert!([5, 6].contains(&write.status), "{write:?}");
    // A key that exists is never said to be missing.
    let read = cluster.run(&["get", "d/000150", "--timeout", "2s"]);
    assert!([0, 5].contains(&read.status), "{read:?}");
}

#[track_caller]
fn flip(cluster: &Cluster, id: u64) {
    let mut segment = Segment::newest(&cluster.node(id).dir);
    let at = segment.middle_group().payload_at() + 1;
    segment.bytes[at] ^= 0x10;
    segment.write();
}
