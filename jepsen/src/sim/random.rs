//! One run: safety under faults, then everything is healed and liveness is checked.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use catena_proto::ids::{Epoch, Seq};
use serde_json::{Value, json};

use super::clients::Clients;
use super::cluster::Cluster;
use super::configs::Configs;
use super::council;
use super::dice::Dice;
use super::ending;
use super::faults::{self, Rates};
use super::planted::Planted;
use super::trace::Trace;
use crate::check::model::Model;
use crate::check::report::Verdict;
use crate::check::{Options, check_history};

/// A change counts as half done for this many steps.
const HURRY_STEPS: u64 = 120;

/// Who decides about the chain in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Company {
    /// A scripted source of configs that likes bad moments.
    #[default]
    Alone,
    /// Three masters with the production state and loop.
    Masters,
}

/// A run that broke something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {rule}: {what}\n{}  repeat it: {}", self.script_text(), self.command())]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    /// The planted bug, if one was.
    pub mutant: Option<Planted>,
    /// Who decided about the chain.
    pub company: Company,
    /// The broken rule.
    pub rule: String,
    /// What was seen.
    pub what: String,
    /// The shortest script that was found that breaks the rule; the whole run, if what it broke shows only at its end.
    pub trace: Trace,
    /// The whole run.
    pub whole: Trace,
}

/// Longest script that a failure's text shows; a longer one is told by `--trace`.
const SCRIPT_LINES_SHOWN_MAX: usize = 150;

impl Failure {
    fn script_text(&self) -> String {
        let lines = self.trace.lines().len();
        if lines > SCRIPT_LINES_SHOWN_MAX {
            let seed = self.seed;
            return format!("  {lines} commands; `catena jepsen sim --trace {seed}` shows them\n");
        }
        self.trace.to_script()
    }

    /// The same for scripts.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "seed": self.seed,
            "steps": self.steps,
            "mutant": self.mutant.map(Planted::name),
            "rule": self.rule,
            "what": self.what,
            "script": self.trace.lines(),
            "repeat": self.command(),
        })
    }

    /// The command that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        let mutant = self
            .mutant
            .map_or(String::new(), |m| format!(" --mutant {m}"));
        let masters = match self.company {
            Company::Alone => "",
            Company::Masters => " --masters",
        };
        format!(
            "catena jepsen sim --seeds {}..{} --steps {}{masters}{mutant}",
            self.seed,
            self.seed + 1,
            self.steps
        )
    }
}

/// What a run did; equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Records that were committed.
    pub committed: u64,
    /// Operations in the clients' history.
    pub operations: u64,
    /// Epochs that were made.
    pub epochs: u64,
    /// How often each command was played: faults by kind, among others.
    pub commands: BTreeMap<String, u64>,
    /// A digest of everything that was done and said.
    pub digest: u32,
    /// The whole run.
    pub trace: Trace,
}

pub(super) struct Sim {
    pub(super) world: Cluster,
    pub(super) trace: Trace,
    pub(super) clients: Clients,
    pub(super) configs: Configs,
    dice: Dice,
    rates: Rates,
    hurry: u64,
    pub(super) company: Company,
    /// The epoch that was seen last.
    epoch: Option<Epoch>,
    digest: crc32fast::Hasher,
}

