//! One run: safety under faults, then everything is healed and liveness is checked.

use catena_chainnode::replica::Mutant;
use catena_chainnode::stage::World;
use catena_proto::ids::Seq;
use catena_proto::op::{Command, Outcome as Decided, WriteOp};

use super::clients::Clients;
use super::configs::{self, Configs};
use super::dice::Dice;
use crate::check::model::Model;
use crate::check::report::Verdict;
use crate::check::{Options, check_history};

/// A run that broke something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("seed {seed}: {rule}: {what}\n  repeat it: catena jepsen sim --seeds {seed}..{next} --steps {steps}{mutant}", next = seed + 1, mutant = .mutant.map_or(String::new(), |m| format!(" --mutant {m}")))]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    /// The planted bug, if one was.
    pub mutant: Option<Mutant>,
    /// The broken rule.
    pub rule: String,
    /// What was seen.
    pub what: String,
}

/// What a run did; equal for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Simulated time, in milliseconds.
    pub simulated_ms: u64,
    /// Records that were committed.
    pub committed: u64,
    /// Operations in the clients' history.
    pub operations: usize,
    /// Epochs that were made.
    pub epochs: u64,
    /// Crashes that were injected.
    pub crashes: u64,
    /// A digest of everything that was said and done.
    pub digest: u32,
}

/// Rates of faults, drawn once a run.
struct Rates {
    crash: u64,
    partition: u64,
    config: u64,
    wire: u64,
}

struct Sim {
    world: World,
    dice: Dice,
    configs: Configs,
    clients: Clients,
    rates: Rates,
    crashes: u64,
    digest: crc32fast::Hasher,
    /// The transcript since it was last taken; kept short unless it is traced.
    told: String,
}

/// Runs one seed.
///
/// # Errors
/// [`Failure`]: a rule was broken, the chain did not come back, replicas differ, or the history is not linearizable.
pub fn simulate(seed: u64, steps: u64, mutant: Option<Mutant>) -> Result<Outcome, Box<Failure>> {
    let fail = |rule: &str, what: String| {
        Box::new(Failure {
            seed,
            steps,
            mutant,
            rule: rule.to_owned(),
            what,
        })
    };
    let mut sim = Sim::new(seed, mutant);
    for _ in 0..steps {
        sim.step();
        if let Some(violation) = sim.world.oracle.violation() {
            return Err(fail(violation.rule, violation.what.clone()));
        }
    }
    sim.heal();
    if let Some(violation) = sim.world.oracle.violation() {
        return Err(fail(violation.rule, violation.what.clone()));
    }
    sim.check_liveness()
        .map_err(|what| fail("liveness", what))?;
    let report = check_history(&sim.clients.history, Model::Catena, &Options::default())
        .map_err(|error| fail("history", error.to_string()))?;
    match report.verdict() {
        Verdict::Linearizable => Ok(sim.outcome()),
        _ => Err(fail("linearizability", report.to_text())),
    }
}

/// Plays a seed up to its first broken rule, and tells every message and event.
#[must_use]
pub fn trace(seed: u64, steps: u64, mutant: Option<Mutant>) -> String {
    let mut sim = Sim::new(seed, mutant);
    sim.world.quiet = false;
    let mut told = String::new();
    for step in 0..steps {
        sim.step();
        if !sim.told.is_empty() {
            let ms = sim.world.now.as_millis();
            told.push_str(&format!(
                "step {step}, {ms} ms\n{}",
                std::mem::take(&mut sim.told)
            ));
        }
        if let Some(violation) = sim.world.oracle.violation() {
            told.push_str(&format!("BROKEN {violation}\n"));
            return told;
        }
    }
    sim.heal();
    told.push_str(&std::mem::take(&mut sim.told));
    told
}

impl Sim {
    fn new(seed: u64, mutant: Option<Mutant>) -> Self {
        let mut dice = Dice::new(seed);
        let mut world = World::with_mutant(mutant);
        world.quiet = true;
        let nodes = 2 + dice.below(4);
        for n in 1..=nodes {
            // Within ρ of the true time, either way (R2).
            let ppm = i64::try_from(dice.below(1_001)).unwrap_or(0) - 500;
            world.set_clock(n, ppm);
            world.start(n, None);
        }
        let members: Vec<u64> = (1..=nodes.min(1 + dice.below(3) + 1)).collect();
        let mut configs = Configs::default();
        configs.begin(&mut world, &members);
        let clients = Clients::new(usize::try_from(1 + dice.below(3)).unwrap_or(1));
        let rates = Rates {
            crash: 40 + dice.below(600),
            partition: 40 + dice.below(600),
            config: 20 + dice.below(400),
            wire: 40 + dice.below(400),
        };
        Self {
            world,
            dice,
            configs,
            clients,
            rates,
            crashes: 0,
            digest: crc32fast::Hasher::new(),
            told: String::new(),
        }
    }

