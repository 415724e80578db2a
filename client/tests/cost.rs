//! What a read costs this side: run by hand, in release.
//!
//! `cargo test -p catena-client --release --test cost -- --ignored --nocapture`

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "measures, and says what it measured"
)]

mod fake;

use std::time::{Duration, Instant};

use catena_client::Options;
use fake::Cluster;

/// CPU time of this process's threads whose name begins so, in seconds.
fn cpu(name: &str) -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").expect("Linux") {
        let path = task.expect("a thread").path().join("stat");
        let Ok(stat) = std::fs::read_to_string(path) else {
            continue;
        };
        let (head, rest) = stat.rsplit_once(')').expect("its form");
        if head
            .split_once('(')
            .is_some_and(|(_, n)| n.starts_with(name))
        {
            let fields: Vec<&str> = rest.split_whitespace().collect();
            ticks += fields[11].parse::<u64>().expect("utime");
            ticks += fields[12].parse::<u64>().expect("stime");
        }
    }
    ticks as f64 / 100.0
}

fn measure(nodes: usize, tasks: usize, threads: usize, writes: bool) {
    let cluster = Cluster::start(nodes, &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("client")
        .enable_all()
        .build()
        .expect("a runtime");
    let (ops, seconds, client_cpu) = runtime.block_on(async {
        let client = cluster.client(Options::default()).await;
        client.put("key", vec![b'x'; 100]).await.expect("put");
        let (began, before) = (Instant::now(), cpu("client"));
        let until = began + Duration::from_secs(3);
        let work: Vec<_> = (0..tasks)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let mut ops = 0_u64;
                    let value = bytes::Bytes::from(vec![b'x'; 100]);
                    while Instant::now() < until {
                        if writes {
                            client.put("key", value.clone()).await.expect("put");
                        } else {
                            client.get("key").await.expect("get");
                        }
                        ops += 1;
                    }
                    ops
                })
            })
            .collect();
        let mut ops = 0;
        for task in work {
            ops += task.await.expect("no panic");
        }
        (ops, began.elapsed().as_secs_f64(), cpu("client") - before)
    });
    let mut world = cluster.world();
    let frames: usize = (1..=nodes as u64).map(|n| world.node(n).frames).sum();
    println!(
        "{} nodes {nodes} tasks {tasks:4} threads {threads}: {:8.0} ops/s, client {:.2} us/op, {:.1} requests a frame",
        if writes { "put" } else { "get" },
        ops as f64 / seconds,
        client_cpu * 1e6 / ops as f64,
        ops as f64 / frames as f64,
    );
}

#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_an_operation() {
    for (nodes, tasks, threads) in [
        (1, 1, 2),
        (1, 64, 1),
        (1, 64, 2),
        (3, 64, 2),
        (1, 256, 2),
        (3, 256, 2),
    ] {
        measure(nodes, tasks, threads, false);
    }
    measure(1, 64, 2, true);
    measure(1, 256, 2, true);
}
