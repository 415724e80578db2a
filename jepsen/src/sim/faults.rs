//! What goes wrong, and what goes on: one command at a time, with rates drawn from the seed.

use catena_chainnode::stage::World;

use super::cluster::Cluster;
use super::configs::{self, list};
use super::council;
use super::dice::Dice;

/// Kinds of faults.
const KINDS: usize = 7;

/// How often each kind of thing happens, as weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rates {
    pub(super) deliver: u64,
    pub(super) sync: u64,
    pub(super) apply: u64,
    pub(super) tick: u64,
    pub(super) clients: u64,
    pub(super) reads: u64,
    pub(super) calm: u64,
    pub(super) configs: u64,
    /// Of a hundred steps, roughly.
    pub(super) faults: u64,
    pub(super) mends: u64,
    pub(super) settings: u64,
    pub(super) trims: u64,
    /// Which faults this run has at all: some runs are without crashes, some without partitions.
    kinds: [bool; KINDS],
    /// Disks lose what they held.
    losses: bool,
    /// A tick is at most this long, mostly.
    tick_ms_max: u64,
}

impl Rates {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self {
            deliver: 200 + dice.below(400),
            sync: 60 + dice.below(150),
            apply: 20 + dice.below(60),
            tick: 30 + dice.below(120),
            clients: 40 + dice.below(100),
            reads: 30 + dice.below(100),
            calm: [0, 2, 10][dice.index(3)],
            configs: dice.below(30),
            faults: dice.below(30),
            mends: 10 + dice.below(60),
            trims: [2, 20][dice.index(2)],
            settings: if dice.one_in(3) { 3 } else { 0 },
            kinds: std::array::from_fn(|_| !dice.one_in(4)),
            losses: !dice.one_in(3),
            tick_ms_max: [3, 10, 40, 130][dice.index(4)],
        }
    }

    /// With masters: their loop takes seconds for what a scripted source of configs does at once.
    pub(super) fn with_masters(self, dice: &mut Dice) -> Self {
        Self {
            calm: 10 + dice.below(40),
            configs: 5 + dice.below(30),
            faults: dice.below(20),
            settings: 0,
            tick_ms_max: [10, 40, 130, 400][dice.index(4)],
            ..self
        }
    }

    /// While a change is half done: leases still run, links are being made; more of everything, in little time.
    pub(super) const fn hurried(self) -> Self {
        Self {
            reads: self.reads * 3,
            clients: self.clients * 2,
            configs: self.configs * 6,
            faults: self.faults * 3,
            calm: 0,
            tick_ms_max: 8,
            ..self
        }
    }

    pub(super) fn tick_ms(&self, dice: &mut Dice) -> u64 {
        match dice.below(40) {
            0 => 1 + dice.below(2_500),
            1..=3 => 1 + dice.below(200),
            _ => 1 + dice.below(self.tick_ms_max),
        }
    }

    /// Something breaks.
    pub(super) fn fault(&self, world: &Cluster, dice: &mut Dice) -> Vec<String> {
        let nodes: Vec<u64> = world.nodes.keys().copied().collect();
        let kind = dice.index(self.kinds.len());
        if !self.kinds[kind] {
            return Vec::new();
        }
        match kind {
            0 => self.crash(world, dice, &nodes),
            1 => partition(dice, &nodes),
            2 => break_stream(world, dice),
            3 => split(dice, &nodes),
            4 => bounce(world, dice, &nodes),
            5 => {
                let running: Vec<u64> =
                    nodes.into_iter().filter(|n| world.is_running(*n)).collect();
                let stopped = dice.pick(&running).map(|n| format!("pause {n}"));
                stopped.into_iter().collect()
            }
            _ => slow_disk(world, dice),
        }
    }

    fn crash(&self, world: &Cluster, dice: &mut Dice, nodes: &[u64]) -> Vec<String> {
        let up: Vec<u64> = nodes.iter().copied().filter(|n| world.is_up(*n)).collect();
        let cut = dice.one_in(6);
        let mut commands = Vec::new();
        let victims = if cut {
            up.clone()
        } else {
            dice.pick(&up).into_iter().collect()
        };
        for n in victims {
            let unsynced = world.nodes.get(&n).map_or(0, |node| node.disk.unsynced());
            commands.push(match dice.below(3) {
                0 => format!("crash {n} keep"),
                1 if unsynced > 1 => {
                    format!("crash {n} keep {}", dice.below(unsynced as u64))
                }
                _ => format!("crash {n}"),
            });
            let member = configs::members(world).contains(&n);
            let rare = if member { 4 } else { 2 };
            if !cut && self.losses && can_lose(world, n) && dice.one_in(rare) {
                commands.push(format!("empty {n}"));
            }
        }
        commands
    }

    /// A stopped process starts, or a cut wire heals.
    pub(super) fn mend(&self, world: &Cluster, dice: &mut Dice) -> Option<String> {
        let nodes: Vec<u64> = world.nodes.keys().copied().collect();
        let down: Vec<u64> = nodes.iter().copied().filter(|n| !world.is_up(*n)).collect();
        if !down.is_empty() && dice.one_in(2) {
            let n = dice.pick(&down)?;
            let damaged = self.losses && can_lose(world, n) && dice.one_in(6);
            return Some(format!(
                "restart {n}{}",
                if damaged { " damaged" } else { "" }
            ));
        }
        let stopped: Vec<u64> = nodes
            .into_iter()
            .filter(|n| world.is_up(*n) && !world.is_running(*n))
            .collect();
        if !stopped.is_empty() && dice.one_in(2) {
            return Some(format!("resume {}", dice.pick(&stopped)?));
        }
        let (a, b) = dice.pick(&cuts(world))?;
        Some(format!("heal {a}-{b}"))
    }
}

