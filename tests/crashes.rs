//! Nodes killed under load, one by one and all at once: the chain comes back by
//! itself, nothing acknowledged is lost, nothing is done twice.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: these tests drive processes, and load beside them"
)]

mod harness;

use harness::Cluster;
use harness::load::Load;

/// Acknowledgements of every writer before and after each crash.
const SOME: u64 = 30;

/// Waits until the chain is whole and every writer gets on.
#[track_caller]
fn serves_again(cluster: &Cluster, load: &Load) {
    cluster.wait_healthy();
    load.wait_progress(SOME);
}

#[test]
fn head_middle_and_tail_die_in_turn_under_load_and_nothing_is_lost_or_done_twice() {
    let mut cluster = Cluster::start(&[]);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    for role in ["head", "middle", "tail"] {
        let id = cluster.with_role(1, role);
        cluster.kill(id);
        cluster.restart(id);
        serves_again(&cluster, &load);
    }
    assert!(load.finish() > 0);
}

#[test]
fn all_die_at_once_under_load_and_come_back_in_every_order() {
    let mut cluster = Cluster::start(&[]);
    let load = Load::start(&cluster.ready().endpoints);
    load.wait_progress(SOME);
    let orders = [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ];
    for order in orders {
        cluster.kill_all();
        for id in order {
            cluster.restart(id);
            cluster.wait_listening(id);
        }
        serves_again(&cluster, &load);
    }
    assert!(load.finish() > 0);
}
