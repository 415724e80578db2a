//! Applies commands and holds each outcome to what must be true of every one, whatever the command.

use std::collections::BTreeSet;

use catena_master::state::{Applied, ChainStep, Change, Command, Controller, MasterState, WallMs};
use catena_proto::config::{Acceptance, ChainConfig, ChainPhase, ClusterConfig, Member};
use catena_proto::ids::{NodeId, ShardId};

/// A state that is watched. Panics when a promise is broken.
#[derive(Default)]
pub(crate) struct Witness {
    pub(crate) state: MasterState,
    /// Every command so far.
    pub(crate) log: Vec<Command>,
    /// What a node saw at each version, brought along by deltas alone.
    pub(crate) seen: Vec<ClusterConfig>,
}

impl Witness {
    pub(crate) fn run(&mut self, by: Controller, cause: &str, change: Change) -> Applied {
        let at = WallMs(1_000 * (self.log.len() as u64 + 1));
        self.apply(Command {
            at,
            by,
            cause: cause.to_owned(),
            change,
        })
    }

    pub(crate) fn apply(&mut self, command: Command) -> Applied {
        let before = self.state.clone();
        let applied = self.state.apply(&command);
        self.state.check_invariants();
        match &applied {
            Applied::Changed(delta) => self.follow(delta),
            Applied::Kept => assert_eq!(before.config(), self.state.config()),
            Applied::Refused(_) => assert_eq!(before, self.state, "a refusal leaves no trace"),
        }
        events_are_dense_and_told(&before, &self.state, &command);
        for (shard, record) in self.state.shards() {
            let after = chain(&self.state, *shard).expect("a record has a chain");
            if let Some(held) = chain(&before, *shard) {
                let was = before.shard(*shard).expect("it was there").in_sync();
                chain_moves_by_the_rules(held, after, was, record.in_sync(), &command);
            }
        }
        let mut twice = self.state.clone();
        let again = twice.apply(&command);
        assert!(
            !matches!(again, Applied::Changed(_)) && twice == self.state,
            "{command:?} proposed twice does something: {again:?}"
        );
        self.log.push(command);
        applied
    }

    /// A node at the version before takes the delta, item by item, and sees what the master sees.
    fn follow(&mut self, delta: &catena_proto::config::Delta) {
        let config = self.state.config().expect("it changed");
        let empty = ClusterConfig::empty(config.cluster);
        let mut node = self.seen.last().unwrap_or(&empty).clone();
        if self.seen.is_empty() {
            self.seen.push(empty);
        }
        let verdicts = node.apply(delta).expect("a delta fits its base");
        assert!(
            verdicts.iter().all(|v| *v == Ok(Acceptance::Newer)),
            "{verdicts:?}"
        );
        assert_eq!(node, **config, "the delta leads to what the master sees");
        let version = |c: &ClusterConfig| c.position.version;
        assert_eq!(
            version(&node),
            self.seen.last().map(version).unwrap_or_default().next(),
            "one version on"
        );
        self.seen.push(node);
    }

    /// Whoever saw any version of the history comes to the newest state in one delta.
    pub(crate) fn every_version_reaches_the_newest(&self) {
        let Some(newest) = self.state.config() else {
            return;
        };
        for held in &self.seen {
            let mut node = held.clone();
            let delta = self.state.delta_since(held.position).expect("not trimmed");
            assert_eq!(delta.base == delta.to, delta.items.is_empty());
            node.apply(&delta).expect("a delta fits its base");
            assert_eq!(node, **newest, "from version {}", held.position.version);
        }
    }

    /// The same commands give the same state, also from a snapshot taken anywhere on the way.
    pub(crate) fn replays_alike(&self) {
        let mut replica = MasterState::new();
        for command in &self.log {
            let text = serde_json::to_string(command).expect("a command is JSON");
            replica.apply(&serde_json::from_str(&text).expect("as it was"));
            let snapshot = serde_json::to_vec(&replica).expect("a state is JSON");
            let read: MasterState = serde_json::from_slice(&snapshot).expect("as it was");
            assert_eq!(read, replica, "a snapshot is the state");
            replica = read;
        }
        assert_eq!(replica, self.state);
    }
}

pub(crate) fn chain(state: &MasterState, shard: ShardId) -> Option<&ChainConfig> {
    state.config()?.chains.get(&shard)
}

fn events_are_dense_and_told(before: &MasterState, after: &MasterState, command: &Command) {
    let newest = |state: &MasterState| state.events().next_back().map_or(0, |e| e.no);
    let fresh: Vec<u64> = after
        .events()
        .map(|e| e.no)
        .filter(|no| *no > newest(before))
        .collect();
    let dense: Vec<u64> = (newest(before) + 1..=newest(after)).collect();
    assert_eq!(fresh, dense);
    let quiet = matches!(command.change, Change::SnapshotStored(_));
    assert!(
        quiet || (before == after) == fresh.is_empty(),
        "what does something is told, and nothing else: {command:?}"
    );
}

/// C1, M1, M2, M3 and C4, in other words than the state's own.
fn chain_moves_by_the_rules(
    held: &ChainConfig,
    after: &ChainConfig,
    was: &BTreeSet<NodeId>,
    is: &BTreeSet<NodeId>,
    command: &Command,
) {
    assert_eq!(after.check(), Ok(()));
    if held == after {
        return;
    }
    assert_eq!(after.epoch, held.epoch.next(), "C1");
    assert_eq!(after.range, held.range);
    assert!(
        held.phase == ChainPhase::Creating || after.phase == ChainPhase::Serving,
        "C4: there is no way back to creating"
    );
    let stays = |m: &&Member| held.members.contains(m);
    let new: Vec<&Member> = after.members.iter().filter(|m| !stays(m)).collect();
    match &command.change {
        Change::BeginServing { .. } => {
            assert_eq!(held.members, after.members);
            assert_eq!(was.len(), held.members.len(), "C4: everybody is confirmed");
        }
        Change::ReconfigureChain { step, .. } => match step {
            ChainStep::Recover { node } => {
                assert_eq!(command.by, Controller::Operator, "M3");
                assert_eq!(*is, BTreeSet::from([*node]), "M3");
            }
            ChainStep::Append { .. } => {
                assert_eq!(after.members[..held.members.len()], held.members, "M1");
                assert_eq!(after.members.len(), held.members.len() + 1, "M1");
                assert_eq!(was.len(), held.members.len(), "M1: everybody is in sync");
                assert_eq!(is, was, "M1: the joiner is not in sync yet");
                assert_eq!(new[0].joined_epoch, after.epoch, "C4");
            }
            ChainStep::Remove(_) | ChainStep::Reissue => {
                assert!(new.is_empty(), "M1: nobody comes");
                let order: Vec<&Member> = held
                    .members
                    .iter()
                    .filter(|m| after.members.contains(m))
                    .collect();
                assert_eq!(order, after.members.iter().collect::<Vec<_>>(), "M1");
                let left = was.iter().filter(|n| after.position(**n).is_some());
                assert_eq!(*is, left.copied().collect(), "stints go on");
                assert!(
                    held.phase == ChainPhase::Creating
                        || held.members == after.members
                        || !is.is_empty(),
                    "M2: somebody in sync stays"
                );
            }
        },
        other => panic!("{other:?} changed a chain"),
    }
}
