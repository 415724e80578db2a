//! The master's state: a pure machine, commands in, deltas and events out (DESIGN §4.1).
//!
//! [`MasterState::apply`] is the only way to change it. It has no clock and no
//! choice: what a decision rests on is in the command, so that every master
//! that applies the same log holds the same state. Nodes and clients see the
//! [`ClusterConfig`] in it; the rest (who is in sync, what operators want, the
//! ways between versions, the event log) is the masters' own.
//!
//! - `cluster`: the cluster's beginnings, its nodes, settings, switches and notes;
//! - `chains`: what happens to one shard;
//! - [`shape`]: the next shape of a chain, the table in `docs/PROTOCOL.md`;
//! - [`shard`], [`history`], [`event`]: what is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use catena_proto::config::{
    Acceptance, ChainConfig, ClusterConfig, ConfigPosition, Delta, DeltaItem,
};
use catena_proto::ids::{ClusterId, NodeId, ShardId};
use serde::{Deserialize, Serialize};

pub mod chains;
mod cluster;
pub mod command;
pub mod event;
pub mod history;
mod mutant;
pub mod shape;
pub mod shard;

pub use command::{
    Applied, ChainStep, Change, Command, Controller, Evidence, Refused, Removal, WallMs,
};
pub use event::Event;
pub use mutant::Mutant;
pub use shape::{Facts, next_shape};
pub use shard::ShardRecord;

/// Controllers that can be switched off, by name.
pub const CONTROLLERS: &[&str] = &["membership"];

/// Everything that the masters agree on. Starts without a cluster; `CreateCluster` is its first command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterState {
    /// What nodes and clients see; `None` before the first command.
    #[serde(with = "shared")]
    config: Option<Arc<ClusterConfig>>,
    /// What the chains are to be cut like, from the first command.
    plan: Plan,
    /// A record for each chain of the config, under the same key.
    shards: BTreeMap<ShardId, ShardRecord>,
    /// Controllers that are switched off.
    paused: BTreeSet<String>,
    history: history::History,
    events: event::EventLog,
    /// See [`mutant`]; never in a build that serves.
    #[cfg(feature = "mutants")]
    #[serde(skip)]
    planted: Option<Mutant>,
}

/// How the chains are made once enough nodes have registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Plan {
    split_keys: Vec<bytes::Bytes>,
    replicas: usize,
}

impl MasterState {
    /// A state without a cluster.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`MasterState::new`], with a bug planted on purpose in builds with the `mutants` feature; others ignore it.
    #[must_use]
    pub fn with_mutant(mutant: Option<Mutant>) -> Self {
        #[cfg(feature = "mutants")]
        let state = Self {
            planted: mutant,
            ..Self::default()
        };
        #[cfg(not(feature = "mutants"))]
        let state = {
            let _ = mutant;
            Self::default()
        };
        state
    }

    /// Whether a bug was planted; constantly false in ordinary builds.
    pub(crate) fn planted(&self, mutant: Mutant) -> bool {
        #[cfg(feature = "mutants")]
        let planted = self.planted == Some(mutant);
        #[cfg(not(feature = "mutants"))]
        let planted = {
            let _ = mutant;
            false
        };
        planted
    }

