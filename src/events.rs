//! `catena events`: what the control plane saw and did, and why.

use std::time::Duration;

use catena_client::{Cause, Error};
use catena_proto::wire;
use serde::Serialize;

use crate::cli::Global;
use crate::exit::Failure;
use crate::output::{Output, note};
use crate::status::{gather, rfc3339};

/// Pause before the masters are looked for again, when the one that told has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Arguments of `catena events`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With --follow, the events there are and then each one as it happens, until Ctrl-C; a change of the
leader is bridged without a gap.

Examples:
  catena events --limit 20
  catena events --follow --output json | jq -r .cause")]
pub(crate) struct Args {
    /// Go on with each event as it happens
    #[arg(long)]
    follow: bool,
    /// The newest N only [default: all that are kept]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

/// One event.
#[derive(Debug, Serialize)]
struct EventLine {
    no: u64,
    at: String,
    controller: String,
    cause: String,
    action: String,
    subject: String,
    config_version: u64,
}

impl EventLine {
    fn of(event: wire::ControlEvent) -> Self {
        Self {
            no: event.no,
            at: rfc3339(event.at_ms),
            controller: event.controller,
            cause: event.cause,
            action: event.action,
            subject: event.subject,
            config_version: event.config_version,
        }
    }

    const HEADS: [&'static str; 6] = ["at", "version", "controller", "action", "subject", "cause"];

    fn row(&self) -> Vec<String> {
        vec![
            self.at.clone(),
            self.config_version.to_string(),
            self.controller.clone(),
            self.action.clone(),
            self.subject.clone(),
            self.cause.clone(),
        ]
    }

    /// The same columns where the rest is not known yet and a table cannot be aligned.
    fn line(&self) -> String {
        format!(
            "{}  {:>6}  {:<10}  {:<14}  {:<16}  {}",
            self.at, self.config_version, self.controller, self.action, self.subject, self.cause
        )
    }
}

/// Shows the events, and with `--follow` goes on.
pub(crate) async fn run(args: Args, global: &Global, output: &mut Output) -> Result<(), Failure> {
    if args.follow {
        return follow(args.limit.unwrap_or(0), global, output).await;
    }
    let asked = async {
        let masters = gather(global).await?.to_masters();
        let failed = |error: Error| Failure::read("events", &error);
        let limit = args.limit.unwrap_or(0);
        let events = masters.events(false, 0, limit, global.timeout).await;
        let mut events = events.map_err(failed)?;
        let mut rows = Vec::new();
        while let Some(event) = events.next().await.map_err(failed)? {
            let event = EventLine::of(event);
            if output.is_json() {
                output.json(&event)?;
            } else {
                rows.push(event.row());
            }
        }
        Ok(rows)
    };
    // A master that is stopped in the middle of its answer must not hold us for ever.
    let limit = global.timeout * 2;
    let rows = tokio::time::timeout(limit, asked).await.map_err(|_| {
        let after = limit;
        let cause = Cause::TimedOut { after, last: None };
        Failure::read("events", &Error::Failed(cause))
    })??;
    if output.is_json() {
        return Ok(());
    }
    output.table(&EventLine::HEADS, rows)
}

async fn follow(limit: u32, global: &Global, output: &mut Output) -> Result<(), Failure> {
    let mut last = 0;
    let mut began = false;
    loop {
        let broke = match one_stream(&mut last, limit, &mut began, global, output).await {
            Err(failure) if !began || !failure.retryable => return Err(failure),
            Err(failure) => failure.why,
            Ok(()) => "the master ended the stream".into(),
        };
        note(&format!("{broke}; looking for the leader\n"));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Shows what one master tells, until it tells no more; `last` is the number of the last event shown.
async fn one_stream(
    last: &mut u64,
    limit: u32,
    began: &mut bool,
    global: &Global,
    output: &mut Output,
) -> Result<(), Failure> {
    let failed = |error: Error| Failure::read("events", &error);
    let masters = gather(global).await?.to_masters();
    // Only the first stream begins in the past; the next ones go on where it broke.
    let limit = if *began { 0 } else { limit };
    let events = masters.events(true, *last, limit, global.timeout).await;
    let mut events = events.map_err(failed)?;
    *began = true;
    while let Some(event) = events.next().await.map_err(failed)? {
        if event.no <= *last {
            continue;
        }
        *last = event.no;
        let event = EventLine::of(event);
        if output.is_json() {
            output.json(&event)?;
        } else {
            output.line(event.line().as_bytes())?;
        }
        output.flush()?;
    }
    Ok(())
}
