//! The node's end of the control plane: what it holds, what it accepts, what it reports (DESIGN §4.2).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catena_chainnode::replica::Input;
use catena_chainnode::stage::World;
use catena_proto::config::{ClusterConfig, ConfigError, ConfigPosition, Delta};
use catena_proto::ids::{DiskId, Incarnation, NodeId};
use catena_proto::report::{ItemRefused, LinkReport, NodeOpen, PushOutcome, ReplicaReport, Report};
use catena_proto::time::Mono;

use super::{CLUSTER, SHARD};

/// How a node behaves towards configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    /// Accepts and persists, and puts nothing in force.
    Deaf,
    /// Refuses every push.
    Nack,
}

/// A stream that stands, seen from the node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscribed {
    pub(super) stream: u64,
    pub(super) master: usize,
    pub(super) heard: Mono,
}

/// What became of a push, seen from the node.
#[derive(Debug)]
pub(super) enum Pushed {
    Outcome(PushOutcome),
    /// The base is another one: the stream is opened anew.
    Missed,
}

/// The node's side of the control plane.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) disk: DiskId,
    pub(super) incarnation: Incarnation,
    pub(super) running: bool,
    pub(super) started: Mono,
    /// Persisted with the disk.
    pub(super) config: ClusterConfig,
    source: &'static str,
    pub(super) mode: Mode,
    pub(super) subscribed: Option<Subscribed>,
    pub(super) cursor: usize,
    pub(super) retry_at: Mono,
    pub(super) store_at: Mono,
    no: u64,
    pub(super) reported: Mono,
    said: Option<Report>,
    pub(super) effective: ConfigPosition,
    /// When each fellow was heard last.
    heard: BTreeMap<u64, Mono>,
    broken: BTreeSet<u64>,
    /// When it last knew that it runs, and since when it does again after a stop.
    pub(super) looked: Mono,
    awake: Mono,
    asleep: Mono,
    /// When this node last found its link to a fellow broken: the truth behind a witness.
    pub(super) found_broken: BTreeMap<u64, Mono>,
}

impl Agent {
    pub(super) fn new(disk: DiskId) -> Self {
        Self {
            disk,
            incarnation: Incarnation::new(0),
            running: false,
            started: Mono::ZERO,
            config: ClusterConfig::empty(CLUSTER),
            source: "disk",
            mode: Mode::Normal,
            subscribed: None,
            cursor: 0,
            retry_at: Mono::ZERO,
            store_at: Mono::ZERO,
            no: 0,
            reported: Mono::ZERO,
            said: None,
            effective: ConfigPosition::default(),
            heard: BTreeMap::new(),
            broken: BTreeSet::new(),
            looked: Mono::ZERO,
            awake: Mono::ZERO,
            asleep: Mono::ZERO,
            found_broken: BTreeMap::new(),
        }
    }

    /// The process starts on what its disk holds.
    pub(super) fn start(&mut self, n: u64, world: &mut World, disk: DiskId, inc: Incarnation) {
        let (config, mode) = (self.config.clone(), self.mode);
        // Not the process's: it is what really was, also before this start.
        let found_broken = std::mem::take(&mut self.found_broken);
        let same = self.disk == disk;
        *self = Self::new(disk);
        (self.mode, self.found_broken) = (mode, found_broken);
        if same {
            self.config = config;
        }
        self.incarnation = inc;
        self.running = true;
        self.started = world.now;
        self.looked = world.now;
        self.put_in_force(n, world);
    }

    /// The replica gets what the config says, and judges it by itself (C1).
    pub(super) fn put_in_force(&self, n: u64, world: &mut World) {
        if self.mode == Mode::Deaf {
            return;
        }
        let Some(chain) = self.config.chains.get(&SHARD).cloned() else {
            return;
        };
        let me = NodeId::new(n);
        let learns = self
            .config
            .learners
            .iter()
            .any(|l| l.shard == SHARD && l.node == me && l.disk == self.disk);
        world.step(n, Input::Learn(learns));
        world.step(n, Input::Config(chain));
    }

    /// A whole config from the store: newer ones only (C1).
    pub(super) fn accept(&mut self, n: u64, world: &mut World, offered: &ClusterConfig) -> bool {
        let older = offered.position <= self.config.position;
        if self.mode != Mode::Normal || older || offered.cluster != CLUSTER {
            return false;
        }
        let delta = self.config.delta_to(offered);
        let mut next = self.config.clone();
        if next.apply(&delta).is_err() || next.check().is_err() {
            return false;
        }
        self.adopt(n, world, next, "snapshot");
        true
    }

    /// As an agent that forgot C1 would: whatever the store holds.
    pub(super) fn accept_anything(&mut self, n: u64, world: &mut World, offered: &ClusterConfig) {
        self.adopt(n, world, offered.clone(), "snapshot");
    }

    pub(super) fn accept_delta(&mut self, n: u64, world: &mut World, delta: &Delta) -> Pushed {
        let refused = |why: &str| {
            let of = |index| ItemRefused {
                index,
                reason: why.to_owned(),
            };
            Pushed::Outcome(PushOutcome {
                to: delta.to,
                refused: (0..delta.items.len()).map(of).collect(),
            })
        };
        let taken = |refused| {
            Pushed::Outcome(PushOutcome {
                to: delta.to,
                refused,
            })
        };
        if self.mode == Mode::Nack {
            return refused("it wants no config");
        }
        let held = self.config.position;
        if delta.to < held {
            return refused("it is older than what is held");
        }
        if delta.to == held && delta.base != held {
            return taken(Vec::new());
        }
        let mut next = self.config.clone();
        let verdicts = match next.apply(delta) {
            Err(ConfigError::WrongBase { .. }) => return Pushed::Missed,
            Err(why) => return refused(&why.to_string()),
            Ok(verdicts) => verdicts,
        };
        let bad = verdicts.into_iter().enumerate().filter_map(|(index, v)| {
            let reason = v.err()?.to_string();
            Some(ItemRefused { index, reason })
        });
        let bad: Vec<ItemRefused> = bad.collect();
        if next == self.config {
            self.put_in_force(n, world);
        } else {
            self.adopt(n, world, next, "push");
        }
        taken(bad)
    }

