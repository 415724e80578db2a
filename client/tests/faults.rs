//! What a client does when nodes refuse, break, freeze or move: outcomes are never confused, and it finds its way.

#![allow(clippy::disallowed_methods, reason = "tests of the runtime")]

mod fake;

use std::time::{Duration, Instant};

use catena_client::{Cause, Client, Error, Options, ScanRange};
use catena_proto::errors::{Reason, Refusal};
use fake::{Cluster, Fault, eventually};

fn refuse(reason: Reason) -> Fault {
    Fault::Refuse(Refusal::new(reason, "on purpose"))
}

fn single() -> Options {
    Options::single_command()
}

fn patient() -> Options {
    Options {
        timeout: Duration::from_secs(30),
        ..Options::default()
    }
}

fn hasty() -> Options {
    Options {
        timeout: Duration::from_millis(300),
        ..Options::default()
    }
}

/// The next requests of node 1 meet these faults.
fn script(cluster: &Cluster, faults: impl IntoIterator<Item = Fault>) {
    cluster.world().node(1).script.extend(faults);
}

async fn opened(cluster: &Cluster, options: Options) -> Client {
    let client = cluster.client(options).await;
    client.put("warm", "up").await.expect("put");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_is_asked_for_again_and_executed_once() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, patient()).await;
    for fault in [Fault::Break, Fault::Swallow, Fault::Break] {
        script(&cluster, [fault]);
        client.increment("n", 1).await.expect("increment");
    }
    let got = client.get("n").await.expect("get").expect("it exists");
    assert_eq!(&got.value[..], b"3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_session_is_sent_once_and_its_lost_answer_is_unknown() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, single()).await;
    let writes = cluster.world().node(1).writes;
    script(&cluster, [Fault::Break]);
    let lost = client.increment("n", 1).await.expect_err("it is lost");
    assert!(lost.is_unknown(), "{lost}");
    assert_eq!(lost.code(), "unknown");
    assert_eq!(cluster.world().node(1).writes, writes + 1);
    let got = client.get("n").await.expect("get").expect("it happened");
    assert_eq!(&got.value[..], b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_a_session_goes_on_after_a_definite_refusal() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, single()).await;
    script(
        &cluster,
        [refuse(Reason::NotReady), refuse(Reason::Overloaded)],
    );
    assert_eq!(client.increment("n", 1).await.expect("in the end").value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_session_is_replaced_when_nothing_can_have_happened() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, patient()).await;
    cluster.world().sessions.clear();
    assert_eq!(client.increment("n", 1).await.expect("increment").value, 1);
    assert_eq!(cluster.world().sessions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_session_after_an_open_try_is_unknown() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, patient()).await;
    script(&cluster, [Fault::Break, refuse(Reason::UnknownSession)]);
    let error = client.increment("n", 1).await.expect_err("nobody knows");
    assert!(
        matches!(error, Error::Unknown(Cause::SessionLost(_))),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deadline_ends_a_read_as_failed_and_a_sent_write_as_unknown() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, hasty()).await;
    cluster.world().node(1).habit = Some(Fault::Ignore);
    let began = Instant::now();
    let read = client.get("n").await.expect_err("no answer");
    assert!(
        matches!(read, Error::Failed(Cause::TimedOut { .. })),
        "{read}"
    );
    assert!(began.elapsed() >= Duration::from_millis(290));
    let write = client.put("n", "1").await.expect_err("no answer");
    assert!(
        matches!(write, Error::Unknown(Cause::TimedOut { .. })),
        "{write}"
    );
    cluster.world().node(1).habit = Some(refuse(Reason::NotReady));
    let write = client.put("n", "1").await.expect_err("not ready");
    assert!(
        matches!(write, Error::Failed(Cause::NotReady(_))),
        "{write}"
    );
    assert!(write.is_unavailable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_never_left_is_failed() {
    let mut cluster = Cluster::start(1, &[]);
    let client = cluster.client(hasty()).await;
    cluster.kill(1);
    let error = client.put("n", "1").await.expect_err("nobody is there");
    assert!(matches!(error, Error::Failed(_)), "{error:?}");
    assert!(error.is_unavailable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chain_answer_teaches_the_route_and_an_old_one_is_not_believed() {
    let cluster = Cluster::start(3, &[]);
    let client = opened(&cluster, patient()).await;
    let old = cluster.world().chains.clone();
    cluster.world().reconfigure(1, &[2, 3]);
    client.put("a", "1").await.expect("node 2 is the head now");
    assert_eq!(client.chains()[0].epoch.get(), 2);
    // Node 2 falls behind: what it says about routes is older than what the client knows.
    cluster.world().node(2).old_chains = Some(old);
    let hasty_answer = tokio::time::timeout(Duration::from_millis(300), client.put("a", "2"));
    assert!(hasty_answer.await.is_err(), "nobody takes the write");
    assert_eq!(client.chains()[0].epoch.get(), 2, "the route was kept");
    cluster.world().node(2).old_chains = None;
    client.put("a", "3").await.expect("put");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_do_not_notice_a_dead_or_unready_member() {
    let mut cluster = Cluster::start(3, &[]);
    let client = opened(&cluster, patient()).await;
    for _ in 0..200 {
        client.get("warm").await.expect("get");
    }
    cluster.world().node(2).habit = Some(refuse(Reason::NotReady));
    cluster.kill(3);
    let began = Instant::now();
    for _ in 0..600 {
        client.get("warm").await.expect("get");
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "a dead member stalls no read"
    );
    let refused = cluster.world().node(2).reads;
    assert!(
        refused < 300,
        "an unready member is left alone: {refused} reads"
    );
    cluster.world().node(2).habit = None;
    eventually("it is asked again once it is ready", async || {
        for _ in 0..64 {
            client.get("warm").await.expect("get");
        }
        cluster.world().node(2).reads > refused + 64
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_stalls_a_read_for_one_try_only() {
    let cluster = Cluster::start(2, &[]);
    let client = opened(&cluster, patient()).await;
    cluster.world().node(1).habit = Some(Fault::Ignore);
    let began = Instant::now();
    for _ in 0..200 {
        client.get("warm").await.expect("get");
    }
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_follow_a_fail_over_by_themselves() {
    let mut cluster = Cluster::start(3, &[]);
    let client = opened(&cluster, patient()).await;
    cluster.kill(1);
    let write = tokio::spawn({
        let client = client.clone();
        async move { client.increment("n", 1).await }
    });
    let others = |cluster: &Cluster| -> usize {
        let mut world = cluster.world();
        (2..=3).map(|n| world.node(n).route_questions).sum()
    };
    eventually("the others are asked for routes", async || {
        others(&cluster) > 0
    })
    .await;
    cluster.world().reconfigure(1, &[2, 3]);
    let counter = write.await.expect("no panic").expect("increment");
    assert_eq!(counter.value, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_found_again() {
    let mut cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, patient()).await;
    for round in 1..=3 {
        cluster.kill(1);
        let write = tokio::spawn({
            let client = client.clone();
            async move { client.increment("n", 1).await }
        });
        cluster.restart(1);
        let counter = write.await.expect("no panic").expect("increment");
        assert_eq!(counter.value, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_counted_twice_while_connections_break() {
    let cluster = Cluster::start(1, &[]);
    let client = opened(&cluster, patient()).await;
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..50 {
                    client.increment("n", 1).await.expect("increment");
                }
            })
        })
        .collect();
    while !tasks.iter().all(|task| task.is_finished()) {
        // One at a time, and with room between them: else no frame would ever get through.
        if cluster.world().node(1).script.is_empty() {
            script(&cluster, [Fault::Break]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for task in tasks {
        task.await.expect("no panic");
    }
    cluster.world().node(1).script.clear();
    let got = client.get("n").await.expect("get").expect("it exists");
    assert_eq!(&got.value[..], b"800");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_cannot_hold_is_refused_at_once() {
    let cluster = Cluster::start(1, &[]);
    let options = Options {
        in_flight_max: 8,
        ..patient()
    };
    let client = opened(&cluster, options).await;
    cluster.world().node(1).habit = Some(Fault::Ignore);
    let reads: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("n").await })
        })
        .collect();
    eventually("eight are under way", async || {
        cluster.world().node(1).reads == 8
    })
    .await;
    let began = Instant::now();
    let ninth = client.get("n").await.expect_err("it is full");
    assert!(
        matches!(ninth, Error::Failed(Cause::Overloaded(_))),
        "{ninth}"
    );
    assert!(began.elapsed() < Duration::from_millis(500));
    // Callers that go away make room.
    for read in reads {
        read.abort();
        drop(read.await);
    }
    cluster.world().node(1).habit = None;
    client.get("n").await.expect("there is room");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_live_endpoint_among_dead_ones_is_enough() {
    let mut cluster = Cluster::start(3, &[]);
    let endpoints = cluster.endpoints();
    cluster.world().reconfigure(1, &[2]);
    cluster.kill(1);
    cluster.kill(3);
    let client = Client::connect(endpoints, Options::default())
        .await
        .expect("node 2 lives");
    client.put("a", "1").await.expect("put");
    client.get("a").await.expect("get");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_live_endpoint_is_unreachable_and_names_each() {
    let mut cluster = Cluster::start(1, &[]);
    let addr = cluster.addr(1);
    cluster.kill(1);
    let options = Options {
        connect_timeout: Duration::from_millis(300),
        ..Options::default()
    };
    let error = Client::connect([addr.clone()], options)
        .await
        .expect_err("dead");
    assert!(error.to_string().contains(&addr), "{error}");
    assert!(error.is_unavailable());
    let error = Client::connect(["nonsense"], Options::default()).await;
    assert!(matches!(error, Err(Error::Failed(Cause::Invalid(_)))));
    let error = Client::connect(Vec::<String>::new(), Options::default()).await;
    assert!(matches!(error, Err(Error::Failed(Cause::Invalid(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_cluster_is_refused_at_first_contact_and_later() {
    let cluster = Cluster::start(1, &[]);
    let other = catena_client::ClusterId::new(5);
    let options = Options {
        cluster: Some(other),
        connect_timeout: Duration::from_secs(1),
        ..Options::default()
    };
    let error = Client::connect(cluster.endpoints(), options)
        .await
        .expect_err("foreign");
    assert!(
        matches!(error, Error::Failed(Cause::ForeignCluster(_))),
        "{error}"
    );
    let client = cluster.client(hasty()).await;
    cluster.world().cluster = other;
    let error = client.get("a").await.expect_err("foreign now");
    assert!(matches!(error, Error::Failed(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_goes_on_behind_its_last_row_when_a_page_is_lost() {
    let cluster = Cluster::start(2, &[]);
    let client = opened(&cluster, patient()).await;
    for n in 0..100 {
        client.put(format!("k{n:03}"), "v").await.expect("put");
    }
    for node in 1..=2 {
        let faults = [Fault::Break, Fault::Break, Fault::Break];
        cluster.world().node(node).script.extend(faults);
    }
    let mut scan = client.scan(ScanRange::prefix("k"));
    let mut keys = Vec::new();
    while let Some(row) = scan.next().await.expect("a row") {
        keys.push(row.key);
    }
    let expected: Vec<_> = (0..100).map(|n| format!("k{n:03}")).collect();
    assert_eq!(keys, expected);
}
