//! `catena completions SHELL`: a script that completes commands, flags and their values.

use clap_complete::Shell;

use crate::cli;
use crate::exit::Failure;
use crate::output::Output;

/// Arguments of `catena completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  source <(catena completions bash)")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: Args, output: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut cli::definition(), "catena", &mut script);
    output.line(script.trim_ascii_end())
}
