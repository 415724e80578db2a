//! The `catena` binary: parses the command line, runs one command, and ends with the status that scripts rely on.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: the binary talks to the machine"
)]

mod arguments;
mod bench;
mod chain;
mod cli;
mod completions;
mod config;
mod controller;
mod data;
mod dev;
mod events;
mod exit;
mod jepsen;
mod master;
mod node;
mod output;
mod serve;
mod settings;
mod status;
mod version;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use cli::Command;
use exit::{Exit, Failure};
use output::Output;

/// How long the process waits at its end for work that does not end by itself.
const LEFTOVERS_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_usage(&error),
    };
    let format = cli.global.output;
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            output::report(format, &failure);
            failure.exit_code()
        }
    }
}

fn run(cli: cli::Cli) -> Result<ExitCode, Failure> {
    let global = cli.global;
    let mut output = Output::new(global.output);
    match cli.command {
        Command::Dev(args) => dev::run(args, &mut output)?,
        Command::Serve(command) => serve::run(command)?,
        Command::Data(command) => on_one_thread(data::run(command, &global, &mut output))?,
        Command::Status(args) => on_one_thread(status::run(args, &global, &mut output))?,
        Command::Chain(command) => on_one_thread(chain::run(command, &global, &mut output))?,
        Command::Node(command) => on_one_thread(node::run(command, &global, &mut output))?,
        Command::Master(command) => on_one_thread(master::run(command, &global, &mut output))?,
        Command::Config(command) => on_one_thread(config::run(command, &global, &mut output))?,
        Command::Events(args) => on_one_thread(events::run(args, &global, &mut output))?,
        Command::Controller(command) => {
            on_one_thread(controller::run(command, &global, &mut output))?;
        }
        Command::Bench(args) => bench::run(args, &global, &mut output)?,
        Command::Jepsen(command) => return jepsen::run(command, &mut output),
        Command::Completions(args) => completions::run(args, &mut output)?,
        Command::Version => version::run(&mut output)?,
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a single command: one thread is enough, and starts fastest.
fn on_one_thread<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)?
        .block_on(work)
}

/// Runs a daemon, a cluster or load on every core.
fn on_all_threads<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(no_runtime)?;
    let result = runtime.block_on(work);
    // Whatever still hangs then (a disk that does not answer) must not keep the process.
    runtime.shutdown_timeout(LEFTOVERS_TIMEOUT);
    result
}

fn no_runtime(why: std::io::Error) -> Failure {
    Failure::local(
        "starting the runtime",
        why,
        "allow this process more threads and open files",
    )
}

/// What clap has to say: help goes to stdout with status 0, a mistake to stderr with status 2.
fn wrong_usage(error: &clap::Error) -> ExitCode {
    let format = cli::format_of(std::env::args_os());
    if !error.use_stderr() || format == output::Format::Table {
        // Nobody is left to tell when the stream is closed.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8));
    }
    let text = error.render().to_string();
    let text = text.trim().trim_start_matches("error: ");
    let (why, help) = text.split_once("\n\n").unwrap_or((text, ""));
    let failure = Failure::usage("command line", why, help);
    output::report(format, &failure);
    failure.exit_code()
}
