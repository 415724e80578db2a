//! `catena status`: the whole cluster on one screen, also when parts of it are down.

mod gather;
mod lines;
mod picture;
mod when;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) use gather::{Seen, gather};
pub(crate) use lines::{ChainLine, LearnerLine, MasterLine, MemberLine, NodeLine, number};
pub(crate) use picture::picture;
pub(crate) use when::rfc3339;

/// Arguments of `catena status`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The control plane is healthy (a leader, and every master answers), degraded (a leader, some master
away) or unreachable (no leader with a majority answers; reads and writes go on all the same).

Examples:
  catena status
  catena status --output json | jq '.chains[] | select(.state != \"healthy\")'")]
pub(crate) struct Args {}

/// Asks every node and master that anybody knows, and draws what they say.
pub(crate) async fn run(_args: Args, global: &Global, output: &mut Output) -> Result<(), Failure> {
    let status = picture(&gather(global).await?);
    if output.is_json() {
        return output.json(&status);
    }
    output.line(status.headline().as_bytes())?;
    let note = status.control_plane_note();
    if !note.is_empty() {
        output.line(note.as_bytes())?;
    }
    for name in &status.paused_controllers {
        let line = format!("controller {name} is paused: `catena controller resume {name}`");
        output.line(line.as_bytes())?;
    }
    if !status.masters.is_empty() {
        output.line(b"")?;
        let rows = status.masters.iter().map(MasterLine::row);
        output.table(&MasterLine::HEADS, rows.collect())?;
    }
    output.line(b"")?;
    let rows = status.nodes.iter().map(NodeLine::row);
    output.table(&NodeLine::HEADS, rows.collect())?;
    output.line(b"")?;
    let rows = status.chains.iter().map(ChainLine::row);
    output.table(&ChainLine::HEADS, rows.collect())?;
    for alarm in &status.alarms {
        let line = format!(
            "\nalarm {} since {}: {}",
            alarm.name, alarm.since, alarm.detail
        );
        output.line(line.as_bytes())?;
    }
    Ok(())
}
