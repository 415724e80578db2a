//! `catena bench`: puts load on a cluster and says what came of it.
//!
//! A closed loop of clients with one operation in flight each, or an open loop at
//! a given rate whose latencies count from the *intended* start, so that a stall
//! of the cluster is not hidden by a client that politely waited for it.

mod cpu;
mod keys;
mod load;
mod meter;
mod pace;
mod report;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catena_client::{Client, Options, ReadFrom};
use catena_proto::limits;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::Output;
use keys::{Distribution, Keys};
use load::{Load, Workload};
use meter::Meter;
use report::Report;

/// What a patient writer waits for one acknowledgement at least, whatever `--timeout` says.
const PATIENCE: Duration = Duration::from_secs(60);
/// Load that is not counted: connections, sessions and caches are made in it.
const WARM_UP: Duration = Duration::from_secs(1);
/// How often the progress line is drawn anew.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);
/// Operations in flight while keys are preloaded.
const PRELOAD_IN_FLIGHT: usize = 256;

/// Arguments of `catena bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
mix is one half gets, one half puts; scan reads 100 rows from a random key on.
The first second is not counted. Progress goes to stderr, the result to stdout.
Server CPU is that of the processes on this machine that serve the same cluster, or of those that
--server-pids or --ready-file name; it is null where there are none.

Examples:
  catena bench --workload put --clients 64
  catena bench --workload get --clients 256 --spread --distribution zipf
  catena bench --workload put --rate 5000 --seconds 30 --output json
  catena bench --gap --seconds 20                 while you kill a node")]
pub(crate) struct Args {
    /// What the clients do
    #[arg(long, value_enum, default_value_t = Workload::Put)]
    workload: Workload,
    /// Clients, each with one operation in flight
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Operations in flight for each client
    #[arg(long, default_value_t = 1, value_name = "P", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pipeline: u32,
    /// Connections to each node, shared by all clients
    #[arg(long, default_value_t = 1, value_name = "C", value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// Bytes of each value
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    value_size: usize,
    /// How many different keys
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    keys: u64,
    /// How long to measure
    #[arg(long, default_value_t = 10, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Start R operations a second in all, whether or not earlier ones are answered
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// Keys that begin with evenly spread hex digits, so that every shard gets its share
    #[arg(long)]
    spread: bool,
    /// Which keys are used how often
    #[arg(long, value_enum, default_value_t = Distribution::Uniform)]
    distribution: Distribution,
    /// One patient writer; reports the longest stretch without an acknowledged write
    #[arg(long, conflicts_with_all = ["rate", "pipeline", "workload", "clients"])]
    gap: bool,
    /// Which members of a chain answer reads
    #[arg(long, value_enum, default_value_t = From::Any, value_name = "MEMBER")]
    read_from: From,
    /// Do not write the keys first that get, mix and scan read
    #[arg(long)]
    no_preload: bool,
    /// The same seed chooses the same keys
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
    /// Processes whose CPU time is the servers'
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "PIDS",
        conflicts_with = "ready_file"
    )]
    server_pids: Option<Vec<u32>>,
    /// Take these pids from the ready file of `catena dev`
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Who answers reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// Every member in turn.
    Any,
    /// The tail alone.
    Tail,
}

/// Runs the load and writes the result.
pub(crate) fn run(args: Args, global: &Global, output: &mut Output) -> Result<(), Failure> {
    if args.value_size > limits::VALUE_BYTES_MAX {
        return Err(Failure::usage(
            format!("--value-size {}", args.value_size),
            format!("a value has at most {} bytes", limits::VALUE_BYTES_MAX),
            "choose a smaller value",
        ));
    }
    let report = crate::on_all_threads(measure(args, global))?;
    report.write(output)
}

