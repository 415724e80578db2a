//! `catena serve`: the daemons.

mod config;
mod logging;
mod master;
mod master_config;
mod node;
mod parent;

use clap::Subcommand;

use crate::exit::Failure;

pub(crate) use config::engine_parser;
pub(crate) use parent::end_with as end_with_parent;

/// The daemons.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a storage node
    #[command(after_help = "\
Every key is also a CATENA_* variable and a key of the --config file; a flag wins over a variable,
a variable over the file.

Exit status: 0 asked to stop, 2 bad config, 3 wrong cluster, id or disk, 4 the disk failed,
5 a copy of this node is running.

Example:
  catena serve node --config /etc/catena/node.toml --log-format json")]
    Node(Box<NodeArgs>),
    /// Run a master
    #[command(after_help = "\
Every key is also a CATENA_* variable and a key of the --config file; a flag wins over a variable,
a variable over the file. A master with an empty folder starts only with --bootstrap.

Exit status: 0 asked to stop, 2 bad config, 3 wrong cluster, id or disk, 4 the disk failed,
5 a copy of this master is running.

Examples:
  catena serve master --config /etc/catena/master.toml --log-format json
  catena serve master --config /etc/catena/master.toml --bootstrap --shards 16   once, for a new cluster")]
    Master(Box<MasterArgs>),
}

/// Arguments of `catena serve master`.
#[derive(Debug, clap::Args)]
pub(crate) struct MasterArgs {
    #[command(flatten)]
    keys: master_config::MasterFlags,
    #[command(flatten)]
    log: logging::LogArgs,
    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    parent_pid: Option<u32>,
}

/// Arguments of `catena serve node`.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    keys: config::NodeFlags,
    #[command(flatten)]
    log: logging::LogArgs,
    /// End when this process, the parent, ends
    #[arg(long, hide = true, value_name = "PID")]
    parent_pid: Option<u32>,
}

/// Runs a daemon until it is asked to stop.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Node(args) => {
            let NodeArgs {
                keys,
                log,
                parent_pid,
            } = *args;
            let start = prepare(parent_pid, &log, || config::resolve(keys))?;
            crate::on_all_threads(node::run(start))
        }
        Command::Master(args) => {
            let MasterArgs {
                keys,
                log,
                parent_pid,
            } = *args;
            let start = prepare(parent_pid, &log, || master_config::resolve(keys))?;
            crate::on_all_threads(master::run(start))
        }
    }
}

/// What comes before a daemon's start: nothing of it touches a folder.
fn prepare<T>(
    parent: Option<u32>,
    log: &logging::LogArgs,
    resolve: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    if let Some(parent) = parent {
        end_with_parent(parent)?;
    }
    let start = resolve()?;
    logging::start(log)?;
    Ok(start)
}
