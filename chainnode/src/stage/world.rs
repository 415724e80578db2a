//! Replicas, disks, wires, clocks and clients of one shard, stepped by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use bytes::Bytes;
use catena_proto::config::{ChainConfig, Member};
use catena_proto::ids::{DiskId, Epoch, Incarnation, NodeId, Seq, ShardId};
use catena_proto::message::Message;
use catena_proto::op::Outcome;
use catena_proto::time::Mono;

use super::disk::{self, Disk};
use super::oracle::Oracle;
use super::show;
use crate::replica::{
    Apply, Event, Identity, Input, LeaseSettings, Mutant, Outputs, ReadView, Refusal, Replica,
    Timer,
};

/// The only shard of a stage.
pub(super) const SHARD: ShardId = ShardId::new(1);
const SETTINGS: LeaseSettings = LeaseSettings {
    lease_ms: 500,
    round_ms: 100,
};
/// A stage that takes more rounds than this to come to rest has a livelock.
const ROUNDS_TO_REST_MAX: usize = 10_000;

/// One node of the stage.
#[derive(Debug)]
pub struct Node {
    /// `None` while it is down.
    pub replica: Option<Replica>,
    /// Its disk.
    pub disk: Disk,
    pub(super) disk_id: DiskId,
    pub(super) incarnation: u64,
    timers: BTreeMap<Timer, Mono>,
    /// Parts per million by which its clock runs fast.
    clock_ppm: i64,
    pub(super) admitted: Option<Admitted>,
    /// A sync that is over on the disk, and not yet known to the replica.
    held: Option<Input>,
    /// The process is stopped (SIGSTOP): what happens to it waits here.
    pub(super) paused: Option<VecDeque<Input>>,
}

#[derive(Clone, Debug)]
pub(super) struct Admitted {
    pub(super) view: ReadView,
    pub(super) key: Bytes,
    pub(super) found: Option<(Bytes, Seq)>,
    pub(super) least: Seq,
}

/// A read's answer that left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The key.
    pub key: Bytes,
    /// Value and version, or `None` if it is absent.
    pub row: Option<(Bytes, Seq)>,
}

/// The stage.
#[derive(Debug, Default)]
pub struct World {
    /// The one true time; each node's clock is derived from it.
    pub now: Mono,
    /// The nodes by number.
    pub nodes: BTreeMap<u64, Node>,
    /// What must never happen.
    pub oracle: Oracle,
    /// Answers to requests, by the number that [`World::submit`] gave.
    pub replies: Vec<(u64, Result<Outcome, Refusal>)>,
    /// Answers of reads that left, in order.
    pub answers: Vec<Answer>,
    /// Messages are left out of the transcript.
    pub quiet: bool,
    /// Forks are played on purpose: a stop is no false alarm.
    pub forks_expected: bool,
    mutant: Option<Mutant>,
    transcript: String,
    wires: BTreeMap<(u64, u64), VecDeque<Message>>,
    cut: BTreeSet<(u64, u64)>,
    pub(super) chain: Option<ChainConfig>,
    /// Every config that was made, by epoch.
    pub(super) made: Vec<ChainConfig>,
    /// Stints for which a disk was once synced.
    pub(super) stints: BTreeSet<Member>,
    /// The first thing that was done against rules M: then a broken rule proves nothing.
    pub(super) foul: Option<&'static str>,
    pub(super) requests: BTreeMap<u64, (u64, Option<Bytes>)>,
    pub(super) requests_made: u64,
}

impl World {
    /// An empty stage on which every replica has this bug planted (in builds with the `mutants` feature).
    #[must_use]
    pub fn with_mutant(mutant: Option<Mutant>) -> Self {
        Self {
            mutant,
            ..Self::default()
        }
    }

    /// Adds a line to the transcript.
    pub fn say(&mut self, line: &str) {
        let _ = writeln!(self.transcript, "{line}");
    }

    /// Takes what was written since the last time.
    pub fn take_transcript(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }

    pub(super) fn node(&mut self, n: u64) -> &mut Node {
        self.nodes.entry(n).or_insert_with(|| Node {
            replica: None,
            disk: Disk::default(),
            disk_id: DiskId::new(u128::from(n) * 100),
            incarnation: n * 10,
            timers: BTreeMap::new(),
            clock_ppm: 0,
            admitted: None,
            held: None,
            paused: None,
        })
    }

