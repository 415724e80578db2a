//! `catena dev`: a whole cluster on this machine, each member a process of its own.
//!
//! What it starts are the very daemons of a real cluster with the very files of a
//! real cluster; only the ids, ports and folders are chosen for you.

mod bring_up;
mod commands;
mod create;
mod layout;
mod ports;
mod process;
mod randomness;
mod ready;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use catena_chainnode::engine::EngineKind;
use catena_proto::config::ClusterConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;
use crate::output::{Output, note};
use crate::serve::{end_with_parent, engine_parser};
use create::Made;
use layout::{ClusterFile, Layout};
use process::{Death, Event, Process};
use ready::Ready;

/// How long a start waits for the last run's processes to let go of folders and ports: when that
/// `dev` was killed a moment ago, the kernel may still be ending its children.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(5);

/// Arguments of `catena dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  catena dev                          three masters, three nodes, one shard, in a temporary folder
  catena dev --dir /srv/catena        the same, and the data is kept
  catena dev --shards 3 --supervise   three shards; processes that die are started again
  catena dev --nodes 5 --masters 1    two spare nodes, and a control plane without a spare
  catena dev --masters 0              nodes alone: they serve, and nobody replaces one that stays away

An existing --dir keeps its masters, nodes, shards and settings.")]
pub(crate) struct Args {
    /// Storage nodes [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    nodes: Option<u32>,
    /// Masters; 0 makes a cluster of nodes alone [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=7))]
    masters: Option<u32>,
    /// Shards, cut at evenly spaced hex prefixes, as `bench --spread` writes them [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "split_keys", value_parser = clap::value_parser!(u32).range(1..=4096))]
    shards: Option<u32>,
    /// Where one shard ends and the next begins
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    split_keys: Option<Vec<String>>,
    /// Members of each chain [default: 3, or as many as there are nodes]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=7))]
    replicas: Option<u32>,
    /// The cluster's folder; made when it is not there [default: a temporary one, removed at exit]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Cluster settings, a TOML file
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// What keeps the nodes' states on disk [default: fjall]
    #[arg(long, value_parser = engine_parser(), value_name = "NAME")]
    engine: Option<EngineKind>,
    /// Write ids, addresses, pids and commands to this file once the cluster serves
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Start children again that die
    #[arg(long)]
    supervise: bool,
    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    parent_pid: Option<u32>,
}

/// Runs a cluster until it is told to stop.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    if let Some(parent) = args.parent_pid {
        end_with_parent(parent)?;
    }
    let layout = Layout::open(args.dir.as_deref())?;
    // On this thread: children are tied to the thread that starts them.
    crate::on_all_threads(serve(args, &layout, output))
}

async fn serve(args: Args, layout: &Layout, output: &mut Output) -> Result<(), Failure> {
    let mut stop = Stop::listen()?;
    let Made {
        mut cluster,
        config,
    } = match layout.cluster()? {
        Some(cluster) => create::keep(&args, layout, cluster).await?,
        None => create::create(&args, layout).await?,
    };
    if layout.is_temporary() {
        note(&format!(
            "the data lies in {} and goes away at exit; --dir DIR keeps it\n",
            layout.dir().display()
        ));
    }
    let mut processes = commands::processes(layout, &cluster)?;
    let result = tokio::select! {
        result = attend(&args, layout, &mut cluster, config, &mut processes, output) => result,
        () = stop.asked() => Ok(()),
    };
    process::stop(&mut processes, stop.asked()).await;
    result
}

/// Starts the processes and looks after them, for ever.
async fn attend(
    args: &Args,
    layout: &Layout,
    cluster: &mut ClusterFile,
    config: Option<ClusterConfig>,
    processes: &mut [Process],
    output: &mut Output,
) -> Result<(), Failure> {
    start(layout, cluster, config, processes).await?;
    if cluster.to_bootstrap.take().is_some() {
        layout.write_cluster(cluster)?;
        commands::name_again(layout, cluster, processes)?;
    }
    let cluster = &*cluster;
    let announce = |processes: &[Process]| {
        let ready = Ready::new(layout, cluster, processes);
        args.ready_file
            .as_deref()
            .map_or(Ok(()), |path| ready.write(path))
            .map(|()| ready)
    };
    match announce(processes)?.show(layout.is_temporary(), output) {
        // The cluster has its own users; a closed stdout is none of their business.
        Err(failure) if failure.status != 0 => return Err(failure),
        _ => {}
    }
    loop {
        match process::next_event(processes).await {
            Event::Death(death) => tell(args, processes, &death),
            Event::RestartDue(at) => {
                processes[at].start()?;
                announce(processes)?;
            }
        }
    }
}

/// Starts the processes, and returns when every chain serves.
async fn start(
    layout: &Layout,
    cluster: &ClusterFile,
    config: Option<ClusterConfig>,
    processes: &mut [Process],
) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    for process in processes.iter_mut() {
        process.start()?;
    }
    let mut serving = std::pin::pin!(async {
        match config {
            Some(config) => bring_up::until_serving(layout, config).await,
            None => {
                bring_up::under_masters(cluster).await;
                Ok(())
            }
        }
    });
    loop {
        let event = tokio::select! {
            serving = &mut serving => return serving,
            event = process::next_event(processes) => event,
        };
        match event {
            Event::RestartDue(at) => processes[at].start()?,
            Event::Death(death) if death.may_pass() && began.elapsed() < LEFTOVERS_GRACE => {
                process::plan_restart(processes, death.at);
            }
            Event::Death(death) => return Err(died_early(&processes[death.at], &death)),
        }
    }
}

/// Says that a child died, and what happens next.
fn tell(args: &Args, processes: &mut [Process], death: &Death) {
    let name = processes[death.at].name.clone();
    let next = if args.supervise {
        let pause = process::plan_restart(processes, death.at);
        format!("it is started again in {} ms", pause.as_millis())
    } else {
        format!("start it again with: {}", processes[death.at].cmd.join(" "))
    };
    note(&format!(
        "{name} (pid {}) ended: {}; {next}\n",
        death.pid, death.status
    ));
}

fn died_early(process: &Process, death: &Death) -> Failure {
    Failure::local(
        "bringing the cluster up",
        format!(
            "{} ended: {}\n{}",
            process.name,
            death.status,
            process.last_words()
        ),
        "mend what its last words name, and start again",
    )
}

/// The signals that ask the cluster to stop.
#[derive(Debug)]
struct Stop(Vec<Signal>);

impl Stop {
    fn listen() -> Result<Self, Failure> {
        [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<_>>()
        .map(Self)
        .map_err(|why| Failure::local("listening for signals", why, "try again"))
    }

    /// Returns at the next signal.
    async fn asked(&mut self) {
        std::future::poll_fn(|context| {
            let mut any = self
                .0
                .iter_mut()
                .map(|signal| signal.poll_recv(context).is_ready());
            if any.any(|asked| asked) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }
}
