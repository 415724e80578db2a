//! `catena dev`: a whole cluster on this machine, each member a process of its own.
//!
//! What it starts are the very daemons of a real cluster with the very files of a
//! real cluster; only the ids, ports and folders are chosen for you.

mod bring_up;
mod layout;
mod ports;
mod process;
mod randomness;
mod ready;
mod settings;
mod store;

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use catena_chainnode::engine::EngineKind;
use catena_chainnode::runtime::folder;
use catena_master::bootstrap;
use catena_proto::config::{ClusterConfig, NodeInfo};
use catena_proto::ids::{DiskId, NodeId};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;
use crate::output::{Output, note};
use crate::serve::{end_with_parent, engine_parser};
use layout::{ClusterFile, Layout, NodeEntry};
use process::{Death, Event, Process};
use ready::Ready;

/// Nodes of a new cluster, unless told otherwise.
const NODES_DEFAULT: u32 = 3;
/// Copies of each shard, unless told otherwise or there are fewer nodes.
const REPLICAS_DEFAULT: u32 = 3;

/// How long a start waits for the last run's processes to let go of folders and ports: when that
/// `dev` was killed a moment ago, the kernel may still be ending its children.
const LEFTOVERS_GRACE: Duration = Duration::from_secs(5);

/// Arguments of `catena dev`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  catena dev                          three nodes, one shard, in a temporary folder
  catena dev --dir /srv/catena        the same, and the data is kept
  catena dev --shards 3 --supervise   three shards; nodes that die are started again

An existing --dir keeps its nodes, shards and settings.")]
pub(crate) struct Args {
    /// Storage nodes [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    nodes: Option<u32>,
    /// Masters; this version has none yet and takes only 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=0))]
    masters: u32,
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
    let (cluster, config) = match layout.cluster()? {
        Some(cluster) => {
            let config = store::newest(layout, cluster.cluster_id).await?;
            (keep(&args, layout, cluster)?, config)
        }
        None => create(&args, layout).await?,
    };
    if layout.is_temporary() {
        note(&format!(
            "the data lies in {} and goes away at exit; --dir DIR keeps it\n",
            layout.dir().display()
        ));
    }
    let mut processes = processes(layout, &cluster)?;
    let result = tokio::select! {
        result = attend(&args, layout, &cluster, config, &mut processes, output) => result,
        () = stop.asked() => Ok(()),
    };
    process::stop(&mut processes, stop.asked()).await;
    result
}

