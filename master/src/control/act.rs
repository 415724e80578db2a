//! *Act*: discrepancies become commands, within budgets, mildest first.

use std::collections::BTreeSet;
use std::time::Duration;

use catena_proto::config::ClusterConfig;
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::time::Mono;

use super::compare::behind;
use super::discrepancy::{Discrepancy, Since};
use super::history::{History, apart};
use super::limits::{PUSH_AGAIN_AFTER, REISSUE_EVERY, STALE_EXCLUDED_AFTER};
use super::notes::Notes;
use super::observed::Observed;
use super::{admit, exclude};
use crate::state::{ChainStep, Change, Command, Controller, MasterState, Mutant, WallMs};

/// The name by which the loop is switched off.
pub const MEMBERSHIP: &str = "membership";

/// What the leader is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Propose this to the masters.
    Propose(Command),
    /// Send the node what it has not accepted, once more.
    PushAgain(NodeId),
}

/// One call's view of everything.
pub(super) struct Turn<'a> {
    pub(super) desired: &'a MasterState,
    pub(super) config: &'a ClusterConfig,
    pub(super) observed: &'a Observed,
    pub(super) found: &'a [Discrepancy],
    since: &'a Since,
    pub(super) history: History,
    pub(super) now: Mono,
    pub(super) wall: WallMs,
    /// What has been decided in this call.
    actions: Vec<Action>,
    /// Shards that are reconfigured in this call: one change a shard.
    changed: BTreeSet<ShardId>,
    pub(super) notes: Notes,
}

/// What follows from `found`. `since` has taken `found` in; `now` and `wall` are the same moment on two clocks.
///
/// The same arguments give the same actions, and a state in which they were applied gives none of them again. At most
/// one node is excluded and each shard is reconfigured at most once a call. While the controller [`MEMBERSHIP`] is
/// paused only what nodes report about themselves is taken over.
#[must_use]
pub fn act(
    desired: &MasterState,
    observed: &Observed,
    found: &[Discrepancy],
    since: &Since,
    now: Mono,
    wall: WallMs,
) -> Vec<Action> {
    let Some(config) = desired.config() else {
        return Vec::new();
    };
    let mut turn = Turn {
        desired,
        config,
        observed,
        found,
        since,
        history: History::read(desired.events().filter(|event| {
            let own = now.since(observed.leader_since());
            !desired.planted(Mutant::BudgetForgotten) || apart(event.at, wall) < own
        })),
        now,
        wall,
        actions: Vec::new(),
        changed: BTreeSet::new(),
        notes: Notes::default(),
    };
    turn.take_over();
    if !desired.is_paused(MEMBERSHIP) {
        turn.push_again();
        exclude::run(&mut turn);
        turn.reissue();
        admit::run(&mut turn);
        turn.write_notes();
    }
    turn.actions
}

