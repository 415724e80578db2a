//! A small world for the loop: nodes that report and take configs, links that break, a leader that changes.
//! Steps of 100 ms; no randomness of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use catena_master::control::{Action, Discrepancy, Observed, Since, act, compare};
use catena_master::state::{Applied, Change, Command, Controller, MasterState, WallMs};
use catena_proto::config::{ChainConfig, ChainPhase, ConfigPosition, Learner, Settings};
use catena_proto::ids::{ClusterId, DiskId, Epoch, Incarnation, NodeId, Seq, ShardId};
use catena_proto::report::{
    ItemRefused, LinkReport, NodeOpen, PushOutcome, ReplicaReport, Report, Standing,
};
use catena_proto::time::Mono;

use crate::rules::Rules;

/// One step of time, in milliseconds.
pub(crate) const STEP_MS: u64 = 100;
const LINK_SILENCE_MS: u64 = 400;
/// The wall clock at the world's beginning.
const WALL_START_MS: u64 = 1_000_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    Good,
    /// Takes no newer config and says nothing.
    Ignores,
    /// Takes none and says why.
    Refuses(String),
    /// Says that it took it; nothing comes into force.
    AcksOnly,
}

#[derive(Clone, Debug)]
struct Node {
    id: NodeId,
    zone: String,
    disk: DiskId,
    incarnation: u64,
    up: bool,
    stopped: bool,
    started: u64,
    /// When it subscribes; `None` while it is subscribed or cannot be.
    opens_at: Option<u64>,
    connected: bool,
    master_cut: bool,
    manners: Manners,
    lag: u64,
    acked: ConfigPosition,
    effective: ConfigPosition,
    chains: BTreeMap<ShardId, ChainConfig>,
    learners: Vec<Learner>,
    /// Stints that it is synced for, and since when it would be.
    synced: BTreeSet<(ShardId, Epoch)>,
    stint_began: BTreeMap<(ShardId, Epoch), u64>,
    heard: BTreeMap<NodeId, u64>,
    reports: u64,
    said: Option<(u64, Vec<String>)>,
}

pub(crate) struct World {
    pub(crate) state: MasterState,
    pub(crate) now: u64,
    wall_shift: i64,
    observed: Observed,
    since: Since,
    nodes: BTreeMap<NodeId, Node>,
    cuts: BTreeSet<(NodeId, NodeId)>,
    rules: Rules,
    rate: u64,
    printed: u64,
    push_again: BTreeSet<NodeId>,
    sent: BTreeMap<NodeId, ConfigPosition>,
    pub(crate) transcript: String,
}

impl World {
    pub(crate) fn new(nodes: &[u64], replicas: usize, shards: usize) -> Self {
        let mut state = MasterState::new();
        let create = Command {
            at: WallMs(WALL_START_MS),
            by: Controller::System,
            cause: "a scenario".into(),
            change: Change::CreateCluster {
                cluster: ClusterId::new(7),
                split_keys: catena_master::bootstrap::even_split_keys(shards).expect("few shards"),
                replicas,
                settings: Settings::default(),
            },
        };
        assert!(matches!(state.apply(&create), Applied::Changed(_)));
        let mut world = Self {
            state,
            now: 0,
            wall_shift: 0,
            observed: Observed::new(Mono::from_millis(0)),
            since: Since::default(),
            nodes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            rules: Rules::default(),
            rate: 0,
            printed: 0,
            push_again: BTreeSet::new(),
            sent: BTreeMap::new(),
            transcript: String::new(),
        };
        for node in nodes {
            world.add(*node, "");
        }
        world.run(1_500);
        let chains = &world.state.config().expect("created").chains;
        assert!(
            chains.len() == shards && chains.values().all(|c| c.phase == ChainPhase::Serving),
            "a new cluster serves within 1.5 s: {chains:?}"
        );
        world.printed = world.state.events().last().map_or(0, |e| e.no);
        world.transcript.clear();
        world
    }

    pub(crate) fn add(&mut self, id: u64, zone: &str) {
        let id = NodeId::new(id);
        let node = Node {
            id,
            zone: zone.to_owned(),
            disk: DiskId::new(u128::from(id.get()) * 1_000),
            incarnation: 1,
            up: true,
            stopped: false,
            started: self.now,
            opens_at: Some(self.now),
            connected: false,
            master_cut: false,
            manners: Manners::Good,
            lag: 0,
            acked: ConfigPosition::default(),
            effective: ConfigPosition::default(),
            chains: BTreeMap::new(),
            learners: Vec::new(),
            synced: BTreeSet::new(),
            stint_began: BTreeMap::new(),
            heard: BTreeMap::new(),
            reports: 0,
            said: None,
        };
        self.nodes.insert(id, node);
    }