/// Starts the processes and looks after them, for ever.
async fn attend(
    args: &Args,
    layout: &Layout,
    cluster: &ClusterFile,
    config: ClusterConfig,
    processes: &mut [Process],
    output: &mut Output,
) -> Result<(), Failure> {
    start(layout, config, processes).await?;
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
    config: ClusterConfig,
    processes: &mut [Process],
) -> Result<(), Failure> {
    let began = tokio::time::Instant::now();
    for process in processes.iter_mut() {
        process.start()?;
    }
    let mut serving = std::pin::pin!(bring_up::until_serving(layout, config));
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

/// Makes a new cluster: ports, node folders, the first config in the store.
async fn create(args: &Args, layout: &Layout) -> Result<(ClusterFile, ClusterConfig), Failure> {
    let settings = settings::read(args.settings.as_deref())?;
    let nodes = args.nodes.unwrap_or(NODES_DEFAULT);
    let replicas = args.replicas.unwrap_or_else(|| REPLICAS_DEFAULT.min(nodes));
    let cluster_id = randomness::cluster_id()?;
    let addresses = ports::free(2 * usize::try_from(nodes).unwrap_or(0))?;
    let entries = addresses.chunks_exact(2).zip(1..);
    let cluster = ClusterFile {
        cluster_id,
        engine: args.engine.unwrap_or_default().to_string(),
        nodes: entries
            .map(|(pair, id)| NodeEntry {
                id,
                addr: pair[0],
                http: pair[1],
            })
            .collect(),
    };
    let mut plan = bootstrap::Plan {
        cluster: cluster_id,
        nodes: cluster.nodes.iter().map(node_info).collect(),
        split_keys: split_keys(args)?,
        replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
        settings,
    };
    // The plan is checked before anything is written.
    bootstrap::creating(plan.clone()).map_err(|why| no_plan(&why))?;
    for info in &mut plan.nodes {
        let dir = layout.node_dir(info.node.get());
        let disk = folder::format(&dir, cluster_id, info.node);
        info.disk = disk.map_err(|why| {
            Failure::local(
                format!("making the folder of node {}", info.node),
                why,
                "name another folder with --dir",
            )
        })?;
    }
    let config = bootstrap::creating(plan).map_err(|why| no_plan(&why))?;
    store::write(layout, &config).await?;
    layout.write_cluster(&cluster)?;
    Ok((cluster, config))
}

fn node_info(entry: &NodeEntry) -> NodeInfo {
    NodeInfo {
        node: NodeId::new(entry.id),
        // Known once its folder is made.
        disk: DiskId::new(0),
        addr: entry.addr.to_string(),
        http: entry.http.to_string(),
        zone: String::new(),
    }
}

fn split_keys(args: &Args) -> Result<Vec<Bytes>, Failure> {
    match &args.split_keys {
        Some(keys) => Ok(keys
            .iter()
            .map(|key| Bytes::copy_from_slice(key.as_bytes()))
            .collect()),
        None => {
            let shards = usize::try_from(args.shards.unwrap_or(1)).unwrap_or(usize::MAX);
            bootstrap::even_split_keys(shards).map_err(|why| no_plan(&why))
        }
    }
}

fn no_plan(why: &bootstrap::BootstrapError) -> Failure {
    Failure::usage(
        "planning the cluster",
        why.to_string(),
        "`catena dev --help` explains the flags",
    )
}

/// The cluster that the folder holds, unless the flags ask for another one.
fn keep(args: &Args, layout: &Layout, cluster: ClusterFile) -> Result<ClusterFile, Failure> {
    let nodes_differ = args
        .nodes
        .is_some_and(|nodes| usize::try_from(nodes) != Ok(cluster.nodes.len()));
    let engine_differs = args
        .engine
        .is_some_and(|engine| engine.as_str() != cluster.engine);
    let flag = [
        ("--nodes", nodes_differ),
        ("--engine", engine_differs),
        ("--shards", args.shards.is_some()),
        ("--split-keys", args.split_keys.is_some()),
        ("--replicas", args.replicas.is_some()),
        ("--settings", args.settings.is_some()),
    ];
    match flag.iter().find(|(_, given)| *given) {
        None => Ok(cluster),
        Some((flag, _)) => Err(Failure::usage(
            format!("{flag} with --dir {}", layout.dir().display()),
            "the folder holds a cluster already, and that is decided when a cluster is made",
            format!("leave {flag} away, or name a new folder"),
        )),
    }
}

/// A process for each node, not started yet. The commands name nothing inside the nodes' own
/// folders, so that a process also starts, and says what is wrong, when its folder was emptied.
fn processes(layout: &Layout, cluster: &ClusterFile) -> Result<Vec<Process>, Failure> {
    let program = std::env::current_exe().map_err(|why| {
        Failure::local(
            "finding this program's own file",
            why,
            "start it by its whole path",
        )
    })?;
    let process = |node: &NodeEntry| {
        let mut cmd = vec![program.display().to_string(), "serve".into(), "node".into()];
        let flags = [
            ("--cluster-id", cluster.cluster_id.to_string()),
            ("--node-id", node.id.to_string()),
            ("--dir", layout.node_dir(node.id).display().to_string()),
            ("--listen", node.addr.to_string()),
            ("--advertise", node.addr.to_string()),
            ("--http", node.http.to_string()),
            ("--snapshot-store", store::url(layout)),
            ("--engine", cluster.engine.clone()),
        ];
        cmd.extend(
            flags
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]),
        );
        Process::new(format!("node {}", node.id), cmd, layout.node_log(node.id))
    };
    Ok(cluster.nodes.iter().map(process).collect())
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
