//! The command line as a whole: what every command shares, and the list of commands.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::exit::Failure;
use crate::output::Format;
use crate::{
    arguments, bench, chain, completions, config, controller, data, dev, events, jepsen, master,
    node, serve, status,
};

/// `catena`: a chain-replicated key-value store.
#[derive(Debug, Parser)]
#[command(
    name = "catena",
    version,
    about = "A chain-replicated key-value store: its command line, its daemons, a local cluster",
    after_help = EXAMPLES,
    max_term_width = 110,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  catena dev                                   a whole cluster on this machine
  export CATENA_ENDPOINTS=127.0.0.1:7401       any live node; the rest is discovered
  catena put greeting hello
  catena get greeting --output json
  catena status

Exit status: 0 done, 1 failed and nothing was changed, 2 wrong usage, 3 no such key,
4 the condition did not hold, 5 unavailable and definitely not done, 6 unknown.";

/// What every command understands.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Any live nodes or masters, HOST:PORT,HOST:PORT; the rest is discovered
    #[arg(
        long,
        global = true,
        env = "CATENA_ENDPOINTS",
        hide_env_values = true,
        value_name = "LIST",
        help_heading = "Global options"
    )]
    endpoints: Option<String>,
    /// How results and errors are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
    /// How long one operation may take, such as 500ms or 5s
    #[arg(long, global = true, default_value = "5s", value_name = "TIME",
          value_parser = arguments::duration, help_heading = "Global options")]
    pub(crate) timeout: Duration,
}

impl Global {
    /// The endpoints, at least one.
    ///
    /// Checked here and not while the line is parsed, so that a bad variable does
    /// not keep `catena dev` or `catena version` from running.
    pub(crate) fn endpoints(&self) -> Result<Vec<String>, Failure> {
        const HELP: &str = "pass --endpoints HOST:PORT,… or set CATENA_ENDPOINTS; \
                            `catena dev` prints the line";
        let list = self.endpoints.as_deref().unwrap_or_default();
        let words = list
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        let endpoints = words
            .map(|word| {
                arguments::address(word)
                    .map_err(|why| Failure::usage(format!("endpoint {word:?}"), why, HELP))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Failure::usage(
                "finding the cluster",
                "no endpoints are given",
                HELP,
            ));
        }
        Ok(endpoints)
    }
}

/// The commands, one file of this folder per group.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole cluster on this machine, in the foreground
    Dev(dev::Args),
    /// Run a daemon
    #[command(subcommand)]
    Serve(serve::Command),
    #[command(flatten)]
    Data(data::Command),
    /// Show the whole cluster on one screen, also when parts of it are down
    Status(status::Args),
    /// Look at chains, and change them
    #[command(subcommand)]
    Chain(chain::Command),
    /// Look at nodes
    #[command(subcommand)]
    Node(node::Command),
    /// Look at masters
    #[command(subcommand)]
    Master(master::Command),
    /// Look at what configs the nodes have
    #[command(subcommand)]
    Config(config::Command),
    /// Show what the control plane saw and did, and why
    Events(events::Args),
    /// Switch the automatic loops off and on
    #[command(subcommand)]
    Controller(controller::Command),
    /// Put load on a cluster and measure it
    Bench(bench::Args),
    /// Check histories
    #[command(subcommand)]
    Jepsen(jepsen::Command),
    /// Print a completion script for a shell
    Completions(completions::Args),
    /// Show version and features
    Version,
}

/// Parses the process's own arguments.
///
/// # Errors
/// The words to print, where to, and the exit status. `--help` and `--version` come this way too.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// The format that a line asked for which could not be parsed as a whole.
pub(crate) fn format_of(words: impl Iterator<Item = OsString>) -> Format {
    let words: Vec<OsString> = words.collect();
    let asked = |at: usize, word: &OsString| {
        word == "--output=json"
            || (word == "--output" && words.get(at + 1).is_some_and(|next| next == "json"))
    };
    if words.iter().enumerate().any(|(at, word)| asked(at, word)) {
        Format::Json
    } else {
        Format::Table
    }
}

/// The whole command line, for completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn endpoints_are_checked_one_by_one() {
        let global = |list: &str| Global {
            endpoints: Some(list.into()),
            output: Format::Table,
            timeout: Duration::from_secs(1),
        };
        let found = global("a:1, b:2,").endpoints().expect("two endpoints");
        assert_eq!(found, ["a:1", "b:2"]);
        assert_eq!(global("").endpoints().expect_err("none").status, 2);
        assert_eq!(global("a").endpoints().expect_err("no port").status, 2);
    }

    #[test]
    fn the_format_is_known_even_when_the_line_is_wrong() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        for json in ["catena get --output json", "catena --output=json frob"] {
            assert_eq!(format_of(words(json).into_iter()), Format::Json);
        }
        assert_eq!(
            format_of(words("catena get json").into_iter()),
            Format::Table
        );
    }
}
