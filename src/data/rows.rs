//! `catena scan`: rows in order, written as their pages arrive, so that a scan of any size needs little memory.

use bytes::Bytes;
use catena_client::ScanRange;
use serde::Serialize;

use super::{Binary, Reading, connect};
use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{JsonBytes, Output};

/// Arguments of `catena scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keys that begin with P
    #[arg(long, value_name = "P", conflicts_with_all = ["from", "to"], allow_hyphen_values = true)]
    prefix: Option<String>,
    /// Keys from A on, A included
    #[arg(long, value_name = "A", allow_hyphen_values = true)]
    from: Option<String>,
    /// Keys below B
    #[arg(long, value_name = "B", allow_hyphen_values = true)]
    to: Option<String>,
    /// At most N rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    binary: Binary,
}

#[derive(Serialize)]
struct RowLine {
    key: JsonBytes,
    value: JsonBytes,
    version: u64,
}

impl Args {
    fn range(&self) -> Result<ScanRange, Failure> {
        let bytes = |what, word: &Option<String>| -> Result<Option<Bytes>, Failure> {
            word.as_deref()
                .map(|word| self.binary.bytes(what, word))
                .transpose()
        };
        let mut range = match bytes("prefix", &self.prefix)? {
            Some(prefix) => ScanRange::prefix(prefix),
            None => ScanRange::between(
                bytes("--from", &self.from)?.unwrap_or_default(),
                bytes("--to", &self.to)?,
            ),
        };
        range.limit = self.limit;
        range.reverse = self.reverse;
        Ok(range.consistency(self.reading.consistency))
    }
}

/// Writes every row of the range: JSON lines, or key, value and version apart by tabs.
pub(crate) async fn run(args: Args, global: &Global, output: &mut Output) -> Result<(), Failure> {
    let range = args.range()?;
    let mut scan = connect(global).await?.scan(range);
    loop {
        let page = scan.next_page().await;
        let page = page.map_err(|error| Failure::read("scan", &error))?;
        let Some(rows) = page else { break };
        for row in rows {
            if output.is_json() {
                output.json(&RowLine {
                    key: JsonBytes::from(&row.key[..]),
                    value: JsonBytes::from(&row.value[..]),
                    version: row.version.get(),
                })?;
            } else {
                let (key, value) = (args.binary.show(&row.key), args.binary.show(&row.value));
                output.line(format!("{key}\t{value}\t{}", row.version).as_bytes())?;
            }
        }
        // Whoever reads sees each page when it is there.
        output.flush()?;
    }
    Ok(())
}
