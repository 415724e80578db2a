//! `catena controller`: each automatic loop has a switch.

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::Output;
use crate::status::gather;

/// Every loop that runs by itself.
const CONTROLLERS: [&str; 1] = ["membership"];

/// What can be done with the loops.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Switch a loop off: nothing is excluded, brought in or re-admitted until it is on again
    #[command(after_help = "\
Operators' own changes (`catena chain …`) go on. The switch outlives a change of the leader.

Examples:
  catena controller pause membership
  catena controller pause             all of them")]
    Pause(Name),
    /// Switch a loop on again
    #[command(after_help = "Example:\n  catena controller resume membership")]
    Resume(Name),
}

/// Which loop.
#[derive(Debug, clap::Args)]
pub(crate) struct Name {
    /// The loop [default: all]
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(CONTROLLERS))]
    name: Option<String>,
}

#[derive(Debug, Serialize)]
struct SwitchLine<'a> {
    controller: &'a str,
    paused: bool,
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let (word, paused, name) = match command {
        Command::Pause(Name { name }) => ("pause", true, name),
        Command::Resume(Name { name }) => ("resume", false, name),
    };
    let masters = gather(global).await?.to_masters();
    let names = CONTROLLERS.iter().filter(|it| match &name {
        Some(name) => name == *it,
        None => true,
    });
    for controller in names {
        let switched = masters.switch_controller(controller, paused, global.timeout);
        switched
            .await
            .map_err(|error| Failure::write(format!("controller {word} {controller}"), &error))?;
        if output.is_json() {
            output.json(&SwitchLine { controller, paused })?;
        } else {
            let state = if paused { "paused" } else { "at work" };
            output.line(format!("{controller} is {state}").as_bytes())?;
        }
    }
    Ok(())
}