    /// The reading of a node's own clock.
    #[must_use]
    pub fn clock(&self, n: u64) -> Mono {
        let ppm = self.nodes.get(&n).map_or(0, |node| node.clock_ppm);
        let nanos = i128::from(self.now.as_nanos()) * i128::from(1_000_000 + ppm) / 1_000_000;
        Mono::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Sets how fast a node's clock runs; call it before the node starts.
    pub fn set_clock(&mut self, n: u64, ppm: i64) {
        self.node(n).clock_ppm = ppm;
    }

    /// Starts a node's process on what its disk holds.
    pub fn start(&mut self, n: u64, damage: Option<String>) {
        if damage.is_some() {
            self.judge_loss(n);
        }
        let mutant = self.mutant;
        self.node(n).incarnation += 1;
        let now = self.clock(n);
        let node = self.node(n);
        let id = Identity {
            node: NodeId::new(n),
            disk: node.disk_id,
            incarnation: Incarnation::new(node.incarnation),
            shard: SHARD,
        };
        let mut out = Outputs::default();
        let recovered = node.disk.recover(damage);
        let replica = Replica::recover_planted(id, SETTINGS, recovered, mutant, now, &mut out);
        node.replica = Some(replica);
        self.carry_out(n, out);
    }

    /// The node, which is down, comes back with an empty folder under a new disk id.
    pub fn empty_disk(&mut self, n: u64) {
        self.judge_loss(n);
        let node = self.node(n);
        node.disk = Disk::default();
        node.disk_id = DiskId::new(node.disk_id.get() + 1);
        self.oracle.on_new_disk(NodeId::new(n));
    }

    /// The process dies; of what was not synced, the first `keep` writes survive all the same.
    pub fn crash(&mut self, n: u64, keep: usize) {
        let node = self.node(n);
        node.replica = None;
        node.timers.clear();
        node.admitted = None;
        node.held = None;
        node.paused = None;
        node.disk.crash(keep);
        for (_, wire) in self
            .wires
            .iter_mut()
            .filter(|((a, b), _)| *a == n || *b == n)
        {
            wire.clear();
        }
        let others: Vec<u64> = self.nodes.keys().copied().filter(|o| *o != n).collect();
        for other in others {
            self.step(other, Input::LinkLost { to: NodeId::new(n) });
        }
    }

    /// One input to one replica, if it is up.
    pub fn step(&mut self, n: u64, input: Input) {
        let now = self.clock(n);
        let Some(node) = self.nodes.get_mut(&n) else {
            return;
        };
        let Some(replica) = node.replica.as_mut() else {
            return;
        };
        if let Some(waiting) = &mut node.paused {
            waiting.push_back(input);
            return;
        }
        let mut out = Outputs::default();
        replica.step(now, input, &mut out);
        self.carry_out(n, out);
    }

    fn carry_out(&mut self, n: u64, out: Outputs) {
        self.watch(n, &out);
        for send in out.send {
            let to = send.to.get();
            if !self.quiet {
                self.say(&format!("  {n}->{to} {}", show::message(&send.message)));
            }
            let up = self
                .nodes
                .get(&to)
                .is_some_and(|other| other.replica.is_some());
            if up && !self.cut.contains(&(n, to)) {
                self.wires
                    .entry((n, to))
                    .or_default()
                    .push_back(send.message);
            }
        }
        for event in out.events {
            let minor = matches!(
                event,
                Event::PeerRefused { .. } | Event::LinkUp { .. } | Event::ConfigRefused(_)
            );
            if !(minor && self.quiet) {
                self.say(&format!("  {n} {}", show::event(&event)));
            }
        }
        for reply in out.replies {
            let result = match &reply.result {
                Ok(outcome) => format!("{outcome:?}"),
                Err(refusal) => format!("refused: {refusal}"),
            };
            self.say(&format!("  reply to #{}: {result}", reply.to.request));
            self.replies.push((reply.to.request, reply.result));
        }
        let node = self.node(n);
        node.timers.extend(out.timers);
        node.disk.take(out.persist, out.apply);
        self.note_stint(n);
        let node = self.node(n);
        let logs: Vec<_> = out
            .log_reads
            .iter()
            .map(|r| (r.link, node.disk.read(r.after)))
            .collect();
        let pages: Vec<_> = out
            .page_reads
            .iter()
            .map(|r| (r.to, disk::page(&node.disk, r)))
            .collect();
        for (link, groups) in logs {
            self.step(n, Input::LogRead { link, groups });
        }
        for (to, page) in pages {
            self.step(
                n,
                Input::PageRead {
                    to,
                    page: Box::new(page),
                },
            );
        }
    }

    /// Shows the oracle what a step did.
    fn watch(&mut self, n: u64, out: &Outputs) {
        let id = NodeId::new(n);
        let Some(node) = self.nodes.get(&n) else {
            return;
        };
        let epoch = node
            .replica
            .as_ref()
            .and_then(|r| r.chain())
            .map_or(Epoch::ZERO, |c| c.epoch);
        self.oracle.on_epoch(id, epoch, node.disk.epoch());
        self.oracle.on_moved(id, epoch, self.now);
        for apply in &out.apply {
            if let Apply::Groups { groups, .. } = apply {
                self.oracle.on_apply(id, epoch, groups);
            }
        }
        for reply in &out.replies {
            let key = self
                .requests
                .get(&reply.to.request)
                .and_then(|(_, key)| key.clone());
            if let Ok(outcome) = reply.result {
                // Who is synced for its stint holds all that is committed; a joiner and a replaced disk do not (S1, C4).
                let members: Vec<NodeId> = node
                    .replica
                    .as_ref()
                    .and_then(|r| r.chain())
                    .map(|c| {
                        let same = |m: &&Member| {
                            let node = self.nodes.get(&m.node.get());
                            node.is_some_and(|n| {
                                n.disk.synced_for() == Some((m.disk, m.joined_epoch))
                            })
                        };
                        c.members.iter().filter(same).map(|m| m.node).collect()
                    })
                    .unwrap_or_default();
                let nodes = &self.nodes;
                let durable = |seq| {
                    let of = |n: &NodeId| Some((*n, nodes.get(&n.get())?.disk.durable_at(seq)));
                    members.iter().filter_map(of).collect()
                };
                self.oracle.on_acknowledged(key.as_ref(), outcome, durable);
            }
        }
        if let Some(replica) = node.replica.as_ref()
            && out
                .persist
                .iter()
                .any(|p| matches!(p, crate::replica::Persist::Append(_)))
            && replica.status(self.now).standing == catena_proto::report::Standing::Learner
        {
            self.oracle.on_learner(id, replica.last());
        }
        for event in &out.events {
            match event {
                Event::Fenced { evidence } if !self.forks_expected => {
                    self.oracle.on_false_alarm(id, evidence);
                }
                Event::InSync { epoch, .. } if *epoch > Epoch::new(1) && !self.forks_expected => {
                    let last = node.disk.durable();
                    let start = node.disk.start();
                    let disk = &node.disk;
                    self.oracle.on_in_sync(id, *epoch, last, |seq, record| {
                        seq <= start || disk.record(seq).is_none_or(|found| found == *record)
                    });
                }
                _ => {}
            }
        }
    }

    /// The process stops where it is, with whatever it has in hand; time goes on.
    pub fn pause(&mut self, n: u64) {
        if self.is_up(n) {
            self.node(n).paused.get_or_insert_default();
        }
    }

    /// A stopped process goes on: it finds all that came meanwhile.
    pub fn resume(&mut self, n: u64) {
        for input in self.node(n).paused.take().unwrap_or_default() {
            self.step(n, input);
        }
    }

    /// Whether a process runs and is not stopped.
    #[must_use]
    pub fn is_running(&self, n: u64) -> bool {
        self.nodes
            .get(&n)
            .is_some_and(|node| node.replica.is_some() && node.paused.is_none())
    }

    /// Syncs a node's log; false if there was nothing to sync.
    pub fn persist(&mut self, n: u64) -> bool {
        let running = self.is_running(n);
        let input = if running {
            self.node(n).disk.sync()
        } else {
            None
        };
        input.map(|input| self.step(n, input)).is_some()
    }

    /// Syncs a node's log; the replica learns of it with [`World::release`].
    pub fn hold(&mut self, n: u64) {
        let node = self.node(n);
        if let Some(completion) = node.disk.sync() {
            // One completion tells of everything before it.
            node.held = Some(completion);
        }
    }

    /// The completion of a held sync arrives.
    pub fn release(&mut self, n: u64) {
        if let Some(input) = self.node(n).held.take() {
            self.step(n, input);
        }
    }

    /// Lets a node's engine work off its queue; false if there was nothing.
    pub fn apply(&mut self, n: u64, flush: bool) -> bool {
        let inputs = if self.is_running(n) {
            self.node(n).disk.apply(flush)
        } else {
            Vec::new()
        };
        let any = !inputs.is_empty();
        inputs.into_iter().for_each(|input| self.step(n, input));
        any
    }

    /// Delivers the oldest message of a wire; false if there is none.
    pub fn deliver(&mut self, from: u64, to: u64) -> bool {
        if self
            .nodes
            .get(&to)
            .is_some_and(|node| node.paused.is_some())
        {
            return false;
        }
        let Some(message) = self
            .wires
            .get_mut(&(from, to))
            .and_then(VecDeque::pop_front)
        else {
            return false;
        };
        self.step(
            to,
            Input::Message {
                from: NodeId::new(from),
                message,
            },
        );
        true
    }

    /// The stream of a wire breaks: what is on it is lost, and its sender learns of that.
    pub fn break_wire(&mut self, from: u64, to: u64) {
        self.wires.remove(&(from, to));
        self.step(
            from,
            Input::LinkLost {
                to: NodeId::new(to),
            },
        );
    }

    /// Wires that carry something.
    #[must_use]
    pub fn busy_wires(&self) -> Vec<(u64, u64)> {
        self.wires
            .iter()
            .filter(|(_, w)| !w.is_empty())
            .map(|(pair, _)| *pair)
            .collect()
    }

    /// Cuts or heals the wires between two nodes; `both` ways or only from `a` to `b`.
    pub fn partition(&mut self, a: u64, b: u64, on: bool, both: bool) {
        let pairs = if both {
            vec![(a, b), (b, a)]
        } else {
            vec![(a, b)]
        };
        for (from, to) in &pairs {
            if on {
                self.cut.insert((*from, *to));
            } else {
                self.cut.remove(&(*from, *to));
            }
        }
        for (from, to) in pairs {
            self.break_wire(from, to);
        }
    }

    /// Whether messages from `a` to `b` are cut off.
    #[must_use]
    pub fn is_cut(&self, a: u64, b: u64) -> bool {
        self.cut.contains(&(a, b))
    }

    /// Delivers, syncs and applies until nothing is under way; false if it does not come to rest.
    pub fn stabilize(&mut self) -> bool {
        let quiet = std::mem::replace(&mut self.quiet, true);
        let mut rested = false;
        for _ in 0..ROUNDS_TO_REST_MAX {
            let nodes: Vec<u64> = self.nodes.keys().copied().collect();
            let mut any = false;
            for (from, to) in self.busy_wires() {
                any |= self.deliver(from, to);
            }
            for n in nodes {
                any |= self.persist(n);
                any |= self.apply(n, true);
            }
            if !any {
                rested = true;
                break;
            }
        }
        self.quiet = quiet;
        rested
    }

    /// Lets time pass; timers fire when they are due, in order.
    pub fn tick(&mut self, ms: u64) {
        let end = Mono::from_nanos(self.now.as_nanos() + ms * 1_000_000);
        loop {
            let due = self
                .nodes
                .iter()
                .filter(|(_, node)| node.paused.is_none())
                .flat_map(|(n, node)| {
                    let fast = i128::from(1_000_000 + node.clock_ppm);
                    node.timers.iter().map(move |(timer, at)| {
                        // Rounded up: the node's clock must have reached the moment.
                        let nanos = (i128::from(at.as_nanos()) * 1_000_000 + fast - 1) / fast;
                        let at = u64::try_from(nanos).unwrap_or(u64::MAX);
                        (Mono::from_nanos(at), *n, *timer)
                    })
                })
                .min()
                .filter(|(at, ..)| *at <= end);
            let Some((at, n, timer)) = due else { break };
            self.now = self.now.max(at);
            self.node(n).timers.remove(&timer);
            self.step(n, Input::Timer(timer));
        }
        self.now = end;
    }

    /// Time passes in small steps, and everything is delivered in between.
    pub fn run(&mut self, ms: u64) {
        let quiet = std::mem::replace(&mut self.quiet, true);
        for _ in 0..ms.div_ceil(10) {
            self.tick(10);
            self.stabilize();
        }
        self.quiet = quiet;
    }

    /// Whether a sync is over whose completion the replica has not seen.
    #[must_use]
    pub fn is_held(&self, n: u64) -> bool {
        self.nodes.get(&n).is_some_and(|node| node.held.is_some())
    }

    /// Whether a read waits for its second half.
    #[must_use]
    pub fn is_reading(&self, n: u64) -> bool {
        self.nodes
            .get(&n)
            .is_some_and(|node| node.admitted.is_some())
    }

    /// Whether a node's process runs.
    #[must_use]
    pub fn is_up(&self, n: u64) -> bool {
        self.nodes
            .get(&n)
            .is_some_and(|node| node.replica.is_some())
    }
}