/// Settings that come and go: the lease's length, how often rounds start, and a disk without room.
pub(super) fn setting(n: u64, dice: &mut Dice) -> String {
    match dice.below(4) {
        0 => format!("full {n}"),
        1 => format!("room {n}"),
        _ => {
            let lease_ms = [20, 100, 500, 1_000, 2_000][dice.index(5)];
            let round_ms = 1 + dice.below(lease_ms / 2);
            format!("settings {n} {lease_ms} {round_ms}")
        }
    }
}

/// Another member holds everything, or this node is none: its disk may be lost.
fn can_lose(world: &Cluster, n: u64) -> bool {
    if let Some(masters) = &world.masters
        && configs::members(world).contains(&n)
    {
        return council::can_lose(masters, world, n);
    }
    !configs::members(world).contains(&n) || configs::whole(world).iter().any(|m| *m != n)
}

/// Pairs of nodes with a cut wire between them.
pub(super) fn cuts(world: &World) -> Vec<(u64, u64)> {
    let nodes: Vec<u64> = world.nodes.keys().copied().collect();
    let pairs = nodes
        .iter()
        .flat_map(|a| nodes.iter().map(move |b| (*a, *b)));
    pairs
        .filter(|(a, b)| a < b && (world.is_cut(*a, *b) || world.is_cut(*b, *a)))
        .collect()
}

fn partition(dice: &mut Dice, nodes: &[u64]) -> Vec<String> {
    let Some(a) = dice.pick(nodes) else {
        return Vec::new();
    };
    let others: Vec<u64> = nodes.iter().copied().filter(|b| *b != a).collect();
    if dice.one_in(3) {
        // From everybody, in one of three ways.
        let way = dice.below(3);
        let cut = |b: &u64| match way {
            0 => format!("oneway {a}->{b}"),
            1 => format!("oneway {b}->{a}"),
            _ => format!("partition {a}-{b}"),
        };
        return others.iter().map(cut).collect();
    }
    let both = dice.one_in(2);
    let other = dice.pick(&others);
    let cut = |b| {
        if both {
            format!("partition {a}-{b}")
        } else {
            format!("oneway {a}->{b}")
        }
    };
    other.map(cut).into_iter().collect()
}

/// Two sides that do not hear each other.
fn split(dice: &mut Dice, nodes: &[u64]) -> Vec<String> {
    let (here, there): (Vec<u64>, Vec<u64>) = nodes.iter().partition(|_| dice.one_in(2));
    let pairs = here
        .iter()
        .flat_map(|a| there.iter().map(move |b| format!("partition {a}-{b}")));
    pairs.collect()
}

/// Processes die and are back before anybody's lease is over.
fn bounce(world: &World, dice: &mut Dice, nodes: &[u64]) -> Vec<String> {
    let members = configs::members(world);
    let all = dice.one_in(2);
    let one = dice.pick(nodes);
    let bounced = |n: &u64| {
        if all {
            members.contains(n)
        } else {
            Some(*n) == one
        }
    };
    let bounced: Vec<u64> = nodes
        .iter()
        .copied()
        .filter(|n| world.is_up(*n) && bounced(n))
        .collect();
    let keep = if dice.one_in(2) { " keep" } else { "" };
    let mut commands: Vec<String> = bounced.iter().map(|n| format!("crash {n}{keep}")).collect();
    if dice.one_in(2) {
        commands.push(format!("tick {}", 1 + dice.below(20)));
    }
    commands.extend(bounced.iter().map(|n| format!("restart {n}")));
    commands
}

fn break_stream(world: &World, dice: &mut Dice) -> Vec<String> {
    let busy = world.busy_wires();
    let broken = dice.pick(&busy).map(|(a, b)| format!("break {a}->{b}"));
    broken.into_iter().collect()
}

/// A sync is over, and its completion is late.
fn slow_disk(world: &World, dice: &mut Dice) -> Vec<String> {
    let waiting = world
        .nodes
        .iter()
        .filter(|(n, node)| world.is_up(**n) && node.disk.unsynced() > 0);
    let waiting: Vec<u64> = waiting.map(|(n, _)| *n).collect();
    let held = dice.pick(&waiting).map(|n| format!("hold {n}"));
    held.into_iter().collect()
}

/// The first nodes and their clocks, within ρ (R2).
pub(super) fn beginning(dice: &mut Dice) -> Vec<String> {
    let count = 1 + dice.below(5);
    let members = 1 + dice.below(count.min(4));
    let extreme = dice.one_in(2);
    let mut commands: Vec<String> = (1..=count)
        .map(|n| {
            let ppm = if extreme {
                [-1_000, 0, 1_000][dice.index(3)]
            } else {
                i64::try_from(dice.below(2_001)).unwrap_or(0) - 1_000
            };
            format!("clock {n} {ppm}")
        })
        .collect();
    let nodes: Vec<u64> = (1..=count).collect();
    let members: Vec<u64> = (1..=members).collect();
    commands.push(format!("nodes {}", list(&nodes)));
    commands.push(format!("chain {}", list(&members)));
    commands
}
