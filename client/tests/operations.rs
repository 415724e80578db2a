//! Every operation, over two shards, and what travels where.

#![allow(clippy::disallowed_methods, reason = "tests of the runtime")]

mod fake;

use bytes::Bytes;
use catena_client::{
    Cause, Client, Consistency, Error, Expect, NodeId, Options, ReadFrom, ScanRange, Seq, Swap,
    node_status_at,
};
use fake::{Cluster, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_answers_as_the_contract_says() {
    let cluster = Cluster::start(3, &["m"]);
    let client = cluster.client(Options::default()).await;
    assert_eq!(client.get("a").await, Ok(None));
    let put = client.put("a", "1").await.expect("put");
    let got = client.get("a").await.expect("get").expect("it exists");
    assert_eq!((&got.value[..], got.version), (&b"1"[..], put.version));
    assert_eq!(got.freshness, None);
    let upper = client.put("z", "9").await.expect("put");
    assert_ne!(put.shard, upper.shard);

    let counter = client.increment("a", 41).await.expect("increment");
    assert_eq!(counter.value, 42);
    let miss = client.compare_and_swap("a", Expect::Version(put.version), "x");
    let Ok(Swap::Mismatch { actual, .. }) = miss.await else {
        panic!("the version has changed");
    };
    assert_eq!(actual, Some(counter.version));
    let hit = client.compare_and_swap("a", Expect::Value("42".into()), "x");
    assert!(matches!(hit.await, Ok(Swap::Swapped(_))));
    let absent = client.compare_and_swap("new", Expect::Absent, "y");
    assert!(matches!(absent.await, Ok(Swap::Swapped(_))));

    client.append("a", "yz").await.expect("append");
    let got = client.get("a").await.expect("get").expect("it exists");
    assert_eq!(&got.value[..], b"xyz");
    let nan = client.increment("a", 1).await;
    assert_eq!(nan, Err(Error::Failed(Cause::NotANumber)));
    assert!(client.delete("a").await.expect("delete").existed);
    assert!(!client.delete("a").await.expect("delete").existed);

    let stale = Consistency::Stale {
        lag_ms_max: Some(100),
    };
    let got = client.get_with("z", stale).await.expect("get");
    let freshness = got.and_then(|value| value.freshness);
    assert_eq!(freshness.map(|f| f.lag_ms), Some(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_visit_shards_in_order_both_ways_and_page_by_page() {
    let cluster = Cluster::start(2, &["k050", "k100"]);
    let client = cluster.client(Options::default()).await;
    let keys: Vec<String> = (0..150).map(|n| format!("k{n:03}")).collect();
    for key in &keys {
        client.put(key.clone(), key.clone()).await.expect("put");
    }
    let all = read(&client, ScanRange::all()).await;
    assert_eq!(all, keys);
    let backwards: Vec<String> = keys.iter().rev().cloned().collect();
    assert_eq!(read(&client, ScanRange::all().reversed()).await, backwards);
    let some = ScanRange::between("k045", Some("k105".into()));
    assert_eq!(read(&client, some.clone()).await, keys[45..105]);
    assert_eq!(read(&client, some.limited(55)).await, keys[45..100]);
    assert_eq!(
        read(&client, ScanRange::prefix("k14")).await,
        keys[140..150]
    );
    assert!(read(&client, ScanRange::prefix("nothing")).await.is_empty());
    assert!(read(&client, ScanRange::all().limited(0)).await.is_empty());
}

async fn read(client: &Client, range: ScanRange) -> Vec<String> {
    let mut scan = client.scan(range);
    let mut keys = Vec::new();
    while let Some(page) = scan.next_page().await.expect("a page") {
        assert!(!page.is_empty());
        keys.extend(page.into_iter().map(|row| {
            assert_eq!(row.key, row.value);
            String::from_utf8(row.key.to_vec()).expect("ours")
        }));
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_client_learns_the_other_shards_when_a_reverse_scan_needs_them() {
    let cluster = Cluster::start(1, &["g", "p"]);
    let writer = cluster.client(Options::default()).await;
    for key in ["a", "h", "q"] {
        writer.put(key, key).await.expect("put");
    }
    let fresh = cluster.client(Options::default()).await;
    assert_eq!(fresh.chains().len(), 1, "the first page holds one chain");
    assert_eq!(
        read(&fresh, ScanRange::all().reversed()).await,
        ["q", "h", "a"]
    );
    let other = cluster.client(Options::default()).await;
    other.learn_all_routes().await.expect("every page");
    assert_eq!(other.chains().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_many_tasks_share_frames() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.client(Options::default()).await;
    client.put("k", "v").await.expect("put");
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    client.get("k").await.expect("get");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    let mut world = cluster.world();
    let node = world.node(1);
    assert_eq!(node.reads, 6400);
    assert!(node.frames * 4 < node.reads, "{} frames", node.frames);
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_spread_over_members_or_go_to_the_tail() {
    let cluster = Cluster::start(3, &[]);
    let any = cluster.client(Options::default()).await;
    for _ in 0..600 {
        any.get("k").await.expect("get");
    }
    for node in 1..=3 {
        let reads = cluster.world().node(node).reads;
        assert!(reads >= 128, "node {node} answered {reads}");
    }
    let before = cluster.world().node(3).reads;
    let options = Options {
        read_from: ReadFrom::Tail,
        ..Options::default()
    };
    let tail = cluster.client(options).await;
    for _ in 0..100 {
        tail.get("k").await.expect("get");
    }
    assert_eq!(cluster.world().node(3).reads, before + 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_big_for_the_pipe_goes_by_a_unary_call() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.client(Options::default()).await;
    let big = Bytes::from(vec![7; 1 << 20]);
    client.put("big", big.clone()).await.expect("put");
    let got = client.get("big").await.expect("get").expect("it exists");
    assert_eq!(got.value, big);
    assert_eq!(cluster.world().node(1).unary, 2);
    let huge = Bytes::from(vec![7; (4 << 20) + 1]);
    let refused = client.put("huge", huge).await;
    assert!(matches!(refused, Err(Error::Failed(Cause::Invalid(_)))));
    let refused = client.get("").await;
    assert!(matches!(refused, Err(Error::Failed(Cause::Invalid(_)))));
    assert_eq!(cluster.world().node(1).unary, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_writers_than_slots_wait_for_their_turn() {
    let cluster = Cluster::start(1, &[]);
    let client = cluster.client(Options::default()).await;
    let writes: Vec<_> = (0..1500)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.increment("n", 1).await })
        })
        .collect();
    for write in writes {
        write.await.expect("no panic").expect("increment");
    }
    let got = client.get("n").await.expect("get").expect("it exists");
    assert_eq!(&got.value[..], b"1500");
    assert_eq!(cluster.world().sessions.len(), 1);
    client.close().await;
    eventually("the session is closed", async || {
        cluster.world().sessions.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_tell_their_status_by_name_and_by_address() {
    let cluster = Cluster::start(2, &[]);
    let client = cluster.client(Options::default()).await;
    let status = client.node_status(NodeId::new(2)).await.expect("it is up");
    assert_eq!(status.node_id, 2);
    let timeout = std::time::Duration::from_secs(5);
    let status = node_status_at(&cluster.addr(1), timeout).await.expect("up");
    assert_eq!(status.node_id, 1);
    let nobody = client.node_status(NodeId::new(9)).await;
    assert!(matches!(nobody, Err(Error::Failed(Cause::Unreachable(_)))));
    assert_eq!(client.nodes().len(), 2);
    assert_ne!(client.put("k", "v").await.expect("put").version, Seq::ZERO);
}
