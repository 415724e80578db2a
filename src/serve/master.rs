//! A master as a process: started, watched, and ended with the status that its supervisor counts on.

use catena_master::raft::Fatal;
use catena_master::runtime::{Bootstrap, Master, MasterConfig, StartError};

use super::master_config::MasterStart;
use super::node::{Asked, refused};
use crate::exit::{DaemonExit, Failure};

/// Runs the master until it is asked to stop, or cannot go on.
pub(crate) async fn run(start: MasterStart) -> Result<(), Failure> {
    // Before the master starts, so that it can be stopped at any time.
    let mut asked = Asked::listen()?;
    let what = format!("master {}", start.master);
    tracing::info!(advertise = start.advertise, dir = %start.dir.display(), "{what}");
    let starting = Master::start(MasterConfig {
        cluster: start.cluster,
        master: start.master,
        dir: start.dir,
        listen: start.listen,
        http: start.http,
        advertise: Some(start.advertise),
        masters: start.masters,
        snapshot_store: start.snapshot_store,
        bootstrap: start.bootstrap.map(|new| Bootstrap {
            split_keys: new.split_keys,
            replicas: new.replicas,
            settings: new.settings,
        }),
        version: env!("CARGO_PKG_VERSION"),
    });
    let master = tokio::select! {
        started = starting => started.map_err(|why| not_started(&what, &why))?,
        () = asked.stop() => return Ok(()),
    };
    tracing::info!(addr = %master.addr, http = %master.http, "{what} listens");
    tokio::select! {
        why = master.failed() => return Err(ended(&what, why)),
        () = asked.stop() => {}
    }
    tracing::info!("{what} stops");
    master.shutdown().await;
    Ok(())
}

fn not_started(what: &str, why: &StartError) -> Failure {
    refused(what, why.exit_status(), why)
}

fn ended(what: &str, why: Fatal) -> Failure {
    let (exit, code, help) = match &why {
        Fatal::Disk { .. } => (
            DaemonExit::DiskFailed,
            "disk_failed",
            "look at the disk and at the master's log; a failed sync is never tried again, only a new start reads what is there",
        ),
        Fatal::Raft { .. } => (
            DaemonExit::Failed,
            "bug",
            "keep the master's log and its folder, report both, and start it again",
        ),
    };
    Failure::daemon(exit, code, what, why.to_string(), help)
}
