//! Many seeds, with a summary.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::{Value, json};

use super::planted::Planted;
use super::random::{Company, Failure, simulate};

/// How far a run of seeds has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Seeds done.
    pub done: u64,
    /// Seeds that failed.
    pub failed: u64,
}

/// What a run of seeds found.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Simulated time of the seeds that held, in milliseconds.
    pub simulated_ms: u64,
    /// Records committed in them.
    pub committed: u64,
    /// Client operations in them.
    pub operations: u64,
    /// How often each command was played in them: faults by kind, among others.
    pub commands: BTreeMap<String, u64>,
    /// Epochs made in them.
    pub epochs: u64,
    /// Seeds that broke something.
    pub failures: Vec<Failure>,
}

/// Runs the seeds one after the other.
pub fn run(
    seeds: Range<u64>,
    steps: u64,
    company: Company,
    mutant: Option<Planted>,
    mut on_progress: impl FnMut(Progress),
) -> Summary {
    let mut summary = Summary::default();
    for seed in seeds {
        match simulate(seed, steps, company, mutant) {
            Ok(outcome) => {
                summary.simulated_ms += outcome.simulated_ms;
                summary.committed += outcome.committed;
                summary.operations += outcome.operations;
                for (command, times) in outcome.commands {
                    *summary.commands.entry(command).or_insert(0) += times;
                }
                summary.epochs += outcome.epochs;
            }
            Err(failure) => summary.failures.push(*failure),
        }
        summary.seeds += 1;
        let failed = summary.failures.len() as u64;
        on_progress(Progress {
            done: summary.seeds,
            failed,
        });
    }
    summary
}

impl Summary {
    /// Adds what another run found.
    pub fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.simulated_ms += other.simulated_ms;
        self.committed += other.committed;
        self.operations += other.operations;
        self.epochs += other.epochs;
        for (command, times) in other.commands {
            *self.commands.entry(command).or_insert(0) += times;
        }
        self.failures.extend(other.failures);
    }

    /// One paragraph for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let commands = self
            .commands
            .iter()
            .map(|(c, times)| format!("{times} {c}"));
        format!(
            "{} seeds, {} failed; {} simulated seconds, {} records committed, {} client operations, {} epochs; {}",
            self.seeds,
            self.failures.len(),
            self.simulated_ms / 1000,
            self.committed,
            self.operations,
            self.epochs,
            commands.collect::<Vec<_>>().join(", ")
        )
    }

    /// The same for scripts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "seeds": self.seeds,
            "failed": self.failures.iter().map(Failure::to_json).collect::<Vec<_>>(),
            "simulated_ms": self.simulated_ms,
            "committed": self.committed,
            "operations": self.operations,
            "epochs": self.epochs,
            "commands": self.commands,
        })
    }
}