async fn measure(args: Args, global: &Global) -> Result<Report, Failure> {
    let client = connect(&args, global).await?;
    let pids = cpu::pids(
        args.server_pids.as_deref(),
        args.ready_file.as_deref(),
        client.cluster(),
    )?;
    let load = Arc::new(Load {
        client,
        workload: if args.gap {
            Workload::Put
        } else {
            args.workload
        },
        keys: Keys::new(args.keys, args.spread, args.distribution),
        value: keys::value(args.value_size, args.seed),
    });
    if !args.gap && !args.no_preload && load.workload.reads() {
        preload(&load).await?;
    }

    let meter = Arc::new(Meter::new(Instant::now()));
    let mut running = start(&args, &load, &meter);
    tokio::time::sleep(WARM_UP).await;

    let before = cpu::Reading::now(&pids);
    let began = Instant::now();
    meter.begin(began);
    watch(&meter, began, Duration::from_secs(args.seconds)).await;
    let ended = Instant::now();
    meter.end(ended);
    let after = cpu::Reading::now(&pids);

    // What is in flight does not count any more, and may have to wait for long.
    running.abort_all();
    while let Some(task) = running.join_next().await {
        if let Err(why) = task
            && why.is_panic()
        {
            return Err(Failure::local("bench", why, "report this as a bug"));
        }
    }
    load.client.clone().close().await;
    let totals = meter.totals();
    if totals.done == 0 {
        return Err(Failure {
            retryable: true,
            ..Failure::new(
                Exit::Unavailable,
                "unreachable",
                "bench",
                totals
                    .first_error
                    .unwrap_or_else(|| "no operation was answered".into()),
                "`catena status` shows what the cluster waits for",
            )
        });
    }
    Ok(Report::new(
        &args,
        &totals,
        ended - began,
        &after.since(&before),
    ))
}

async fn connect(args: &Args, global: &Global) -> Result<Client, Failure> {
    let in_flight = args.clients.saturating_mul(args.pipeline);
    let options = Options {
        timeout: if args.gap {
            global.timeout.max(PATIENCE)
        } else {
            global.timeout
        },
        connect_timeout: global.timeout,
        read_from: match args.read_from {
            From::Any => ReadFrom::Any,
            From::Tail => ReadFrom::Tail,
        },
        connections_per_node: usize::try_from(args.connections).unwrap_or(1),
        in_flight_max: usize::try_from(in_flight)
            .unwrap_or(usize::MAX)
            .max(PRELOAD_IN_FLIGHT),
        ..Options::default()
    };
    let client = Client::connect(global.endpoints()?, options).await;
    let client = client.map_err(|error| Failure::read("finding the cluster", &error))?;
    // Every route before the clock runs, so that no shard's first operation pays for it.
    let learned = client.learn_all_routes().await;
    learned.map_err(|error| Failure::read("learning the routes", &error))?;
    Ok(client)
}

/// Starts the clients; they run until the meter ends.
fn start(args: &Args, load: &Arc<Load>, meter: &Arc<Meter>) -> tokio::task::JoinSet<()> {
    let mut running = tokio::task::JoinSet::new();
    if args.gap {
        running.spawn(writer::patient(load.clone(), meter.clone(), args.seed));
        return running;
    }
    let pace = args.rate.map(|rate| pace::start(rate, meter.clone()));
    for client in 0..u64::from(args.clients) * u64::from(args.pipeline) {
        // Different clients draw different keys, the same ones in every run.
        let seed = keys::mix(args.seed).wrapping_add(client);
        let (load, meter) = (load.clone(), meter.clone());
        match &pace {
            None => running.spawn(load::closed(load, meter, seed)),
            Some(pace) => running.spawn(load::open(load, meter, pace.clone(), seed)),
        };
    }
    running
}

/// Draws progress until the time is over.
async fn watch(meter: &Meter, began: Instant, length: Duration) {
    let bar = bar(length.as_secs(), "{bar:30} {pos}/{len} s  {msg}");
    loop {
        let passed = began.elapsed();
        let Some(left) = length.checked_sub(passed) else {
            break;
        };
        let rate = meter.done() as f64 / passed.as_secs_f64().max(0.001);
        bar.set_position(passed.as_secs());
        bar.set_message(format!("{rate:.0} ops/s"));
        tokio::time::sleep(left.min(PROGRESS_EVERY)).await;
    }
    bar.finish_and_clear();
}

/// Writes every key once, so that reads find something.
async fn preload(load: &Arc<Load>) -> Result<(), Failure> {
    let bar = bar(load.keys.count(), "{bar:30} {pos}/{len} keys written first");
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..PRELOAD_IN_FLIGHT {
        let (load, next, bar) = (load.clone(), next.clone(), bar.clone());
        running.spawn(async move {
            loop {
                let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if at >= load.keys.count() {
                    return Ok(());
                }
                load.client
                    .put(load.keys.key(at), load.value.clone())
                    .await?;
                bar.inc(1);
            }
        });
    }
    while let Some(task) = running.join_next().await {
        task.map_err(|why| Failure::local("bench", why, "report this as a bug"))?
            .map_err(|error: catena_client::Error| {
                Failure::write("writing the keys first", &error)
            })?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// A progress bar on stderr; where that is no terminal, nothing is drawn.
fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
