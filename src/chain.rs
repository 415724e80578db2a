//! `catena chain`: looking at chains, and changing them by hand.

mod change;
mod wait;

use clap::Subcommand;

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use crate::status::{ChainLine, LearnerLine, MemberLine, gather, picture};

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
    /// Take a node out of a chain; it stays out until it is added again
    #[command(after_help = "\
Refused (status 1) when no member that is in sync would be left. Writes go on; nothing is waited
out when the node lives.

Examples:
  catena chain remove-member 1 3 --dry-run
  catena chain remove-member 1 3")]
    RemoveMember(change::Args),
    /// Bring a node into a chain: it follows as a learner and becomes the tail once it has caught up
    #[command(after_help = "\
Examples:
  catena chain add-member 1 4 --dry-run
  catena chain add-member 1 4
  catena chain add-member 1 4 --no-wait && catena chain show 1")]
    AddMember(change::Args),
    /// Give up what only the other members had: the chain becomes this node alone (data loss)
    #[command(after_help = "\
The way out when every member that was in sync is gone for good, or when a replica is fenced. The
chain goes on with what this node has; writes that only the others had are lost. Asks first; a script
has to pass --yes.

Examples:
  catena chain recover 1 2 --dry-run
  catena chain recover 1 2 --yes")]
    Recover(change::Args),
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    match command {
        Command::List => list(global, output).await,
        Command::Show { shard } => show(shard, global, output).await,
        Command::RemoveMember(args) => {
            change::run(change::Kind::Remove, args, global, output).await
        }
        Command::AddMember(args) => change::run(change::Kind::Add, args, global, output).await,
        Command::Recover(args) => change::run(change::Kind::Recover, args, global, output).await,
    }
}

async fn list(global: &Global, output: &mut Output) -> Result<(), Failure> {
    let chains = picture(&gather(global).await?).chains;
    if output.is_json() {
        return chains.iter().try_for_each(|chain| output.json(chain));
    }
    let rows = chains.iter().map(ChainLine::row);
    output.table(&ChainLine::HEADS, rows.collect())
}

async fn show(shard: u64, global: &Global, output: &mut Output) -> Result<(), Failure> {
    let chains = picture(&gather(global).await?).chains;
    let Some(chain) = chains.iter().find(|chain| chain.shard == shard) else {
        return Err(no_chain(&format!("chain show {shard}")));
    };
    if output.is_json() {
        return output.json(chain);
    }
    output.table(&ChainLine::HEADS, vec![chain.row()])?;
    output.line(b"")?;
    let heads = [
        "node", "role", "in sync", "last", "durable", "commit", "applied", "reads", "why",
    ];
    let members = chain.members.iter().map(member_row);
    let learners = chain.learners.iter().map(learner_row);
    output.table(&heads, members.chain(learners).collect())
}

fn no_chain(what: &str) -> Failure {
    Failure::new(
        Exit::NotFound,
        "not_found",
        what,
        "no such chain",
        "`catena chain list` names those there are",
    )
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

fn learner_row(learner: &LearnerLine) -> Vec<String> {
    let done = learner.progress.map_or_else(String::new, |part| {
        format!("it has {:.0} % of the data", part * 100.0)
    });
    let mut row = vec![learner.node.to_string(), "learner".into()];
    row.extend(["no", "-", "-", "-", "-", "no"].map(String::from));
    row.push(done);
    row
}
