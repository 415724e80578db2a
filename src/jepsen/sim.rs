//! `catena jepsen sim`: seeds of the simulation, on all cores.

use std::num::NonZero;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use catena_chainnode::replica::MUTANTS;
use catena_jepsen::sim::{self, Company, Planted, Progress, SCHEDULES, Summary};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::Failure;
use crate::output::Output;

/// Arguments of `catena jepsen sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct SimArgs {
    /// Seeds to run, A..B without B
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// Steps of a run before everything is healed
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    steps: u64,
    /// Plant this bug, to see that it is found (builds with the `mutants` feature)
    #[arg(long, value_name = "NAME")]
    mutant: Option<Planted>,
    /// Let three masters decide about the chain, instead of a scripted source of configs
    #[arg(long)]
    masters: bool,
    /// List the bugs that can be planted, and the rule that each breaks
    #[arg(long)]
    list_mutants: bool,
    /// Tell one seed's messages and events, up to the first broken rule
    #[arg(long, value_name = "SEED")]
    trace: Option<u64>,
}

impl SimArgs {
    const fn company(&self) -> Company {
        if self.masters {
            Company::Masters
        } else {
            Company::Alone
        }
    }
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text
        .split_once("..")
        .ok_or("write a range of seeds as A..B")?;
    let number = |part: &str| {
        part.parse::<u64>()
            .map_err(|why| format!("{part:?}: {why}"))
    };
    let range = number(from)?..number(to)?;
    if range.is_empty() {
        return Err(format!("{text} holds no seed"));
    }
    Ok(range)
}

/// Runs the seeds; the exit status is 0 only if every one held.
pub(crate) fn run(args: SimArgs, output: &mut Output) -> Result<ExitCode, Failure> {
    if args.list_mutants {
        for schedule in SCHEDULES {
            let (name, breaks) = (schedule.mutant.name(), schedule.breaks);
            if output.is_json() {
                output.json(&serde_json::json!({ "mutant": name, "breaks": breaks }))?;
            } else {
                output.line(format!("{name:<34}{breaks}").as_bytes())?;
            }
        }
        output.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(mutant) = args.mutant.filter(|_| !MUTANTS) {
        return Err(Failure::usage(
            format!("jepsen sim --mutant {mutant}"),
            "this build cannot plant bugs",
            "cargo run --release --features mutants -- jepsen sim --mutant …",
        ));
    }
    if let Some(seed) = args.trace {
        output.line(
            sim::trace(seed, args.steps, args.company(), args.mutant)
                .trim_end()
                .as_bytes(),
        )?;
        output.flush()?;
        return Ok(ExitCode::SUCCESS);
    }
    let summary = on_all_cores(&args);
    for failure in &summary.failures {
        output.line(failure.to_string().as_bytes())?;
    }
    if output.is_json() {
        output.json(&summary.to_json())?;
    } else {
        output.line(summary.to_text().as_bytes())?;
    }
    output.flush()?;
    Ok(if summary.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// Each core takes the next seed; a seed's run does not depend on which one does.
fn on_all_cores(args: &SimArgs) -> Summary {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let next = AtomicU64::new(args.seeds.start);
    let bar = ProgressBar::new(args.seeds.end - args.seeds.start);
    if let Ok(style) =
        ProgressStyle::with_template("{elapsed} [{wide_bar}] {pos}/{len} seeds {msg}")
    {
        bar.set_style(style);
    }
    let work = || {
        let mut summary = Summary::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= args.seeds.end {
                return summary;
            }
            let on_progress = |progress: Progress| {
                bar.inc(1);
                if progress.failed > 0 {
                    bar.set_message("with failures");
                }
            };
            summary.add(sim::run(
                seed..seed + 1,
                args.steps,
                args.company(),
                args.mutant,
                on_progress,
            ));
        }
    };
    let mut all = Summary::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(summary) => all.add(summary),
                // An assertion of the replica itself: the run must not look like a pass.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    bar.finish_and_clear();
    all.failures.sort_by_key(|f| f.seed);
    all
}
