//! The driver: one thread that steps every replica of the node.
//!
//! It takes its whole inbox at once, and what comes out of a round is one
//! append for the log, one batch a fellow, one batch of answers a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use catena_proto::config::{ChainConfig, ClusterConfig};
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::message::Message;
use catena_proto::time::Mono;
use parking_lot::RwLock;
use tokio::sync::watch;

use super::apply_thread::{ApplyQueue, ApplyWork};
use super::clock;
use super::company::Company;
use super::fellows;
use super::link_out::Links;
use super::log_thread::{LogQueue, LogWork};
use super::pages;
use super::shared::{Shard, Shared, Work};
use crate::replica::{Event, Input, Outputs, Recovered, Replica, Reply, Timer};

/// Everything that the driver thread owns.
pub(crate) struct Driver {
    shared: Arc<Shared>,
    links: Links,
    log: Arc<LogQueue>,
    apply: Arc<ApplyQueue>,
    tokio: tokio::runtime::Handle,
    timers: BTreeSet<(Mono, ShardId, Timer)>,
    armed: BTreeMap<(ShardId, Timer), Mono>,
    shards: BTreeMap<ShardId, Arc<Shard>>,
    /// Requests that wait to share a group.
    company: Company,
    round: Round,
    /// A chain changed in this round: so may have the node's fellows.
    chains_moved: bool,
}

/// What one round has to hand out.
#[derive(Default)]
struct Round {
    out: Outputs,
    log: Vec<LogWork>,
    apply: Vec<ApplyWork>,
    messages: BTreeMap<NodeId, Vec<Message>>,
    replies: Vec<Reply>,
}

impl Driver {
    pub(crate) fn new(
        shared: Arc<Shared>,
        links: Links,
        log: Arc<LogQueue>,
        apply: Arc<ApplyQueue>,
        tokio: tokio::runtime::Handle,
    ) -> Self {
        Self {
            shared,
            links,
            log,
            apply,
            tokio,
            timers: BTreeSet::new(),
            armed: BTreeMap::new(),
            shards: BTreeMap::new(),
            company: Company::default(),
            round: Round::default(),
            chains_moved: false,
        }
    }

    /// Starts the replicas that the log holds, then works until it is told to stop.
    pub(crate) fn run(mut self, recovered: BTreeMap<ShardId, Recovered>) {
        for (shard, recovered) in recovered {
            self.start(shard, recovered);
        }
        let config = self.shared.config();
        self.on_config(&config);
        self.hand_out();
        let shared = Arc::clone(&self.shared);
        let mut taken = Vec::new();
        loop {
            let timer = self.timers.first().map(|(at, ..)| *at);
            let next = timer.into_iter().chain(self.company.next_at()).min();
            let patience = next.map(clock::until);
            if !shared.inbox.take(&mut taken, patience) {
                break;
            }
            let mut stop = false;
            for work in taken.drain(..) {
                match work {
                    Work::Requests { shard, requests } => {
                        self.company.add(shard, requests, clock::now());
                    }
                    Work::Messages { from, messages } => {
                        for message in messages {
                            self.step(message.shard, Input::Message { from, message });
                        }
                    }
                    Work::Input { shard, input } => self.step(shard, input),
                    Work::LinkLost { to } => self.step_all(|| Input::LinkLost { to }),
                    Work::Config(config) => self.on_config(&config),
                    Work::ReadOnly(read_only) => {
                        self.shared.read_only.store(read_only, Ordering::Relaxed);
                        self.shared.changed.notify_one();
                        self.step_all(|| Input::ReadOnly(read_only));
                    }
                    Work::Stop => stop = true,
                }
            }
            self.decide();
            self.fire_timers();
            self.hand_out();
            if stop {
                break;
            }
        }
        self.log.close();
        self.apply.close();
    }