/// What a run broke, before it is told.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) rule: String,
    pub(super) what: String,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`]: a rule was broken, the chain did not come back, replicas differ, or the history is not linearizable.
pub fn simulate(
    seed: u64,
    steps: u64,
    company: Company,
    mutant: Option<Planted>,
) -> Result<Outcome, Box<Failure>> {
    let mut sim = Sim::new(seed, company, mutant);
    // A replica that finds its own invariants broken panics: that is a finding like any other.
    let run = catch_unwind(AssertUnwindSafe(|| sim.run(steps)));
    let broken = match run {
        Ok(Ok(())) => return Ok(sim.outcome()),
        Ok(Err(broken)) => broken,
        Err(panic) => Broken {
            rule: super::trace::PANIC.to_owned(),
            what: text_of(panic.as_ref()),
        },
    };
    let Broken { rule, what } = broken;
    let trace = sim.trace.shrunk(mutant, &rule);
    Err(Box::new(Failure {
        seed,
        steps,
        mutant,
        company,
        rule,
        what,
        trace,
        whole: sim.trace,
    }))
}

/// Plays a seed up to its first broken rule, and tells every command, message and event.
#[must_use]
pub fn trace(seed: u64, steps: u64, company: Company, mutant: Option<Planted>) -> String {
    let (lines, end) = match simulate(seed, steps, company, mutant) {
        Ok(outcome) => (outcome.trace, "every rule held".to_owned()),
        Err(failure) => (failure.whole, format!("{}: {}", failure.rule, failure.what)),
    };
    format!("{}{end}\n", lines.told(mutant))
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a message").to_owned()
}

impl Sim {
    fn new(seed: u64, company: Company, mutant: Option<Planted>) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = Cluster::new(mutant);
        world.quiet = true;
        let (configs, clients) = (Configs::new(&mut dice), Clients::new(&mut dice));
        let mut rates = Rates::draw(&mut dice);
        if company == Company::Masters {
            rates = rates.with_masters(&mut dice);
        }
        Self {
            world,
            trace: Trace::default(),
            clients,
            configs,
            dice,
            rates,
            hurry: 0,
            company,
            epoch: None,
            digest: crc32fast::Hasher::new(),
        }
    }

    fn run(&mut self, steps: u64) -> Result<(), Broken> {
        let beginning = match self.company {
            Company::Alone => faults::beginning(&mut self.dice),
            Company::Masters => council::beginning(&mut self.dice),
        };
        for command in beginning {
            self.play(command)?;
        }
        for _ in 0..steps {
            self.step()?;
        }
        ending::heal(self)?;
        ending::check(self)?;
        self.check_history()
    }

    /// Plays a command; an error is the first broken rule.
    pub(super) fn play(&mut self, command: String) -> Result<(), Broken> {
        self.trace.play(&mut self.world, command);
        self.look()
    }

    /// Takes in what the last commands led to.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        self.clients.take_replies(&mut self.world);
        self.digest.update(self.world.take_transcript().as_bytes());
        let broken = |rule: &str, what: &str| {
            Err(Broken {
                rule: rule.to_owned(),
                what: what.to_owned(),
            })
        };
        if let Some(foul) = self.world.foul() {
            return broken("the simulation itself", foul);
        }
        match self.world.oracle.violation() {
            Some(violation) => broken(violation.rule, &violation.what),
            None => Ok(()),
        }
    }

    fn step(&mut self) -> Result<(), Broken> {
        self.hurry = self.hurry.saturating_sub(1);
        if self.company == Company::Masters {
            let epoch = self.world.chain().map(|c| c.epoch);
            if std::mem::replace(&mut self.epoch, epoch) != epoch {
                self.hurry = 1 + self.dice.below(HURRY_STEPS);
            }
        }
        let rates = if self.hurry > 0 {
            self.rates.hurried()
        } else {
            self.rates
        };
        let weights = [
            rates.deliver,
            rates.sync,
            rates.apply,
            rates.tick,
            rates.clients,
            rates.reads,
            rates.calm,
            rates.configs,
            rates.faults,
            rates.mends,
            rates.trims,
            rates.settings,
        ];
        let mut roll = self.dice.below(weights.iter().sum());
        let chosen = weights.iter().position(|weight| {
            let hit = roll < *weight;
            roll = roll.saturating_sub(*weight);
            hit
        });
        let nodes: Vec<u64> = self.world.nodes.keys().copied().collect();
        let n = self.dice.pick(&nodes).unwrap_or(1);
        match chosen {
            Some(0) => self.deliver()?,
            Some(1) => self.sync(n)?,
            Some(2) => {
                let lazy = if self.dice.one_in(3) { "" } else { " lazy" };
                self.play(format!("apply {n}{lazy}"))?;
            }
            Some(3) => {
                let ms = rates.tick_ms(&mut self.dice);
                self.play(format!("tick {ms}"))?;
            }
            Some(4) => {
                self.clients
                    .act(&mut self.world, &mut self.dice, &mut self.trace);
                self.look()?;
            }
            Some(5) => {
                self.clients
                    .read(n, &mut self.world, &mut self.dice, &mut self.trace);
                self.look()?;
            }
            Some(6) => {
                let most = match self.company {
                    Company::Alone => 400,
                    Company::Masters => 3_000,
                };
                let ms = 10 + self.dice.below(most);
                self.play(format!("run {ms}"))?;
            }
            Some(7) => self.change()?,
            Some(8) => {
                for command in rates.fault(&self.world, &mut self.dice) {
                    self.play(command)?;
                }
            }
            Some(9) => {
                if let Some(command) = rates.mend(&self.world, &mut self.dice) {
                    let started = command.starts_with("restart");
                    let n = command.split(' ').nth(1).and_then(|n| n.parse().ok());
                    self.play(command)?;
                    let again = n
                        .filter(|_| started && self.company == Company::Alone)
                        .and_then(|n| self.configs.restarted(n));
                    if let Some(command) = again {
                        self.play(command)?;
                    }
                }
            }
            Some(10) => self.trim(n)?,
            _ => {
                let command = faults::setting(n, &mut self.dice);
                self.play(command)?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<(), Broken> {
        let wires = self.world.busy_wires();
        let Some((from, to)) = self.dice.pick(&wires) else {
            return Ok(());
        };
        let how_many = match self.dice.below(6) {
            0..=2 => String::new(),
            3 => " 2".to_owned(),
            4 => format!(" {}", 3 + self.dice.below(4)),
            _ => " all".to_owned(),
        };
        self.play(format!("deliver {from}->{to}{how_many}"))
    }

    fn sync(&mut self, n: u64) -> Result<(), Broken> {
        if self.world.is_held(n) {
            return self.play(format!("release {n}"));
        }
        let idle = self
            .world
            .nodes
            .get(&n)
            .is_none_or(|node| node.disk.unsynced() == 0);
        if idle {
            return Ok(());
        }
        self.play(format!("persist {n}"))
    }

    fn change(&mut self) -> Result<(), Broken> {
        if self.company == Company::Masters {
            let command = council::act(&self.world, &mut self.dice);
            return command.map_or(Ok(()), |command| self.play(command));
        }
        let before = self.world.chain().map(|c| c.epoch);
        for _ in 0..=self.dice.below(3) {
            if let Some(command) = self.configs.act(&self.world, &mut self.dice) {
                self.play(command)?;
            }
        }
        if self.world.chain().map(|c| c.epoch) != before {
            self.hurry = 1 + self.dice.below(HURRY_STEPS);
        }
        Ok(())
    }

    fn trim(&mut self, n: u64) -> Result<(), Broken> {
        let node = self.world.nodes.get(&n);
        let floor = node.and_then(|node| {
            let floor = node.replica.as_ref()?.log_floor();
            Some(floor.min(node.disk.durable()))
        });
        match floor.filter(|floor| *floor > Seq::ZERO) {
            Some(floor) => self.play(format!("trim {n} {floor}")),
            None => Ok(()),
        }
    }

    fn check_history(&self) -> Result<(), Broken> {
        let broken = |what| Broken {
            rule: "linearizability per key".to_owned(),
            what,
        };
        let report = check_history(&self.clients.history, Model::Catena, &Options::default())
            .map_err(|error| broken(error.to_string()))?;
        match report.verdict() {
            Verdict::Linearizable => Ok(()),
            _ => Err(broken(report.to_text())),
        }
    }

    fn outcome(self) -> Outcome {
        let mut commands = BTreeMap::new();
        for line in self.trace.lines() {
            let word = line.split(' ').next().unwrap_or_default();
            *commands.entry(word.to_owned()).or_insert(0) += 1;
        }
        let mut digest = self.digest;
        digest.update(self.trace.to_script().as_bytes());
        let committed = self.world.oracle.committed().last();
        Outcome {
            simulated_ms: self.world.now.as_millis(),
            committed: committed.map_or(0, |(seq, _)| seq.get()),
            operations: self.clients.history.operations().len() as u64,
            epochs: self.world.chain().map_or(0, |c| c.epoch.get()),
            commands,
            digest: digest.finalize(),
            trace: self.trace,
        }
    }
}
