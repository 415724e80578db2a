//! `catena chain`: looking at chains.

use clap::Subcommand;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::status::{ChainLine, MemberLine, gather, picture};

/// What can be done with chains.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// One line a chain
    #[command(after_help = "Example:\n  catena chain list --output json")]
    List,
    /// One chain, member by member
    #[command(after_help = "Example:\n  catena chain show 1")]
    Show {
        /// The shard that the chain replicates
        shard: u64,
    },
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let chains = picture(&gather(global).await?).chains;
    match command {
        Command::List if output.is_json() => chains.iter().try_for_each(|c| output.json(c)),
        Command::List => output.table(
            &ChainLine::HEADS,
            chains.iter().map(ChainLine::row).collect(),
        ),
        Command::Show { shard } => {
            let Some(chain) = chains.iter().find(|c| c.shard == shard) else {
                return Err(Failure::new(
                    Exit::NotFound,
                    "not_found",
                    format!("chain show {shard}"),
                    "no such chain",
                    "`catena chain list` names those there are",
                ));
            };
            if output.is_json() {
                return output.json(chain);
            }
            output.table(&ChainLine::HEADS, vec![chain.row()])?;
            output.line(b"")?;
            let heads = [
                "node", "role", "in sync", "last", "durable", "commit", "applied", "reads", "why",
            ];
            output.table(&heads, chain.members.iter().map(member_row).collect())
        }
    }
}

fn member_row(member: &MemberLine) -> Vec<String> {
    let mut row = vec![member.node.to_string(), member.role.into()];
    let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    match &member.details {
        None => row.extend(["?", "-", "-", "-", "-", "?", "it does not answer"].map(String::from)),
        Some(replica) => row.extend([
            yes(replica.in_sync),
            replica.last_seq.to_string(),
            replica.durable_seq.to_string(),
            replica.commit_seq.to_string(),
            replica.applied_seq.to_string(),
            yes(replica.serving_reads),
            replica.why.clone(),
        ]),
    }
    row
}
