//! A chain of three nodes as clients and fellows meet it: over real sockets, on real folders.
#![allow(
    clippy::disallowed_methods,
    reason = "these tests run real nodes: threads, files, sockets, time-outs"
)]

mod cluster;

use catena_chainnode::engine::EngineKind;
use catena_proto::call::Answer;
use catena_proto::op::{Outcome, WriteOp};
use catena_proto::wire;

use cluster::{Cluster, eventually, get, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_read_at_every_member_and_survives_restarts_of_one_and_of_all() {
    for engine in [EngineKind::Fjall, EngineKind::Memory] {
        let mut cluster = Cluster::start(engine).await;
        let mut head = cluster.pipe(1).await;
        head.put("a", "1").await;
        let one = head.write("n", WriteOp::Incr { by: 41 }).await;
        assert!(
            matches!(one, Outcome::Incremented { value: 41, .. }),
            "{one:?}"
        );
        assert_eq!(
            cluster.read_everywhere("a").await,
            vec![Some("1".to_owned()); 3]
        );
        assert_eq!(cluster.read_everywhere("nothing").await, vec![None; 3]);

        for n in 1..=3 {
            cluster.stop_node(n).await;
            cluster.start_node(n).await;
            cluster.until(|r| r.serving_reads).await;
            let mut head = cluster.pipe(1).await;
            head.put("a", &format!("after {n}")).await;
            head.write("n", WriteOp::Incr { by: 1 }).await;
            let expected = vec![Some(format!("after {n}")); 3];
            assert_eq!(cluster.read_everywhere("a").await, expected, "{engine}");
        }

        for n in 1..=3 {
            cluster.stop_node(n).await;
        }
        for n in [2, 3, 1] {
            cluster.start_node(n).await;
        }
        cluster.until(|r| r.serving_reads).await;
        assert_eq!(
            cluster.read_everywhere("a").await,
            vec![Some("after 3".to_owned()); 3]
        );
        assert_eq!(
            cluster.read_everywhere("n").await,
            vec![Some("44".to_owned()); 3]
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_of_many_requests_is_answered_whole_and_wrong_ones_by_themselves() {
    let cluster = Cluster::start(EngineKind::Memory).await;
    let mut head = cluster.pipe(1).await;
    let mut bodies = Vec::new();
    for i in 0..1000 {
        let value = format!("{i}").into();
        bodies.push(write(&format!("k{i:04}"), WriteOp::Put { value }));
    }
    // A counter that is changed within one frame: each change sees the one before it.
    bodies.extend((0..10).map(|_| write("n", WriteOp::Incr { by: 1 })));
    bodies.push(write("k0000", WriteOp::Incr { by: 1 }));
    let answers = head.call(bodies).await;
    assert!(
        answers.iter().all(|a| matches!(a, Answer::Outcome(_))),
        "{answers:?}"
    );
    let counted = |a: &Answer| matches!(a, Answer::Outcome(Outcome::Incremented { value: 10, .. }));
    assert_eq!(answers.iter().filter(|a| counted(a)).count(), 1);

    let mut tail = cluster.pipe(3).await;
    let reads: Vec<_> = (0..1000).map(|i| get(&format!("k{i:04}"))).collect();
    for (i, answer) in tail.call(reads).await.into_iter().enumerate() {
        let expected = if i == 0 { 1 } else { i };
        let found =
            matches!(&answer, Answer::Row { row, .. } if row.value == format!("{expected}"));
        assert!(found, "{i}: {answer:?}");
    }
    let refused = tail
        .call(vec![write("x", WriteOp::Delete), get("k0001")])
        .await;
    assert!(matches!(&refused[0], Answer::Refused(r) if !r.indefinite && r.chain.is_some()));
    assert!(matches!(refused[1], Answer::Row { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_takes_unary_calls_and_a_scan_sees_every_row_once() {
    let cluster = Cluster::start(EngineKind::Fjall).await;
    let channel = cluster::channel(cluster.addr(3)).await.expect("connected");
    let mut tail = wire::kv_client::KvClient::new(channel);
    for i in 0..300 {
        let put = wire::PutRequest {
            key: format!("k{i:03}").into(),
            value: vec![b'v'; 8000].into(),
            ..Default::default()
        };
        let done = tail
            .put(put)
            .await
            .expect("forwarded to the head")
            .into_inner();
        assert_eq!(
            done.outcome.expect("an outcome").kind(),
            wire::OutcomeKind::Written
        );
    }
    // The overlay takes rows away from the engine's pages: the scan must not end at an empty page.
    for i in 0..290 {
        let delete = wire::DeleteRequest {
            key: format!("k{i:03}").into(),
            ..Default::default()
        };
        tail.delete(delete).await.expect("deleted");
    }
    for (reverse, first) in [(false, "k290"), (true, "k299")] {
        let scan = wire::ScanRequest {
            reverse,
            ..Default::default()
        };
        let mut pages = tail.scan(scan).await.expect("a scan").into_inner();
        let mut keys = Vec::new();
        while let Some(page) = pages.message().await.expect("a page") {
            keys.extend(
                page.rows
                    .into_iter()
                    .map(|r| String::from_utf8_lossy(&r.key).into_owned()),
            );
        }
        assert_eq!((keys.len(), keys[0].as_str()), (10, first));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_say_whether_a_node_lives_and_would_serve() {
    let cluster = Cluster::start(EngineKind::Memory).await;
    let page = async |path: &str| -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(cluster.http(1))
            .await
            .expect("connected");
        let ask = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    };
    assert!(page("/livez").await.starts_with("HTTP/1.1 200"));
    assert!(page("/readyz").await.starts_with("HTTP/1.1 200"));
    let metrics = page("/metrics").await;
    assert!(
        metrics.contains("catena_replica_epoch{shard=\"1\"} 2"),
        "{metrics}"
    );
    eventually("no sync was counted", async || {
        let text = page("/metrics").await;
        text.lines()
            .find_map(|l| l.strip_prefix("catena_log_sync_seconds_count "))
            .and_then(|n| n.parse::<u64>().ok())
            .filter(|n| *n > 0)
    })
    .await;
}

/// A scan's first page. A member whose lease ran out on a busy machine refuses for a moment, as it should.
async fn first_page(channel: tonic::transport::Channel) -> Option<wire::ScanResponse> {
    let mut scanner = wire::kv_client::KvClient::new(channel);
    for _ in 0..1000 {
        let answer = match scanner.scan(wire::ScanRequest::default()).await {
            Ok(pages) => pages.into_inner().message().await,
            Err(refused) => Err(refused),
        };
        match answer {
            Ok(page) => return page,
            Err(refused) if refused.code() == tonic::Code::Unavailable => {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            Err(other) => panic!("a scan: {other}"),
        }
    }
    panic!("a scan was refused again and again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_written_all_the_time_can_be_read_and_scanned_at_every_member() {
    let cluster = Cluster::start(EngineKind::Memory).await;
    let writing = std::sync::atomic::AtomicBool::new(true);
    let write_on = async || {
        let mut head = cluster.pipe(1).await;
        while writing.load(std::sync::atomic::Ordering::SeqCst) {
            let burst = (0..64).map(|_| write("hot", WriteOp::Incr { by: 1 }));
            head.call(burst.collect()).await;
        }
    };
    let read_on = async {
        let mut newest = 0_u64;
        for round in 0..60 {
            let n = 1 + round % 3;
            let text = cluster.pipe(n).await.get("hot").await.unwrap_or_default();
            let found = text.parse().unwrap_or(0);
            assert!(
                found >= newest,
                "node {n} went back from {newest} to {found}"
            );
            newest = found;
            let channel = cluster::channel(cluster.addr(n)).await.expect("connected");
            let page = first_page(channel).await;
            let text = page.map(|p| p.rows[0].value.clone()).unwrap_or_default();
            let found = String::from_utf8_lossy(&text).parse().unwrap_or(0);
            assert!(
                found >= newest,
                "a scan of node {n} went back from {newest} to {found}"
            );
            newest = found;
        }
        writing.store(false, std::sync::atomic::Ordering::SeqCst);
    };
    // Several writers, so that some record of the key is pending at any time.
    tokio::join!(
        write_on(),
        write_on(),
        write_on(),
        write_on(),
        write_on(),
        write_on(),
        read_on
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_log_is_lost_is_no_member_and_one_whose_state_is_lost_rebuilds_it() {
    let mut cluster = Cluster::start(EngineKind::Fjall).await;
    cluster.pipe(1).await.put("a", "1").await;
    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.folder(3).join("state")).expect("removed");
    cluster.start_node(3).await;
    cluster.until(|r| r.serving_reads).await;
    assert_eq!(cluster.pipe(3).await.get("a").await, Some("1".to_owned()));

    cluster.stop_node(3).await;
    std::fs::remove_dir_all(cluster.folder(3).join("log")).expect("removed");
    cluster.start_node(3).await;
    cluster
        .until_node(3, |r| r.role == "none" && r.why.contains("rule C4"))
        .await;
    // Nobody commits without the member that the chain names.
    cluster.until_node(1, |r| !r.serving_reads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_garbage_are_refused_and_serving_goes_on() {
    let cluster = Cluster::start(EngineKind::Memory).await;
    let mut foreign =
        catena_proto::config::ClusterConfig::empty(catena_proto::ids::ClusterId::new(9));
    foreign.position.generation = catena_proto::ids::Generation::new(7);
    cluster::put(&cluster.store(), &foreign);
    let garbage = catena_proto::snapshot::name(catena_proto::config::ConfigPosition {
        generation: catena_proto::ids::Generation::new(8),
        version: catena_proto::ids::ConfigVersion::new(1),
    });
    std::fs::write(cluster.store().join(garbage), b"CATSNAP and then nothing").expect("written");

    let channel = cluster::channel(cluster.addr(2)).await.expect("connected");
    let mut chain = wire::chain_client::ChainClient::new(channel.clone());
    let open = |cluster_id: u128, node_id, disk_id: u128| wire::LinkFrame {
        open: Some(wire::LinkOpen {
            cluster_id: cluster_id.to_be_bytes().to_vec().into(),
            node_id,
            disk_id: disk_id.to_be_bytes().to_vec().into(),
            incarnation: 1,
            to_node_id: 2,
        }),
        messages: Vec::new(),
    };
    let ours = cluster::CLUSTER.get();
    for (first, part) in [
        (open(9, 1, 1), "cluster"),
        (open(ours, 9, 1), "not known"),
        (open(ours, 1, 1), "disk"),
        (wire::LinkFrame::default(), "name its sender"),
    ] {
        let refused = chain
            .link(tokio_stream::once(first))
            .await
            .expect_err("refused");
        assert!(refused.message().contains(part), "{refused:?}");
    }
    let mut kv = wire::kv_client::KvClient::new(channel);
    let header = wire::RequestHeader {
        cluster_id: 9_u128.to_be_bytes().to_vec().into(),
        hops: 0,
    };
    let get = wire::GetRequest {
        header: Some(header),
        key: "k".into(),
        ..Default::default()
    };
    let refused = kv.get(get).await.expect_err("a foreign cluster");
    assert!(refused.message().contains("cluster"), "{refused:?}");
    let mut stream = tokio::net::TcpStream::connect(cluster.addr(2))
        .await
        .expect("connected");
    let garbage: Vec<u8> = (0..4096_u32).map(|i| ((i * 7919) >> 3) as u8).collect();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &garbage)
        .await
        .expect("sent");

    cluster.pipe(1).await.put("a", "1").await;
    assert_eq!(
        cluster.read_everywhere("a").await,
        vec![Some("1".to_owned()); 3]
    );
}
