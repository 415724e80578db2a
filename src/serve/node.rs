//! A storage node as a process: started, watched, and ended with the status that its supervisor counts on.

use catena_chainnode::runtime::{Fatal, Node, NodeConfig, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::config::NodeStart;
use crate::exit::{DaemonExit, Failure};

/// Runs the node until it is asked to stop, or cannot go on.
pub(crate) async fn run(start: NodeStart) -> Result<(), Failure> {
    // Before the node starts, so that it can be stopped at any time.
    let mut asked = Asked::listen()?;
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
        () = asked.stop() => return Ok(()),
    };
    tracing::info!(addr = %node.addr, http = %node.http, "{what} listens");
    tokio::select! {
        why = node.failed() => return Err(ended(&what, why)),
        () = asked.stop() => {}
    }
    tracing::info!("{what} stops");
    node.shutdown().await;
    Ok(())
}

/// The signals that ask a daemon to stop.
#[derive(Debug)]
pub(crate) struct Asked {
    terminate: Signal,
    interrupt: Signal,
}

impl Asked {
    /// From now on, they are not deadly.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|why| Failure::local("listening for signals", why, "try again"))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Returns at the next one.
    pub(crate) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn not_started(what: &str, why: &StartError) -> Failure {
    refused(what, why.exit_status(), why)
}

/// A daemon's start that came to nothing, with the exit status that its room gave it.
pub(crate) fn refused(what: &str, status: u8, why: &dyn std::fmt::Display) -> Failure {
    let (exit, code, help) = match status {
        2 => (
            DaemonExit::BadConfig,
            "bad_config",
            "mend the key that the message names",
        ),
        3 => (
            DaemonExit::WrongIdentity,
            "wrong_identity",
            "give the process its own folder, id and cluster",
        ),
        4 => (
            DaemonExit::DiskFailed,
            "disk_failed",
            "look at the disk and its free space, then start the process again",
        ),
        5 => (
            DaemonExit::AlreadyRunning,
            "already_running",
            "stop the other process first",
        ),
        _ => (DaemonExit::Failed, "failed", "see its log"),
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
