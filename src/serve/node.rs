//! A storage node as a process: started, watched, and ended with the status that its supervisor counts on.

use catena_chainnode::runtime::{Fatal, Node, NodeConfig, StartError};
use tokio::signal::unix::{SignalKind, signal};

use super::config::NodeStart;
use crate::exit::{DaemonExit, Failure};

/// Runs the node until it is asked to stop, or cannot go on.
pub(crate) async fn run(start: NodeStart) -> Result<(), Failure> {
    let listen = |kind| {
        signal(kind).map_err(|why| Failure::local("listening for signals", why, "try again"))
    };
    // Before the node starts, so that it can be stopped at any time.
    let (mut terminate, mut interrupt) = (
        listen(SignalKind::terminate())?,
        listen(SignalKind::interrupt())?,
    );
    let what = format!("node {}", start.node);
    tracing::info!(advertise = start.advertise, zone = start.zone, dir = %start.dir.display(), "{what}");
    let starting = Node::start(NodeConfig {
        cluster: start.cluster,
        node: start.node,
        dir: start.dir,
        listen: start.listen,
        http: start.http,
        advertise: Some(start.advertise),
        http_advertise: None,
        zone: start.zone,
        masters: start.masters,
        snapshot_store: start.snapshot_store,
        engine: start.engine,
        version: env!("CARGO_PKG_VERSION"),
    });
    let node = tokio::select! {
        started = starting => started.map_err(|why| not_started(&what, &why))?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tracing::info!(addr = %node.addr, http = %node.http, "{what} listens");
    tokio::select! {
        why = node.failed() => return Err(ended(&what, why)),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("{what} stops");
    node.shutdown().await;
    Ok(())
}

fn not_started(what: &str, why: &StartError) -> Failure {
    let (exit, code, help) = match why.exit_status() {
        2 => (
            DaemonExit::BadConfig,
            "bad_config",
            "mend the key that the message names",
        ),
        3 => (
            DaemonExit::WrongIdentity,
            "wrong_identity",
            "give the node its own folder, id and cluster",
        ),
        4 => (
            DaemonExit::DiskFailed,
            "disk_failed",
            "look at the disk and its free space, then start the node again",
        ),
        5 => (
            DaemonExit::AlreadyRunning,
            "already_running",
            "stop the other process first",
        ),
        _ => (DaemonExit::Failed, "failed", "see the node's log"),
    };
    Failure::daemon(
        exit,
        code,
        format!("starting {what}"),
        why.to_string(),
        help,
    )
}

fn ended(what: &str, why: Fatal) -> Failure {
    match why {
        Fatal::Disk => Failure::daemon(
            DaemonExit::DiskFailed,
            "disk_failed",
            what,
            "its disk failed",
            "look at the disk and at the node's log; a failed sync is never tried again, only a new start reads what is there",
        ),
        Fatal::Bug => Failure::daemon(
            DaemonExit::Failed,
            "bug",
            what,
            "an invariant did not hold, and a thread panicked",
            "keep the node's log and its folder, report both, and start it again",
        ),
    }
}
