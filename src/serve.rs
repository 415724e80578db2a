//! `catena serve`: the daemons.

mod config;

use clap::Subcommand;

use crate::exit::Failure;

pub(crate) use config::{ENGINES, Engine};

/// The daemons.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a storage node
    Node(NodeArgs),
}

/// Arguments of `catena serve node`.
#[derive(Debug, clap::Args)]
pub(crate) struct NodeArgs {
    #[command(flatten)]
    flags: config::NodeFlags,
}

pub(crate) fn run(command: Command) -> Result<(), Failure> {
    let Command::Node(args) = command;
    let start = config::resolve(args.flags)?;
    let _ = (start, Engine::Fjall);
    Ok(())
}