    /// Applies one command of the log. The same commands give the same state, on every master.
    ///
    /// A command that was done already is [`Applied::Kept`] or refused because the epoch moved: proposing one twice
    /// does no harm.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let before = self.position();
        let outcome = self.change(command);
        let applied = outcome.unwrap_or_else(Applied::Refused);
        match &applied {
            Applied::Changed(delta) => {
                assert_eq!(delta.base, before, "a delta starts at the state before");
                assert_eq!(delta.to, self.position(), "and ends at the state after");
            }
            Applied::Kept | Applied::Refused(_) => {
                assert_eq!(
                    before,
                    self.position(),
                    "what nodes see changes with a delta only"
                );
            }
        }
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
        applied
    }

    fn change(&mut self, command: &Command) -> Result<Applied, Refused> {
        match &command.change {
            Change::CreateCluster {
                cluster,
                split_keys,
                replicas,
                settings,
            } => self.create_cluster(command, *cluster, split_keys, *replicas, settings),
            _ if self.config.is_none() => Err(Refused::Invalid(
                "there is no cluster yet: start a master with `--bootstrap`".into(),
            )),
            Change::RegisterNode {
                node,
                disk,
                addr,
                http,
                zone,
            } => self.register_node(
                command,
                catena_proto::config::NodeInfo {
                    node: *node,
                    disk: *disk,
                    addr: addr.clone(),
                    http: http.clone(),
                    zone: zone.clone(),
                },
            ),
            Change::BeginServing {
                shard,
                expected_epoch,
            } => self.begin_serving(command, *shard, *expected_epoch),
            Change::ConfirmInSync {
                shard,
                node,
                epoch,
                joined_epoch,
                disk,
            } => self.confirm_in_sync(command, *shard, *node, *epoch, (*disk, *joined_epoch)),
            Change::LoseSync {
                shard,
                node,
                joined_epoch,
                disk,
            } => self.lose_sync(command, *shard, *node, (*disk, *joined_epoch)),
            Change::ReconfigureChain {
                shard,
                expected_epoch,
                step,
            } => self.reconfigure_chain(command, *shard, *expected_epoch, step),
            Change::AddLearner { shard, node } => self.add_learner(command, *shard, *node),
            Change::DropLearner { shard, node } => self.drop_learner(command, *shard, *node),
            Change::WantMember { shard, node } => self.want_member(command, *shard, *node),
            Change::UnwantMember { shard, node } => self.unwant_member(command, *shard, *node),
            Change::SetSettings(settings) => self.set_settings(command, settings),
            Change::SwitchController { name, paused } => {
                self.switch_controller(command, name, *paused)
            }
            Change::Note { subject, what } => Ok(self.note(command, subject, what)),
            Change::SnapshotStored(position) => self.snapshot_stored(*position),
        }
    }

    /// The cluster's name; `None` before the first command.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.config.as_ref().map(|config| config.cluster)
    }

    /// What nodes and clients see; `None` before the first command.
    #[must_use]
    pub const fn config(&self) -> Option<&Arc<ClusterConfig>> {
        self.config.as_ref()
    }

    /// The place of [`MasterState::config`] in the history; zero before the first command.
    #[must_use]
    pub fn position(&self) -> ConfigPosition {
        let config = self.config.as_ref();
        config.map(|config| config.position).unwrap_or_default()
    }

    /// The way from `held` to now in one delta, without items if nothing happened since.
    ///
    /// `None` if no way is known: the history does not reach back, the generation is another one, or `held` lies in
    /// the future. Zero, the position of a node that holds nothing, is in the history while that reaches back to the
    /// first command.
    #[must_use]
    pub fn delta_since(&self, held: ConfigPosition) -> Option<Delta> {
        let config = self.config.as_ref()?;
        if held == config.position {
            return Some(Delta {
                cluster: config.cluster,
                base: held,
                to: held,
                items: Vec::new(),
            });
        }
        self.history.since(held)
    }

    /// What is known of one shard; `None` before its chain was created.
    #[must_use]
    pub fn shard(&self, shard: ShardId) -> Option<&ShardRecord> {
        self.shards.get(&shard)
    }

    /// What is known of every shard, in order.
    pub fn shards(&self) -> impl Iterator<Item = (&ShardId, &ShardRecord)> {
        self.shards.iter()
    }

    /// The newest events, oldest first; at most [`event::EVENTS_MAX`].
    pub fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.lines()
    }

    /// Whether this controller is switched off. See [`CONTROLLERS`] for the names.
    #[must_use]
    pub fn is_paused(&self, controller: &str) -> bool {
        self.paused.contains(controller)
    }

    /// Members wanted in each chain; 0 before the first command.
    #[must_use]
    pub const fn replicas_wanted(&self) -> usize {
        self.plan.replicas
    }

    /// The newest state that is known to be safe in the snapshot store; zero if none is.
    #[must_use]
    pub const fn snapshot_position(&self) -> ConfigPosition {
        self.history.stored()
    }

    /// The cluster config, in a command that needs a cluster; [`MasterState::change`] has looked.
    fn seen(&self) -> &Arc<ClusterConfig> {
        self.config
            .as_ref()
            .expect("`change` refuses everything before there is a cluster")
    }

    fn chain(&self, shard: ShardId) -> Result<&ChainConfig, Refused> {
        let chain = self.seen().chains.get(&shard);
        chain.ok_or(Refused::NoShard(shard))
    }

    /// The one place where what nodes see changes: one version on, by the items that nodes get.
    ///
    /// The items go through the very function that nodes apply them with, so that a delta cannot say anything else
    /// than what happened here.
    fn publish(&mut self, items: Vec<DeltaItem>) -> Delta {
        let config = self
            .config
            .as_mut()
            .expect("`change` refuses everything before there is a cluster");
        let base = config.position;
        let delta = Delta {
            cluster: config.cluster,
            base,
            to: ConfigPosition {
                generation: base.generation,
                version: base.version.next(),
            },
            items,
        };
        let verdicts = Arc::make_mut(config).apply(&delta);
        let taken = verdicts
            .as_ref()
            .is_ok_and(|all| all.iter().all(|one| *one == Ok(Acceptance::Newer)));
        assert!(
            taken,
            "C1: nodes take every item of a delta as a newer one: {verdicts:?}"
        );
        self.history.push(delta.clone());
        delta
    }

    fn log(&mut self, command: &Command, action: &str, subject: &str) {
        let version = self.position().version;
        self.events.write(command, action, subject, version);
    }

    /// What holds after each command; asserted by `apply` in debug builds.
    ///
    /// # Panics
    /// With the rule or bound that is broken: a bug of ours.
    pub fn check_invariants(&self) {
        self.events.check_invariants();
        let Some(config) = &self.config else { return };
        assert_eq!(config.check(), Ok(()), "a config that nodes would refuse");
        assert!(
            config.chains.keys().eq(self.shards.keys()),
            "every chain has a record, and nothing else has"
        );
        for (shard, record) in &self.shards {
            let chain = &config.chains[shard];
            let is_member = |node: &NodeId| {
                let disk = config.nodes.get(node).map(|info| info.disk);
                disk.is_some_and(|disk| chain.member(*node, disk).is_some())
            };
            assert!(
                record.in_sync.iter().all(is_member),
                "C4, M2: only a member with the disk of its entry is in sync: {record:?}, {chain:?}"
            );
            assert!(
                record.wanted.is_disjoint(&record.unwanted),
                "an operator wants a node or not: {record:?}"
            );
        }
        for learner in &config.learners {
            let chain = config.chains.get(&learner.shard);
            assert!(
                chain.is_some_and(|chain| chain.position(learner.node).is_none()),
                "M4: a learner is outside of its chain: {learner:?}"
            );
            let disk = config.nodes.get(&learner.node).map(|info| info.disk);
            assert_eq!(
                disk,
                Some(learner.disk),
                "C4: a learner's disk is the registered one"
            );
        }
    }
}

/// The config as JSON: shared in memory, a plain value in a snapshot.
mod shared {
    use std::sync::Arc;

    use catena_proto::config::ClusterConfig;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        config: &Option<Arc<ClusterConfig>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        config.as_deref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Arc<ClusterConfig>>, D::Error> {
        Ok(Option::<ClusterConfig>::deserialize(from)?.map(Arc::new))
    }
}