    fn adopt(&mut self, n: u64, world: &mut World, next: ClusterConfig, source: &'static str) {
        self.config = next;
        self.source = source;
        self.put_in_force(n, world);
    }

    pub(super) fn open(&self, n: u64) -> NodeOpen {
        NodeOpen {
            cluster: CLUSTER,
            node: NodeId::new(n),
            disk: self.disk,
            incarnation: self.incarnation,
            addr: format!("node-{n}:1"),
            http: format!("node-{n}:2"),
            zone: String::new(),
            position: self.config.position,
            version: "sim".to_owned(),
        }
    }

    /// The process runs at this moment; `heard` are the nodes whose frames reach it now.
    pub(super) fn beat(&mut self, now: Mono, heard: &[u64]) {
        if now.since(self.looked) >= Duration::from_millis(200) {
            (self.asleep, self.awake) = (self.looked, now);
        }
        self.looked = now;
        for fellow in heard {
            self.heard.insert(*fellow, now);
            self.broken.remove(fellow);
        }
    }

    /// A stream from or to this fellow broke.
    pub(super) fn lose(&mut self, fellow: u64) {
        if self.heard.contains_key(&fellow) {
            self.broken.insert(fellow);
        }
    }

    fn fellows(&self, n: u64) -> BTreeSet<u64> {
        let me = NodeId::new(n);
        let Some(chain) = self.config.chains.get(&SHARD) else {
            return BTreeSet::new();
        };
        let learners = || self.config.learners.iter().filter(|l| l.shard == SHARD);
        let member = chain.member(me, self.disk).is_some();
        let learns = learners().any(|l| l.node == me && l.disk == self.disk);
        let mut fellows = BTreeSet::new();
        if member || learns {
            fellows.extend(chain.members.iter().map(|m| m.node.get()));
        }
        if member {
            fellows.extend(learners().map(|l| l.node.get()));
        }
        fellows.remove(&n);
        fellows
    }

    fn links(&mut self, n: u64, now: Mono) -> Vec<LinkReport> {
        let silence = Duration::from_millis(self.config.settings.link_silence_ms);
        let just_awake = now.since(self.awake) <= Duration::from_millis(100);
        let mut links = Vec::new();
        for fellow in self.fellows(n) {
            let heard = self.heard.get(&fellow).copied();
            let recent = heard.is_some_and(|at| {
                now.since(at) <= silence || (just_awake && self.asleep.since(at) <= silence)
            });
            let alive = recent && !self.broken.contains(&fellow);
            if !alive {
                self.found_broken.insert(fellow, now);
            }
            links.push(LinkReport {
                fellow: NodeId::new(fellow),
                alive,
                silent: heard.map(|at| now.since(at)),
            });
        }
        links
    }

    fn replica(n: u64, world: &World) -> Option<ReplicaReport> {
        let replica = world.nodes.get(&n)?.replica.as_ref()?;
        let mut report = replica.report(world.clock(n))?;
        // Words are no news.
        report.why.clear();
        Some(report)
    }

    /// The newest config whose chain is in force on the replica, as the runtime reckons it.
    fn reckon_effective(&mut self, n: u64, world: &World) {
        let in_force = self.config.chains.values().all(|chain| {
            let replica = world.nodes.get(&n).and_then(|node| node.replica.as_ref());
            let epoch = replica.and_then(|r| r.chain()).map(|c| c.epoch);
            let named = chain.position(NodeId::new(n)).is_some();
            epoch.map_or(!named, |epoch| epoch >= chain.epoch)
        });
        if in_force && self.config.position > self.effective {
            self.effective = self.config.position;
        }
    }

    /// A report, if there is news or one is due.
    pub(super) fn report(&mut self, n: u64, world: &World) -> Option<Report> {
        let now = world.now;
        self.reckon_effective(n, world);
        let replicas: Vec<ReplicaReport> = Self::replica(n, world).into_iter().collect();
        let mut report = Report {
            no: self.no,
            acked: self.config.position,
            effective: self.effective,
            config_source: self.source.to_owned(),
            replicas,
            links: self.links(n, now),
            read_only: false,
            uptime: now.since(self.started),
            alarms: Vec::new(),
        };
        let due = now.since(self.reported) >= Duration::from_secs(1);
        if !due && self.said.as_ref() == Some(&essence(&report)) {
            return None;
        }
        self.said = Some(essence(&report));
        self.reported = now;
        self.no += 1;
        report.no = self.no;
        Some(report)
    }

    /// The next report is news in any case.
    pub(super) fn forget_said(&mut self) {
        self.said = None;
    }
}

/// A report without what changes all the time.
fn essence(report: &Report) -> Report {
    let mut essence = report.clone();
    essence.no = 0;
    essence.uptime = Duration::ZERO;
    for link in &mut essence.links {
        link.silent = None;
    }
    for replica in &mut essence.replicas {
        replica.last = catena_proto::ids::Seq::ZERO;
        replica.durable = replica.last;
        replica.commit = replica.last;
        replica.applied = replica.last;
        replica.serving_reads = false;
    }
    essence
}
