//! `catena jepsen`: the simulation, and recorded histories held to their specification.

mod sim;

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use catena_jepsen::check::model::Model;
use catena_jepsen::check::report::Verdict;
use catena_jepsen::check::{self, Options};
use clap::Subcommand;

use crate::exit::Failure;
use crate::output::Output;

/// Largest history that is read at all, in bytes: the checker keeps it in memory.
const HISTORY_BYTES_MAX: u64 = 2 << 30;

/// What can be proved.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Decide whether a history is linearizable
    #[command(after_help = "\
Reads our own format (JSON lines), EDN maps, and the log lines that Jepsen prints; the first line tells which.

Example:
  catena jepsen check --model catena history.jsonl

Exit status: 0 linearizable, 1 not linearizable, 2 no history or wrong usage, 6 undecided, which is no pass.")]
    Check {
        /// What the history is held to: register, kv-append, counter or catena
        #[arg(long, value_name = "MODEL")]
        model: Model,
        /// Steps that the search may take before it says `undecided`
        #[arg(long, value_name = "N")]
        steps_max: Option<u64>,
        /// The history; `-` is stdin
        file: PathBuf,
    },
    /// Run the simulation: production replicas under faults, every choice drawn from a seed
    #[command(after_help = "\
Examples:
  catena jepsen sim --seeds 0..10000
  catena jepsen sim --trace 42
  catena jepsen sim --list-mutants

Exit status: 0 only if every seed held, 1 if one did not, 2 wrong usage.")]
    Sim(sim::SimArgs),
}

/// Runs one command; the verdict is the exit status.
pub(crate) fn run(command: Command, output: &mut Output) -> Result<ExitCode, Failure> {
    let (model, steps_max, file) = match command {
        Command::Sim(args) => return sim::run(args, output),
        Command::Check {
            model,
            steps_max,
            file,
        } => (model, steps_max, file),
    };
    let mut options = Options::default();
    if let Some(steps_max) = steps_max {
        options.limits.steps_max = steps_max;
    }
    let what = format!("jepsen check {}", file.display());
    let text = read(&file).map_err(|why| {
        Failure::usage(
            what.as_str(),
            why.to_string(),
            "name a readable history of UTF-8 text, or - for stdin",
        )
    })?;
    let report = check::run_file(&text, model, &options).map_err(|why| {
        Failure::usage(
            what.as_str(),
            why.to_string(),
            "`catena jepsen check --help` names the formats and models",
        )
    })?;
    if output.is_json() {
        output.json(&report.to_json())?;
    } else {
        output.line(report.to_text().trim_end().as_bytes())?;
    }
    output.flush()?;
    Ok(ExitCode::from(match report.verdict() {
        Verdict::Linearizable => 0,
        Verdict::NotLinearizable => 1,
        Verdict::Undecided => 6,
    }))
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    let mut text = String::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin()
            .lock()
            .take(HISTORY_BYTES_MAX + 1)
            .read_to_string(&mut text)?
    } else {
        std::fs::File::open(file)?
            .take(HISTORY_BYTES_MAX + 1)
            .read_to_string(&mut text)?
    };
    if u64::try_from(read).is_ok_and(|read| read > HISTORY_BYTES_MAX) {
        return Err(std::io::Error::other(format!(
            "it is longer than {HISTORY_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}
