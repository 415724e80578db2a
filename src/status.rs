//! `catena status`: the whole cluster on one screen, also when parts of it are down.

mod gather;
mod picture;
mod when;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::Output;

pub(crate) use gather::{Seen, gather};
pub(crate) use picture::{ChainLine, MemberLine, NodeLine, picture};

/// Arguments of `catena status`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  catena status --output json | jq '.chains[] | select(.state != \"healthy\")'"
)]
pub(crate) struct Args {}

/// Asks every node that anybody knows, and draws what they say.
pub(crate) async fn run(_args: Args, global: &Global, output: &mut Output) -> Result<(), Failure> {
    let status = picture(&gather(global).await?);
    if output.is_json() {
        return output.json(&status);
    }
    output.line(status.headline().as_bytes())?;
    output.line(b"")?;
    output.table(
        &NodeLine::HEADS,
        status.nodes.iter().map(NodeLine::row).collect(),
    )?;
    output.line(b"")?;
    output.table(
        &ChainLine::HEADS,
        status.chains.iter().map(ChainLine::row).collect(),
    )?;
    for alarm in &status.alarms {
        let line = format!(
            "\nalarm {} since {}: {}",
            alarm.name, alarm.since, alarm.detail
        );
        output.line(line.as_bytes())?;
    }
    Ok(())
}
