//! What a daemon says while it runs: to stderr, for people or for programs.

use tracing_subscriber::EnvFilter;

use crate::exit::{DaemonExit, Failure};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which lines are written, and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LogArgs {
    /// How log lines on stderr are written
    #[arg(
        long,
        env = "CATENA_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// Which lines are written: a level, or levels by module, such as info,catena_chainnode=debug
    #[arg(
        long,
        env = "CATENA_LOG",
        default_value = "info",
        value_name = "FILTER"
    )]
    log: String,
}

/// From now on, events go to stderr.
pub(crate) fn start(args: &LogArgs) -> Result<(), Failure> {
    let refused = |why: &dyn std::fmt::Display| {
        Failure::daemon(
            DaemonExit::BadConfig,
            "bad_config",
            format!("--log {}", args.log),
            why.to_string(),
            "name a level (error, warn, info, debug, trace), or levels by module",
        )
    };
    let filter = EnvFilter::try_new(&args.log).map_err(|why| refused(&why))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    }
    .map_err(|why| refused(&why))
}