    /// Hands the replicas the requests that wait no longer.
    fn decide(&mut self) {
        let now = clock::now();
        let shards = &self.shards;
        let uncommitted = |shard| {
            shards.get(&shard).map_or(0, |held: &Arc<Shard>| {
                let replica = held.replica.read();
                replica.last().get().saturating_sub(replica.commit().get())
            })
        };
        let mut ready = Vec::new();
        while let Some(batch) = self.company.take_ready(now, uncommitted) {
            ready.push(batch);
        }
        for (shard, requests) in ready {
            self.step(shard, Input::Requests(requests));
        }
    }

    fn start(&mut self, shard: ShardId, recovered: Recovered) {
        let id = self.shared.me.identity(shard);
        let settings = self.shared.lease_settings();
        let mut out = std::mem::take(&mut self.round.out);
        let replica = Replica::recover(id, settings, recovered, clock::now(), &mut out);
        let moved = watch::Sender::new(replica.commit());
        let held = Arc::new(Shard {
            id: shard,
            replica: RwLock::new(replica),
            moved,
        });
        self.shared.shards.write().insert(shard, Arc::clone(&held));
        self.shards.insert(shard, held);
        self.collect(shard, &mut out);
        self.round.out = out;
    }

    /// Every chain config goes through the replica's own acceptance (C1), whatever its source.
    fn on_config(&mut self, config: &ClusterConfig) {
        self.links.route(config);
        let me = self.shared.me.node;
        for chain in config.chains.values() {
            let named = chain.position(me).is_some();
            let learns = config
                .learners
                .iter()
                .any(|l| l.shard == chain.shard && l.node == me && l.disk == self.shared.me.disk);
            if !self.shards.contains_key(&chain.shard) {
                if !named && !learns {
                    continue;
                }
                self.start(chain.shard, Recovered::default());
            }
            self.step(chain.shard, Input::Learn(learns));
            self.step(chain.shard, Input::Config(chain.clone()));
        }
        let settings = self.shared.lease_settings();
        self.step_all(|| Input::Settings(settings));
        self.chains_moved = true;
    }

    fn step_all(&mut self, input: impl Fn() -> Input) {
        let shards: Vec<ShardId> = self.shards.keys().copied().collect();
        for shard in shards {
            self.step(shard, input());
        }
    }

    fn step(&mut self, id: ShardId, input: Input) {
        let Some(shard) = self.shards.get(&id).cloned() else {
            // A fellow may know of a shard that this node has not heard of: nothing is lost.
            if let Input::Requests(requests) = input {
                let refusal = crate::replica::Refusal::NotInCharge { shard: id };
                self.round.replies.extend(requests.iter().map(|r| Reply {
                    to: r.reply_to,
                    result: Err(refusal.clone()),
                }));
            }
            return;
        };
        let mut out = std::mem::take(&mut self.round.out);
        let (moved, commit) = {
            let mut replica = shard.replica.write();
            let mark = |r: &Replica| (r.commit(), r.chain().map(|c| c.epoch));
            let (before, last) = (mark(&replica), replica.last());
            replica.step(clock::now(), input, &mut out);
            // A log that is cut may never commit what a read waits for.
            let moved = mark(&replica) != before || replica.last() < last;
            (moved, replica.commit())
        };
        if moved && shard.moved.receiver_count() > 0 {
            shard.moved.send_replace(commit);
        }
        self.collect(id, &mut out);
        self.round.out = out;
    }

