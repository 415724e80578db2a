//! The switch that makes a node refuse configs, whatever their source.

use catena_proto::config::DeltaItem;
use catena_proto::report::{MasterFrame, Report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::master::{Master, Session};
use super::nodes::{Nodes, at, delta};

async fn switch(nodes: &Nodes, n: u64, query: &str) {
    let stream = tokio::net::TcpStream::connect(nodes.http(n)).await;
    let mut stream = stream.expect("connected");
    let ask = format!(
        "POST /debug/testing/refuse-configs?{query} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an answer");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
}

/// Two nodes in one chain, in epoch 2 at version 2.
async fn two(master: &mut Master) -> (Nodes, Session, Session) {
    let mut nodes = Nodes::new(2);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut one = master.session_of(1).await;
    nodes.start(2).await;
    let mut two = master.session_of(2).await;
    let first = nodes.first_delta(&nodes.state(1, &[1, 2], 1));
    let serving = delta(1, 2, vec![DeltaItem::Chain(nodes.chain(&[1, 2], 2))]);
    for session in [&mut one, &mut two] {
        session.push(&first).await;
        session.effective(at(1)).await;
    }
    for session in [&mut one, &mut two] {
        session.push(&serving).await;
    }
    for session in [&mut one, &mut two] {
        let ready = |r: &Report| r.effective == at(2) && r.replicas[0].in_sync;
        session.report_where(ready).await;
    }
    (nodes, one, two)
}

fn epoch(report: &Report) -> u64 {
    report.replicas[0].epoch.get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_refuses_stays_on_its_epoch_whatever_fellows_say_until_it_is_switched_back() {
    for (mode, refused) in [("nack", 1), ("ignore", 0)] {
        let mut master = Master::start().await;
        let (nodes, mut one, mut two) = two(&mut master).await;
        switch(&nodes, 2, &format!("on=true&mode={mode}")).await;
        let next = delta(2, 3, vec![DeltaItem::Chain(nodes.chain(&[1, 2], 3))]);
        assert_eq!(one.push(&next).await.refused.len(), 0);
        let outcome = two.push(&next).await;
        assert_eq!(outcome.refused.len(), refused);
        one.report_where(|r| epoch(r) == 3).await;
        // The head of the newer epoch refuses the old one's frames and teaches it (C3), again and again.
        for _ in 0..3 {
            let report = two.report().await;
            assert_eq!((epoch(&report), report.effective), (2, at(2)));
        }
        switch(&nodes, 2, "on=false").await;
        let mut two = master.session_of(2).await;
        if mode == "nack" {
            assert_eq!(two.open.position, at(2));
            two.push(&next).await;
        }
        two.report_where(|r| epoch(r) == 3 && r.effective == at(3))
            .await;
        one.report_where(|r| r.replicas[0].in_sync).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_answers_no_push_and_still_reports() {
    let mut master = Master::start().await;
    let (nodes, _one, mut two) = two(&mut master).await;
    switch(&nodes, 2, "on=true&mode=silent").await;
    let next = delta(2, 3, vec![DeltaItem::Chain(nodes.chain(&[1, 2], 3))]);
    two.send(MasterFrame::Push(next).into()).await;
    for _ in 0..3 {
        // Panics if the push is answered.
        assert_eq!(two.report().await.acked, at(2));
    }
}
