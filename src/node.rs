//! `catena node`: looking at nodes.

use clap::Subcommand;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::status::{NodeLine, Seen, gather, picture};

/// What can be done with nodes.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One line a node
    #[command(after_help = "Example:\n  catena node list --output json")]
    List,
    /// One node, replica by replica
    #[command(after_help = "Example:\n  catena node show 1")]
    Show {
        /// The node's id
        node: u64,
    },
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let seen = gather(global).await?;
    let nodes = picture(&seen).nodes;
    match command {
        Command::List if output.is_json() => nodes.iter().try_for_each(|n| output.json(n)),
        Command::List => output.table(&NodeLine::HEADS, nodes.iter().map(NodeLine::row).collect()),
        Command::Show { node } => {
            let Some(line) = nodes.iter().find(|n| n.id == node) else {
                return Err(Failure::new(
                    Exit::NotFound,
                    "not_found",
                    format!("node show {node}"),
                    "no such node",
                    "`catena node list` names those there are",
                ));
            };
            if output.is_json() {
                return output.json(line);
            }
            output.table(&NodeLine::HEADS, vec![line.row()])?;
            output.line(b"")?;
            let heads = [
                "shard", "epoch", "role", "in sync", "last", "durable", "commit", "applied", "why",
            ];
            output.table(&heads, replica_rows(&seen, node))
        }
    }
}

fn replica_rows(seen: &Seen, node: u64) -> Vec<Vec<String>> {
    let status = seen.nodes.get(&node).and_then(|n| n.status.as_ref().ok());
    let replicas = status.map(|s| s.replicas.as_slice()).unwrap_or_default();
    let row = |replica: &catena_proto::wire::ReplicaStatus| {
        let chain = replica.chain.as_ref();
        vec![
            chain.map_or_else(|| "-".into(), |c| c.shard_id.to_string()),
            chain.map_or_else(|| "-".into(), |c| c.epoch.to_string()),
            replica.role.clone(),
            if replica.in_sync { "yes" } else { "no" }.into(),
            replica.last_seq.to_string(),
            replica.durable_seq.to_string(),
            replica.commit_seq.to_string(),
            replica.applied_seq.to_string(),
            replica.why.clone(),
        ]
    };
    replicas.iter().map(row).collect()
}
