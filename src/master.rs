//! `catena master`: looking at the masters.

use clap::Subcommand;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::Output;
use crate::status::{MasterLine, gather, picture};

/// What can be done with masters.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One line a master: who leads, in which term, and how far each one's state has come
    #[command(after_help = "\
Examples:
  catena master list
  catena master list --output json | jq 'select(.role == \"leader\").addr'")]
    List,
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let Command::List = command;
    let status = picture(&gather(global).await?);
    if output.is_json() {
        let mut masters = status.masters.iter();
        return masters.try_for_each(|master| output.json(master));
    }
    if status.masters.is_empty() {
        return output.line(b"this cluster has no masters");
    }
    let rows = status.masters.iter().map(MasterLine::row);
    output.table(&MasterLine::HEADS, rows.collect())
}