impl Turn<'_> {
    /// What members say of themselves becomes what the masters know; a chain that is whole begins to serve.
    fn take_over(&mut self) {
        for discrepancy in self.found {
            let change = match discrepancy {
                Discrepancy::InSyncUnconfirmed {
                    shard,
                    node,
                    epoch,
                    joined_epoch,
                    disk,
                } => Change::ConfirmInSync {
                    shard: *shard,
                    node: *node,
                    epoch: *epoch,
                    joined_epoch: *joined_epoch,
                    disk: *disk,
                },
                Discrepancy::SyncLost {
                    shard,
                    node,
                    joined_epoch,
                    disk,
                } => Change::LoseSync {
                    shard: *shard,
                    node: *node,
                    joined_epoch: *joined_epoch,
                    disk: *disk,
                },
                Discrepancy::Created { shard, epoch } => Change::BeginServing {
                    shard: *shard,
                    expected_epoch: *epoch,
                },
                _ => continue,
            };
            if let Discrepancy::Created { shard, .. } = discrepancy {
                self.changed.insert(*shard);
            }
            self.propose(discrepancy.to_string(), change);
        }
    }

    /// The mildest thing to do about a node that is behind.
    fn push_again(&mut self) {
        let late: BTreeSet<NodeId> = self
            .found
            .iter()
            .filter(|d| self.lasting(d) >= PUSH_AGAIN_AFTER)
            .filter_map(behind)
            .collect();
        for node in late {
            let sent_at = self.observed.node(node).and_then(|seen| seen.sent_at);
            if sent_at.is_none_or(|at| self.now.since(at) >= PUSH_AGAIN_AFTER) {
                self.actions.push(Action::PushAgain(node));
            }
        }
    }

    /// A stale member that is the last in sync stays, gets the same chain as a newer epoch, and people are told.
    fn reissue(&mut self) {
        for discrepancy in self.found {
            let Discrepancy::LastInSyncStale { shard, node } = discrepancy else {
                continue;
            };
            if self.lasting(discrepancy) < STALE_EXCLUDED_AFTER {
                continue;
            }
            let why = self.why_behind(*node);
            self.notes.alarm(
                format!("shard {shard} node {node}"),
                format!(
                    "{why}; it is the last in-sync member of shard {shard} and is not excluded: mend or restart it"
                ),
            );
            let lately = self.history.reissued.get(shard);
            if lately.is_some_and(|at| apart(self.wall, *at) < REISSUE_EVERY) {
                continue;
            }
            let cause = format!("{why}; shard {shard} is reissued for its last in-sync member");
            self.reconfigure(*shard, cause, ChainStep::Reissue);
        }
    }

    /// In what way a node is behind, for a cause: a replica's epoch says more than a version.
    pub(super) fn why_behind(&self, node: NodeId) -> String {
        let rank = |d: &Discrepancy| match d {
            Discrepancy::Refusing { .. } => 0,
            Discrepancy::ReplicaStale { .. } => 1,
            _ => 2,
        };
        let all = self.found.iter().filter(|d| behind(d) == Some(node));
        all.min_by_key(|d| rank(d))
            .map_or_else(|| format!("node {node} stays behind"), ToString::to_string)
    }

    fn write_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        for (cause, change) in notes.settle(&self.history) {
            self.propose(cause, change);
        }
    }

    pub(super) fn lasting(&self, discrepancy: &Discrepancy) -> Duration {
        self.since.lasting(discrepancy, self.now)
    }

    pub(super) fn is_changed(&self, shard: ShardId) -> bool {
        self.changed.contains(&shard)
    }

    /// Proposes a chain's change, at the epoch that this call sees; one a shard.
    pub(super) fn reconfigure(&mut self, shard: ShardId, cause: String, step: ChainStep) {
        let Some(chain) = self.config.chains.get(&shard) else {
            return;
        };
        if self.changed.insert(shard) {
            let change = Change::ReconfigureChain {
                shard,
                expected_epoch: chain.epoch,
                step,
            };
            self.propose(cause, change);
        }
    }

    pub(super) fn propose(&mut self, cause: String, change: Change) {
        self.actions.push(Action::Propose(Command {
            at: self.wall,
            by: Controller::Membership,
            cause,
            change,
        }));
    }

    /// Whether a node could be counted on: it reports, with the registered disk, takes writes, and is not behind
    /// for longer than a push takes.
    pub(super) fn is_well(&self, node: NodeId) -> bool {
        let Some(seen) = self.observed.node(node) else {
            return false;
        };
        let registered = self.config.nodes.get(&node);
        let full = seen.last.as_ref().is_none_or(|r| r.report.read_only);
        let late = |d: &Discrepancy| match d {
            Discrepancy::Refusing { .. } => true,
            _ => self.lasting(d) >= PUSH_AGAIN_AFTER,
        };
        seen.is_reporting(self.now)
            && registered.is_some_and(|info| info.disk == seen.disk)
            && !full
            && !self
                .found
                .iter()
                .any(|d| behind(d) == Some(node) && late(d))
    }
}