    fn node(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node of the scenario")
    }

    pub(crate) fn kill(&mut self, id: NodeId) {
        self.node(id).up = false;
        self.node(id).stopped = false;
        self.hang_up(id);
    }

    pub(crate) fn start(&mut self, id: NodeId, new_disk: bool) {
        let now = self.now;
        let node = self.node(id);
        if node.up {
            return;
        }
        (node.up, node.started, node.opens_at) = (true, now, Some(now + 300));
        node.incarnation += 1;
        node.reports = 0;
        node.said = None;
        node.heard.clear();
        if new_disk {
            node.disk = DiskId::new(node.disk.get() + 1);
            node.chains.clear();
            node.learners.clear();
            node.synced.clear();
            node.stint_began.clear();
            (node.acked, node.effective) = Default::default();
        }
    }

    /// The node starts again, and finds that its logs are damaged: it is synced for none of its present stints (S1).
    pub(crate) fn damage(&mut self, id: NodeId) {
        self.kill(id);
        self.start(id, false);
        let node = self.node(id);
        node.synced.clear();
        node.stint_began.clear();
    }

    pub(crate) fn stop(&mut self, id: NodeId, stopped: bool) {
        self.node(id).stopped = stopped;
    }

    pub(crate) fn cut_master(&mut self, id: NodeId, cut: bool) {
        let now = self.now;
        self.node(id).master_cut = cut;
        if cut {
            self.hang_up(id);
        } else if self.nodes[&id].up && !self.nodes[&id].connected {
            self.node(id).opens_at = Some(now + 200);
        }
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        if cut {
            self.cuts.insert((from, to));
        } else {
            self.cuts.remove(&(from, to));
        }
    }

    pub(crate) fn manners(&mut self, id: NodeId, manners: Manners) {
        self.node(id).manners = manners;
    }

    pub(crate) fn lag(&mut self, id: NodeId, lag: u64) {
        self.node(id).lag = lag;
    }

    pub(crate) fn write_rate(&mut self, per_second: u64) {
        self.rate = per_second;
    }

    pub(crate) fn shift_wall(&mut self, ms: i64) {
        self.wall_shift += ms;
    }

    /// Another master leads: it has seen nothing, and nodes find it after 200 ms.
    pub(crate) fn new_leader(&mut self) {
        self.observed = Observed::new(self.mono());
        self.since = Since::default();
        self.sent.clear();
        let now = self.now;
        for node in self.nodes.values_mut() {
            node.connected = false;
            node.said = None;
            node.opens_at = (node.up && !node.master_cut).then_some(now + 200);
        }
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// A change of a setting: something that every node has to take.
    pub(crate) fn touch(&mut self) {
        let mut settings = self.state.config().expect("created").settings.clone();
        settings.log_retained_bytes += 1;
        self.propose(Change::SetSettings(settings));
    }

    pub(crate) fn propose(&mut self, change: Change) {
        let command = Command {
            at: self.wall(),
            by: Controller::Operator,
            cause: "asked for".into(),
            change,
        };
        if let Applied::Refused(why) = self.state.apply(&command) {
            let _ = writeln!(self.transcript, "  refused: {why}");
        }
        self.print_events();
    }

    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis / STEP_MS {
            self.step();
        }
    }

    fn hang_up(&mut self, id: NodeId) {
        let now = self.mono();
        let node = self.node(id);
        node.opens_at = None;
        if node.connected {
            node.connected = false;
            self.observed.on_closed(now, id);
        }
    }

    fn mono(&self) -> Mono {
        Mono::from_millis(self.now)
    }

    fn wall(&self) -> WallMs {
        let at = i64::try_from(WALL_START_MS + self.now).expect("a short scenario");
        WallMs(u64::try_from(at + self.wall_shift).expect("after 1970"))
    }

    fn step(&mut self) {
        self.now += STEP_MS;
        self.hear();
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in &ids {
            self.open(*id);
        }
        self.control();
        for id in &ids {
            self.push(*id);
        }
        for id in &ids {
            self.report(*id);
        }
        self.control();
    }

    fn hear(&mut self) {
        let talks: BTreeSet<NodeId> = self
            .nodes
            .values()
            .filter(|n| n.up && !n.stopped)
            .map(|n| n.id)
            .collect();
        let (now, cuts) = (self.now, self.cuts.clone());
        for node in self.nodes.values_mut().filter(|n| n.up && !n.stopped) {
            for from in &talks {
                if *from != node.id && !cuts.contains(&(*from, node.id)) {
                    node.heard.insert(*from, now);
                }
            }
        }
    }

