//! `catena config`: which config each node was sent, has accepted, and acts by.

use clap::Subcommand;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::Output;
use crate::status::{NodeLine, gather, number, picture};

/// What can be asked about configs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Per node: the version sent, acked and effective, where its config came from, and what it refused
    #[command(after_help = "\
Sent: pushed by the leader of the masters. Acked: accepted and persisted. Effective: in force on every
replica that it names. Without a leader, each node speaks for itself and nobody knows what was sent.

Examples:
  catena config versions
  catena config versions --output json | jq 'select(.acked_version < .sent_version)'")]
    Versions,
}

/// One node's versions.
#[derive(Debug, Serialize)]
struct VersionLine<'a> {
    node: u64,
    sent_version: u64,
    acked_version: Option<u64>,
    effective_version: Option<u64>,
    config_source: Option<&'a str>,
    report_age_ms: Option<u64>,
    refusal: &'a str,
}

impl<'a> VersionLine<'a> {
    const HEADS: [&'static str; 7] = [
        "node",
        "sent",
        "acked",
        "effective",
        "source",
        "report age",
        "refused",
    ];

    fn of(node: &'a NodeLine) -> Self {
        Self {
            node: node.id,
            sent_version: node.sent_version,
            acked_version: node.acked_version,
            effective_version: node.effective_version,
            config_source: node.config_source.as_deref(),
            report_age_ms: node.report_age_ms,
            refusal: &node.refusal,
        }
    }

    fn row(&self) -> Vec<String> {
        let age = self.report_age_ms;
        vec![
            self.node.to_string(),
            number(Some(self.sent_version).filter(|sent| *sent > 0)),
            number(self.acked_version),
            number(self.effective_version),
            self.config_source.unwrap_or("-").to_owned(),
            age.map_or_else(|| "-".into(), |ms| format!("{ms} ms")),
            self.refusal.to_owned(),
        ]
    }
}

/// Runs one command.
pub(crate) async fn run(
    command: Command,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let Command::Versions = command;
    let status = picture(&gather(global).await?);
    let mut lines = status.nodes.iter().map(VersionLine::of);
    if output.is_json() {
        return lines.try_for_each(|line| output.json(&line));
    }
    let rows = lines.map(|line| line.row());
    output.table(&VersionLine::HEADS, rows.collect())
}