    /// Sorts a step's outputs by where they go.
    fn collect(&mut self, id: ShardId, out: &mut Outputs) {
        let round = &mut self.round;
        round
            .log
            .extend(out.persist.drain(..).map(|p| LogWork::Persist(id, p)));
        round
            .log
            .extend(out.log_reads.drain(..).map(|r| LogWork::Read(id, r)));
        if !out.apply.is_empty() {
            let range = self
                .shards
                .get(&id)
                .and_then(|s| s.replica.read().chain().map(|c| c.range.clone()));
            round
                .apply
                .extend(out.apply.drain(..).map(|apply| ApplyWork {
                    shard: id,
                    range: range.clone(),
                    apply,
                }));
        }
        for send in out.send.drain(..) {
            round
                .messages
                .entry(send.to)
                .or_default()
                .push(send.message);
        }
        round.replies.append(&mut out.replies);
        for read in out.page_reads.drain(..) {
            let chain = self
                .shards
                .get(&id)
                .and_then(|s| s.replica.read().chain().cloned());
            if let Some(ChainConfig { range, .. }) = chain {
                let shared = Arc::clone(&self.shared);
                self.tokio
                    .spawn_blocking(move || pages::serve(&shared, id, &range, &read));
            }
        }
        for (timer, at) in out.timers.drain(..) {
            if let Some(old) = self.armed.insert((id, timer), at) {
                self.timers.remove(&(old, id, timer));
            }
            self.timers.insert((at, id, timer));
        }
        if !out.events.is_empty() {
            self.shared.changed.notify_one();
        }
        for event in out.events.drain(..) {
            if let Event::EpochEntered { epoch } = event {
                self.chains_moved = true;
                let config = self.shared.config();
                if config.chains.get(&id).is_none_or(|c| c.epoch < epoch) {
                    // C3: a fellow's refusal brought it, and no master so far.
                    *self.shared.config_source.lock() = "peer";
                }
            }
            tell(id, &event);
        }
    }

    fn fire_timers(&mut self) {
        let now = clock::now();
        while let Some((at, shard, timer)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, shard, timer));
            self.armed.remove(&(shard, timer));
            self.step(shard, Input::Timer(timer));
        }
    }

    /// Who shares a chain with this node, by the config and by what is in force: either may be newer.
    fn renew_fellows(&self) {
        let config = self.shared.config();
        let me = self.shared.me;
        let mut found = BTreeSet::new();
        let mut add = |chain: &ChainConfig| {
            fellows::of_chain(&mut found, chain, &config.learners, me.node, me.disk);
        };
        config.chains.values().for_each(&mut add);
        for shard in self.shards.values() {
            if let Some(chain) = shard.replica.read().chain() {
                add(chain);
            }
        }
        self.shared.fellows.renew(found);
        self.shared.changed.notify_one();
    }

    fn hand_out(&mut self) {
        if std::mem::take(&mut self.chains_moved) {
            self.renew_fellows();
        }
        let round = &mut self.round;
        for (to, messages) in std::mem::take(&mut round.messages) {
            self.links.send(to, messages);
        }
        if !round.log.is_empty() {
            self.log.push(std::mem::take(&mut round.log));
        }
        self.shared.deliver(&mut round.replies);
        if !round.apply.is_empty() {
            self.apply.push(std::mem::take(&mut round.apply));
        }
    }
}

/// One line per event that an operator would want.
fn tell(shard: ShardId, event: &Event) {
    let shard = shard.get();
    match event {
        Event::EpochEntered { epoch } => tracing::info!(shard, %epoch, "epoch entered"),
        Event::ConfigRefused(why) => tracing::warn!(shard, %why, "config refused"),
        Event::InSync {
            epoch,
            joined_epoch,
        } => {
            tracing::info!(shard, %epoch, %joined_epoch, "in sync");
        }
        Event::DebtsPaid { epoch } => {
            tracing::info!(shard, %epoch, "leases of older epochs are over")
        }
        Event::LogCut { from, to } => {
            tracing::info!(shard, %from, %to, "log cut to what the predecessor has")
        }
        Event::LinkUp { to, learner } => tracing::info!(shard, %to, learner, "link up"),
        Event::Scan { done } => {
            tracing::info!(shard, done, "copying the state from the predecessor")
        }
        Event::PeerRefused { from, why } => tracing::warn!(shard, %from, why, "message refused"),
        Event::Fenced { evidence } => {
            tracing::error!(
                shard,
                evidence,
                "ALARM: the replica stops and keeps everything"
            );
        }
        Event::Unfenced { evidence } => {
            tracing::warn!(
                shard,
                evidence,
                "an operator chose this replica's data: the alarm is over"
            );
        }
        Event::Damaged { what } => {
            tracing::error!(
                shard,
                what,
                "damaged: the replica is unsynced until a fellow has repaired it"
            );
        }
    }
}
