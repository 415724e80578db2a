//! The links in the reports: told at once when a stream breaks, within the limit when a fellow falls silent.

use std::time::Duration;

use catena_proto::config::{DeltaItem, Settings};
use catena_proto::conversion::chain::LinkOpen;
use catena_proto::ids::{Incarnation, NodeId};
use catena_proto::report::Report;
use catena_proto::wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::master::{Master, Session};
use super::nodes::{CLUSTER, Nodes, at, delta};

fn alive(report: &Report) -> Vec<(u64, bool)> {
    let link = |l: &catena_proto::report::LinkReport| (l.fellow.get(), l.alive);
    report.links.iter().map(link).collect()
}

/// Three nodes in one chain, each with a subscription.
async fn three(master: &mut Master, settings: Settings) -> (Nodes, Vec<Session>) {
    let mut nodes = Nodes::new(3);
    nodes.masters = vec![master.addr];
    let mut sessions = Vec::new();
    for n in 1..=3 {
        nodes.start(n).await;
        sessions.push(master.session_of(n).await);
    }
    let mut state = nodes.state(1, &[1, 2, 3], 1);
    state.settings = settings;
    for session in &mut sessions {
        session.push(&nodes.first_delta(&state)).await;
    }
    for session in &mut sessions {
        let in_sync = |r: &Report| r.effective == at(1) && r.replicas[0].in_sync;
        session.report_where(in_sync).await;
    }
    let serving = delta(1, 2, vec![DeltaItem::Chain(nodes.chain(&[1, 2, 3], 2))]);
    for session in &mut sessions {
        session.push(&serving).await;
    }
    for session in &mut sessions {
        let whole = |r: &Report| r.replicas[0].in_sync && r.links.iter().all(|l| l.alive);
        session
            .report_where(|r| r.effective == at(2) && whole(r))
            .await;
    }
    (nodes, sessions)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_breaks_is_reported_long_before_the_silence_limit() {
    let mut master = Master::start().await;
    // Only the broken stream can tell it in this test's time.
    let patient = Settings {
        link_silence_ms: 60_000,
        ..Settings::default()
    };
    let (mut nodes, mut sessions) = three(&mut master, patient).await;
    // A report that is not the one of the second comes sooner after the last.
    let mut sooner = 0;
    for _ in 0..3 {
        let mut before = Vec::new();
        for session in &mut sessions[..2] {
            before.push(session.report().await.uptime);
        }
        nodes.stop(3).await;
        for (at, links) in [(0, [(2, true), (3, false)]), (1, [(1, true), (3, false)])] {
            loop {
                let report = sessions[at].report().await;
                let since = report.uptime.saturating_sub(before[at]);
                if alive(&report) == links {
                    sooner += u32::from(since < Duration::from_millis(950));
                    break;
                }
                before[at] = report.uptime;
            }
        }
        nodes.start(3).await;
        for session in &mut sessions[..2] {
            let whole = |r: &Report| r.links.iter().all(|l| l.alive);
            session.report_where(whole).await;
        }
    }
    assert!(sooner > 0, "each change waited for the second's report");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_of_a_healthy_chain_live_also_between_members_that_have_nothing_to_say() {
    let mut master = Master::start().await;
    let (_nodes, mut sessions) = three(&mut master, Settings::default()).await;
    // Each second brings a report; four of them take several times the silence limit.
    for _ in 0..4 {
        for session in &mut sessions {
            let report = session.report().await;
            assert_eq!(alive(&report).len(), 2);
            // A machine that stalls may make a link look silent; nothing but a beat keeps head and tail in touch.
            session
                .report_where(|r| r.links.iter().all(|l| l.alive))
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fellow_that_falls_silent_on_an_open_stream_is_reported_within_the_limit() {
    let mut master = Master::start().await;
    let mut nodes = Nodes::new(2);
    nodes.masters = vec![master.addr];
    nodes.start(1).await;
    let mut session = master.session().await;
    let mut state = nodes.state(1, &[1, 2], 1);
    let mut two = nodes.info(1);
    (two.node, two.disk) = (NodeId::new(2), nodes.disk(2));
    two.addr = "127.0.0.1:1".to_owned();
    state.nodes.insert(two.node, two);
    session.push(&nodes.first_delta(&state)).await;
    let report = session.effective(at(1)).await;
    assert_eq!(alive(&report), [(2, false)], "never heard");
    assert_eq!(report.links[0].silent, None);

    // The test is node 2: it says who it is, beats a few times, and then nothing more.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", nodes.addr(1)));
    let channel = endpoint
        .expect("an address")
        .connect()
        .await
        .expect("connected");
    let (frames, waiting) = mpsc::channel(16);
    let open = LinkOpen {
        cluster: CLUSTER,
        node: NodeId::new(2),
        disk: nodes.disk(2),
        incarnation: Incarnation::new(1),
        to: NodeId::new(1),
    };
    let opening = wire::LinkFrame {
        open: Some(open.into()),
        ..Default::default()
    };
    frames.send(opening).await.expect("sent");
    let mut fellow = wire::chain_client::ChainClient::new(channel);
    let link = tokio::spawn(async move { fellow.link(ReceiverStream::new(waiting)).await });
    session.report_where(|r| alive(r) == [(2, true)]).await;
    for _ in 0..5 {
        frames.send(wire::LinkFrame::default()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let report = session.report_where(|r| alive(r) == [(2, false)]).await;
    let silent = report.links[0].silent.expect("it was heard");
    assert!(silent >= Duration::from_millis(400), "{silent:?}");
    assert!(!link.is_finished(), "the stream is open");
    frames.send(wire::LinkFrame::default()).await.expect("sent");
    session.report_where(|r| alive(r) == [(2, true)]).await;
}