    fn open(&mut self, id: NodeId) {
        let (mono, now, at) = (self.mono(), self.now, self.wall());
        let node = self.node(id);
        let due = node.opens_at.is_some_and(|at| at <= now);
        if !due || !node.up || node.stopped || node.master_cut {
            return;
        }
        (node.opens_at, node.connected, node.said) = (None, true, None);
        let open = NodeOpen {
            cluster: ClusterId::new(7),
            node: id,
            disk: node.disk,
            incarnation: Incarnation::new(id.get() * 100 + node.incarnation),
            addr: format!("10.0.0.{id}:1"),
            http: String::new(),
            zone: node.zone.clone(),
            position: node.acked,
            version: "test".into(),
        };
        self.observed.on_open(mono, &open);
        self.sent.insert(id, open.position);
        let held = self.state.config().and_then(|c| c.nodes.get(&id).cloned());
        if held.is_none_or(|held| held.disk != open.disk) {
            let register = Command {
                at,
                by: Controller::System,
                cause: "it subscribed".into(),
                change: Change::RegisterNode {
                    node: id,
                    disk: open.disk,
                    addr: open.addr,
                    http: open.http,
                    zone: open.zone,
                },
            };
            let applied = self.state.apply(&register);
            assert!(!matches!(applied, Applied::Refused(_)), "{applied:?}");
        }
    }

    fn push(&mut self, id: NodeId) {
        let (mono, now, to) = (self.mono(), self.now, self.state.position());
        let again = self.push_again.remove(&id);
        let node = self.nodes.get_mut(&id).expect("a node");
        let sent = self.sent.entry(id).or_default();
        if !node.connected || (*sent >= to && !again) {
            return;
        }
        *sent = to;
        self.observed.on_pushed(mono, id, to);
        if node.stopped {
            return;
        }
        let mut refused = Vec::new();
        let config = self.state.config().expect("created");
        match &node.manners {
            Manners::Ignores => return,
            Manners::Refuses(reason) => refused.push(ItemRefused {
                index: 0,
                reason: reason.clone(),
            }),
            Manners::AcksOnly => node.acked = to,
            Manners::Good => {
                (node.acked, node.effective) = (to, to);
                node.chains.clone_from(&config.chains);
                node.learners.clone_from(&config.learners);
            }
        }
        for chain in node.chains.values() {
            if let Some(member) = chain.member(id, node.disk) {
                let stint = (chain.shard, member.joined_epoch);
                node.stint_began.entry(stint).or_insert(now);
            }
        }
        let outcome = PushOutcome { to, refused };
        self.observed.on_outcome(mono, id, outcome);
    }

    fn report(&mut self, id: NodeId) {
        let (mono, now) = (self.mono(), self.now);
        let commit = Seq::new(self.rate * now / 1_000);
        let node = self.node(id);
        if !node.up || node.stopped || !node.connected {
            return;
        }
        node.come_in_sync(now);
        let replicas = node.replicas(commit);
        let links = node.links(now);
        let mut gist: Vec<String> = replicas
            .iter()
            .map(|r| format!("{} {} {:?} {}", r.shard, r.epoch, r.standing, r.in_sync))
            .collect();
        gist.extend(links.iter().map(|l| format!("{} {}", l.fellow, l.alive)));
        gist.push(format!("{:?} {:?}", node.acked, node.effective));
        let due = node
            .said
            .as_ref()
            .is_none_or(|(at, said)| now >= at + 1_000 || *said != gist);
        if !due {
            return;
        }
        node.said = Some((now, gist));
        node.reports += 1;
        let report = Report {
            no: node.reports,
            acked: node.acked,
            effective: node.effective,
            config_source: "push".into(),
            replicas,
            links,
            read_only: false,
            uptime: Duration::from_millis(now - node.started),
            alarms: Vec::new(),
        };
        self.observed.on_report(mono, id, report);
    }

    /// The loop, until it has nothing to propose; what it proposes is applied at once.
    fn control(&mut self) {
        for _ in 0..20 {
            let (mono, wall) = (self.mono(), self.wall());
            let found = compare(&self.state, &self.observed, mono);
            self.since.note(&found, mono);
            let actions = act(&self.state, &self.observed, &found, &self.since, mono, wall);
            self.rules
                .check(&self.state, &self.observed, mono, wall, &actions);
            let mut proposed = false;
            for action in actions {
                match action {
                    Action::PushAgain(node) => {
                        if self.push_again.insert(node) {
                            self.say(&format!("push again to node {node}"));
                        }
                    }
                    Action::Propose(command) => {
                        proposed = true;
                        self.apply(&command, &found);
                    }
                }
            }
            if !proposed {
                return;
            }
        }
        panic!("the loop goes on proposing:\n{}", self.transcript);
    }

