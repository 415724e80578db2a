//! One change of one chain: what would happen, whether the operator means it, and that it is done.

use std::io::{BufRead, IsTerminal};
use std::time::Duration;

use catena_proto::wire;
use serde::Serialize;

use super::no_chain;
use super::wait::{Goal, until};
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, note};
use crate::status::{Seen, gather, picture};

/// Arguments of the changing commands.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// The shard that the chain replicates
    shard: u64,
    /// The node's id
    node: u64,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Return when the masters have decided, without waiting until the change is in force
    #[arg(long)]
    no_wait: bool,
    /// Give up waiting after this time, such as 60s; the change goes on [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = crate::arguments::duration)]
    wait_timeout: Option<Duration>,
    /// Only if the chain is in this epoch [default: whichever it is in]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    expect_epoch: u64,
    /// Do not ask, even where data could be lost
    #[arg(long)]
    yes: bool,
}

/// Which change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The node leaves.
    Remove,
    /// It joins.
    Add,
    /// The chain becomes it alone.
    Recover,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Remove => "remove-member",
            Self::Add => "add-member",
            Self::Recover => "recover",
        }
    }

    const fn change(self, node: u64) -> wire::change_chain_request::Change {
        use wire::change_chain_request::Change;
        match self {
            Self::Remove => Change::RemoveNodeId(node),
            Self::Add => Change::AddNodeId(node),
            // The operator said so, or only asks what would happen.
            Self::Recover => Change::Recover(wire::Recover {
                node_id: node,
                accept_data_loss: true,
            }),
        }
    }
}

/// What scripts get.
#[derive(Clone, Debug, Serialize)]
struct ChangeLine {
    shard: u64,
    node: u64,
    change: &'static str,
    dry_run: bool,
    before: Option<Shape>,
    after: Option<Shape>,
    effects: Vec<String>,
    config_version: Option<u64>,
    /// Whether it was waited for.
    in_force: bool,
}

/// A chain's members in an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shape {
    epoch: u64,
    members: Vec<u64>,
}

impl Shape {
    fn of(chain: Option<&wire::ChainConfig>) -> Option<Self> {
        chain.map(|chain| Self {
            epoch: chain.epoch,
            members: chain.members.iter().map(|m| m.node_id).collect(),
        })
    }

    fn text(&self) -> String {
        let members: Vec<String> = self.members.iter().map(u64::to_string).collect();
        format!("epoch {}: {}", self.epoch, members.join(" > "))
    }
}

/// Runs one changing command.
pub(crate) async fn run(
    kind: Kind,
    args: Args,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let what = format!("chain {} {} {}", kind.word(), args.shard, args.node);
    let asks = kind == Kind::Recover && !args.yes && !args.dry_run;
    if asks && !std::io::stdin().is_terminal() {
        return Err(Failure::usage(
            what,
            "it can lose data, and there is no terminal to ask at",
            "look with --dry-run first; then pass --yes",
        ));
    }
    let seen = gather(global).await?;
    check_names(&what, &args, &seen)?;
    let send = async |dry_run| {
        let request = wire::ChangeChainRequest {
            shard_id: args.shard,
            expected_epoch: args.expect_epoch,
            change: Some(kind.change(args.node)),
            dry_run,
            ..Default::default()
        };
        let masters = seen.to_masters();
        let answer = masters.change_chain(request, global.timeout).await;
        answer.map_err(|error| Failure::write(what.clone(), &error))
    };
    if asks {
        let plan = send(true).await?;
        confirm(&what, &plan)?;
    }
    let answer = send(args.dry_run).await?;
    let mut line = ChangeLine {
        shard: args.shard,
        node: args.node,
        change: kind.word(),
        dry_run: args.dry_run,
        before: Shape::of(answer.before.as_ref()),
        after: Shape::of(answer.after.as_ref()),
        effects: answer.effects,
        config_version: answer.position.map(|p| p.version),
        in_force: false,
    };
    if !args.dry_run && !args.no_wait {
        let epoch = line.after.as_ref().map_or(0, |shape| shape.epoch);
        let goal = match kind {
            Kind::Remove => Goal::Gone(args.node, epoch),
            Kind::Add => Goal::Member(args.node),
            Kind::Recover => Goal::InSync(epoch),
        };
        line.after = Some(settled(&what, &args, goal, global).await?);
        line.in_force = true;
    }
    show(&line, output)
}

fn check_names(what: &str, args: &Args, seen: &Seen) -> Result<(), Failure> {
    let drawn = picture(seen);
    if !drawn.chains.iter().any(|chain| chain.shard == args.shard) {
        return Err(no_chain(what));
    }
    if !seen.nodes.contains_key(&args.node) {
        return Err(Failure::new(
            Exit::NotFound,
            "not_found",
            what,
            "no such node",
            "`catena node list` names those there are",
        ));
    }
    Ok(())
}

/// Shows what would happen and lets the operator say that it shall.
fn confirm(what: &str, plan: &wire::ChangeChainResponse) -> Result<(), Failure> {
    let mut text = format!("{what}: this means data loss.\n");
    for effect in &plan.effects {
        text += &format!("  {effect}\n");
    }
    text += "What only the other members had is gone for good. Type yes to go on: ";
    note(&text);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Failed,
        "not_confirmed",
        what,
        "it was not confirmed; nothing was changed",
        "type yes, the whole word, or pass --yes",
    ))
}

async fn settled(what: &str, args: &Args, goal: Goal, global: &Global) -> Result<Shape, Failure> {
    let wait = until(args.shard, goal, global);
    let chain = match args.wait_timeout {
        None => wait.await,
        Some(limit) => tokio::time::timeout(limit, wait).await.map_err(|_| {
            Failure::new(
                Exit::Unknown,
                "not_in_force",
                what,
                format!("it is decided, and not yet in force after {limit:?}"),
                format!("it goes on by itself: `catena chain show {}`", args.shard),
            )
        })?,
    };
    Ok(Shape {
        epoch: chain.epoch,
        members: chain.members.iter().map(|member| member.node).collect(),
    })
}

fn show(line: &ChangeLine, output: &mut Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(line);
    }
    let shape = |shape: &Option<Shape>| shape.as_ref().map_or_else(|| "-".into(), Shape::text);
    let verb = match (line.dry_run, line.in_force) {
        (true, _) => "would change",
        (false, true) => "changed",
        (false, false) => "is changing",
    };
    let text = format!(
        "shard {} {verb}: {}  ->  {}",
        line.shard,
        shape(&line.before),
        shape(&line.after)
    );
    output.line(text.as_bytes())?;
    for effect in &line.effects {
        output.line(format!("  {effect}").as_bytes())?;
    }
    if line.dry_run {
        output.line(b"nothing was changed")?;
    }
    Ok(())
}