    fn step(&mut self) {
        if self.dice.one_in(self.rates.crash) {
            self.crash_or_restart();
        } else if self.dice.one_in(self.rates.partition) {
            self.partition();
        } else if self.dice.one_in(self.rates.config) {
            // Changes come in bursts: the second one meets the first half done.
            for _ in 0..=self.dice.below(3) {
                self.configs.act(&mut self.world, &mut self.dice);
            }
        } else if self.dice.one_in(self.rates.wire) {
            let wires = self.world.busy_wires();
            if let Some((from, to)) = self.dice.pick(&wires) {
                self.world.break_wire(from, to);
            }
        } else {
            self.usual();
        }
        self.clients.take_replies(&mut self.world);
        self.listen();
    }

    fn listen(&mut self) {
        let said = self.world.take_transcript();
        self.digest.update(said.as_bytes());
        if !self.world.quiet {
            self.told.push_str(&said);
        }
    }

    fn usual(&mut self) {
        let nodes: Vec<u64> = self.world.nodes.keys().copied().collect();
        let Some(n) = self.dice.pick(&nodes) else {
            return;
        };
        match self.dice.below(20) {
            0..=8 => {
                let wires = self.world.busy_wires();
                if let Some((from, to)) = self.dice.pick(&wires) {
                    for _ in 0..=self.dice.below(3) {
                        self.world.deliver(from, to);
                    }
                }
            }
            9..=12 => {
                self.world.persist(n);
            }
            13 => {
                let flush = self.dice.one_in(3);
                self.world.apply(n, flush);
            }
            14 => {
                let ms = if self.dice.one_in(10) { 200 } else { 5 };
                let by = 1 + self.dice.below(ms);
                self.world.tick(by);
            }
            15..=16 => self.clients.act(&mut self.world, &mut self.dice),
            17..=18 => self.clients.read(&mut self.world, &mut self.dice),
            _ => self.trim(n),
        }
    }

    fn trim(&mut self, n: u64) {
        if !self.dice.one_in(8) {
            return;
        }
        let Some(node) = self.world.nodes.get_mut(&n) else {
            return;
        };
        let Some(floor) = node.replica.as_ref().map(|r| r.log_floor()) else {
            return;
        };
        node.disk.trim(floor.min(node.disk.durable()));
        let start = node.disk.start();
        self.world
            .step(n, catena_chainnode::replica::Input::LogTrimmed { start });
    }

    /// How many members hold everything on an intact disk; the last such one is never destroyed (M3 would wait for ever).
    fn copies_besides(&self, n: u64) -> usize {
        configs::synced(&self.world)
            .iter()
            .filter(|m| **m != n)
            .count()
    }

    fn crash_or_restart(&mut self) {
        if self.dice.one_in(15) {
            // A power cut of everything (FAULTS 9).
            let up: Vec<u64> = self.up();
            for n in up {
                let keep = self.dice.one_in(2);
                self.crash(n, keep);
            }
            return;
        }
        let nodes: Vec<u64> = self.world.nodes.keys().copied().collect();
        let Some(n) = self.dice.pick(&nodes) else {
            return;
        };
        let safe = self.copies_besides(n) > 0;
        if self
            .world
            .nodes
            .get(&n)
            .is_some_and(|node| node.replica.is_some())
        {
            let keep = self.dice.one_in(3);
            self.crash(n, keep);
            if safe && self.dice.one_in(8) {
                self.world.empty_disk(n);
            }
            return;
        }
        let damage = (safe && self.dice.one_in(8)).then(|| "a damaged frame".to_owned());
        self.world.start(n, damage);
        self.configs.restarted(&mut self.world, n);
    }

    fn crash(&mut self, n: u64, keep: bool) {
        self.crashes += 1;
        // A read in hand dies with its process.
        self.world.crash(n, keep);
    }

    fn up(&self) -> Vec<u64> {
        let up = |(n, node): (&u64, &catena_chainnode::stage::Node)| {
            node.replica.is_some().then_some(*n)
        };
        self.world.nodes.iter().filter_map(up).collect()
    }

