//! `catena serve`: the daemons.

mod config;
mod logging;
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
    Node(NodeArgs),
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
    let Command::Node(args) = command;
    if let Some(parent) = args.parent_pid {
        end_with_parent(parent)?;
    }
    let start = config::resolve(args.keys)?;
    logging::start(&args.log)?;
    crate::on_all_threads(node::run(start))
}