    fn apply(&mut self, command: &Command, found: &[Discrepancy]) {
        let applied = self.state.apply(command);
        assert!(
            !matches!(applied, Applied::Refused(_)),
            "the loop proposes what its own state refuses: {applied:?}\n{command:?}\n{found:?}\n{}",
            self.transcript
        );
        self.print_events();
    }

    fn print_events(&mut self) {
        let news: Vec<_> = self
            .state
            .events()
            .filter(|e| e.no > self.printed)
            .cloned()
            .collect();
        for event in news {
            self.printed = event.no;
            let (action, subject, cause) = (event.action, event.subject, event.cause);
            self.say(&format!("{action} {subject}: {cause}"));
        }
    }

    fn say(&mut self, what: &str) {
        let (s, ms) = (self.now / 1_000, self.now % 1_000 / 100);
        let _ = writeln!(self.transcript, "  {s:>3}.{ms}s {what}");
    }

    pub(crate) fn status(&self) -> String {
        let mut out = String::new();
        let config = self.state.config().expect("created");
        for chain in config.chains.values() {
            let record = self.state.shard(chain.shard).expect("a record");
            let list = |nodes: Vec<NodeId>| {
                let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                if nodes.is_empty() {
                    "-".to_owned()
                } else {
                    nodes.join(",")
                }
            };
            let learners = config.learners.iter().filter(|l| l.shard == chain.shard);
            let _ = writeln!(
                out,
                "  shard {} epoch {}: members {}, in sync {}, learners {}",
                chain.shard,
                chain.epoch,
                list(chain.members.iter().map(|m| m.node).collect()),
                list(record.in_sync().iter().copied().collect()),
                list(learners.map(|l| l.node).collect()),
            );
        }
        out
    }
}

impl Node {
    fn replicas(&self, commit: Seq) -> Vec<ReplicaReport> {
        let mine = self.chains.values().filter_map(|chain| {
            let member = chain.member(self.id, self.disk);
            let follows = |l: &Learner| l.shard == chain.shard && l.node == self.id;
            let standing = match chain.role(self.id).filter(|_| member.is_some()) {
                Some(role) => Standing::Member(role),
                None if self.learners.iter().any(follows) => Standing::Learner,
                None => return None,
            };
            let joined_epoch = member.map_or(Epoch::ZERO, |m| m.joined_epoch);
            let synced = self.synced.contains(&(chain.shard, joined_epoch));
            let end = Seq::new(commit.get().saturating_sub(self.lag));
            Some(ReplicaReport {
                shard: chain.shard,
                epoch: chain.epoch,
                joined_epoch,
                standing,
                synced,
                in_sync: synced,
                last: end,
                durable: end,
                commit: end,
                applied: end,
                fenced: false,
                serving_reads: synced,
                why: String::new(),
            })
        });
        mine.collect()
    }

    /// S2, roughly: 0.3 s after a stint began, if the predecessor talks.
    fn come_in_sync(&mut self, now: u64) {
        for chain in self.chains.values() {
            let Some(member) = chain.member(self.id, self.disk) else {
                continue;
            };
            let stint = (chain.shard, member.joined_epoch);
            let ripe = self
                .stint_began
                .get(&stint)
                .is_some_and(|at| now >= at + 300);
            let before = chain.predecessor(self.id).map(|m| m.node);
            if ripe && before.is_none_or(|n| self.heard.get(&n) == Some(&now)) {
                self.synced.insert(stint);
            }
        }
    }

    fn links(&self, now: u64) -> Vec<LinkReport> {
        let mut fellows = BTreeSet::new();
        for chain in self.chains.values() {
            let learners = self.learners.iter().filter(|l| l.shard == chain.shard);
            let all: BTreeSet<NodeId> = chain
                .members
                .iter()
                .map(|m| m.node)
                .chain(learners.map(|l| l.node))
                .collect();
            if all.contains(&self.id) {
                fellows.extend(all);
            }
        }
        fellows.remove(&self.id);
        let link = |fellow: NodeId| {
            let silent = self.heard.get(&fellow).map(|at| now - at);
            LinkReport {
                fellow,
                alive: silent.is_some_and(|ms| ms <= LINK_SILENCE_MS),
                silent: silent.map(Duration::from_millis),
            }
        };
        fellows.into_iter().map(link).collect()
    }
}