    fn partition(&mut self) {
        let nodes: Vec<u64> = self.world.nodes.keys().copied().collect();
        let (Some(a), Some(b)) = (self.dice.pick(&nodes), self.dice.pick(&nodes)) else {
            return;
        };
        if a != b {
            // Healed more often than cut, so that most of the time somebody can commit.
            let on = !self.world.is_cut(a, b) && self.dice.one_in(3);
            let both = self.dice.one_in(2);
            self.world.partition(a, b, on, both);
        }
    }

    fn heal(&mut self) {
        let nodes: Vec<u64> = self.world.nodes.keys().copied().collect();
        for a in &nodes {
            for b in nodes.iter().filter(|b| *b > a) {
                self.world.partition(*a, *b, false, true);
            }
        }
        for n in nodes {
            if self
                .world
                .nodes
                .get(&n)
                .is_some_and(|node| node.replica.is_none())
            {
                self.world.start(n, None);
                self.configs.restarted(&mut self.world, n);
            }
        }
        self.configs.heal(&mut self.world);
        self.clients.take_replies(&mut self.world);
        self.listen();
    }

    /// The chain serves, everything acknowledged is there, and replicas that are equally far are equal.
    fn check_liveness(&mut self) -> Result<(), String> {
        let head = configs::head(&self.world).ok_or("no chain is left")?;
        let command = Command::Write {
            key: "last".into(),
            op: WriteOp::Put { value: "x".into() },
        };
        let number = self.world.submit(head, None, command);
        self.world.run(3_000);
        let answer = self
            .world
            .replies
            .iter()
            .find(|(n, _)| *n == number)
            .map(|(_, r)| r.clone());
        self.clients.take_replies(&mut self.world);
        let status = self.statuses();
        let Some(Ok(Decided::Written { version })) = answer else {
            return Err(format!("a write after healing got {answer:?}\n{status}"));
        };
        let members = configs::members(&self.world);
        let mut states = Vec::new();
        for n in &members {
            self.world
                .admit(*n, b"last")
                .and_then(|()| self.world.answer(*n).map(|_| ()))
                .map_err(|why| format!("node {n} does not serve after healing: {why}\n{status}"))?;
            let node = &self.world.nodes[n];
            if node.disk.state.progress.applied != version {
                return Err(format!("node {n} has not applied {version}\n{status}"));
            }
            states.push((
                *n,
                node.disk.state.rows.clone(),
                node.disk.state.sessions.clone(),
            ));
        }
        for pair in states.windows(2) {
            if pair[0].1 != pair[1].1 || pair[0].2 != pair[1].2 {
                return Err(format!(
                    "nodes {} and {} differ at seq {version}",
                    pair[0].0, pair[1].0
                ));
            }
        }
        self.check_committed(&members)
    }

    /// Every record that was ever committed is in the final state, as the last word on its key says.
    fn check_committed(&self, members: &[u64]) -> Result<(), String> {
        let mut expected = std::collections::BTreeMap::new();
        for (seq, record) in self.world.oracle.committed() {
            for effect in &record.effects {
                expected.insert(effect.key.clone(), effect.value.clone().map(|v| (v, *seq)));
            }
        }
        let Some(first) = members.first() else {
            return Ok(());
        };
        let rows = &self.world.nodes[first].disk.state.rows;
        for (key, row) in expected {
            if rows.get(&key).cloned() != row {
                return Err(format!(
                    "{key:?} is {:?}, committed was {row:?}",
                    rows.get(&key)
                ));
            }
        }
        Ok(())
    }

    fn statuses(&self) -> String {
        let mut text = String::new();
        for (n, node) in &self.world.nodes {
            let status = node.replica.as_ref().map(|r| r.status(self.world.now));
            let epoch = node
                .replica
                .as_ref()
                .and_then(|r| r.chain())
                .map(|c| c.epoch);
            text.push_str(&format!("  node {n}, epoch {epoch:?}: {status:?}\n"));
        }
        text
    }

    fn outcome(self) -> Outcome {
        Outcome {
            simulated_ms: self.world.now.as_millis(),
            committed: self
                .world
                .oracle
                .committed()
                .last()
                .map_or(Seq::ZERO, |(s, _)| *s)
                .get(),
            operations: self.clients.history.operations().len(),
            epochs: self.world.chain().map_or(0, |c| c.epoch.get()),
            crashes: self.crashes,
            digest: self.digest.finalize(),
        }
    }
}
