//! What the leader was told since it became leader: the *monitor* of the loop.
//!
//! It begins anew with each leader, on purpose: nobody's word is taken for what
//! another master saw. Times are the leader's monotonic clock and are compared
//! with each other only.

use std::collections::BTreeMap;
use std::time::Duration;

use catena_proto::config::ConfigPosition;
use catena_proto::ids::{DiskId, Incarnation, NodeId, Seq, ShardId};
use catena_proto::limits::NODES_MAX;
use catena_proto::report::{LinkReport, NodeOpen, PushOutcome, ReplicaReport, Report};
use catena_proto::time::Mono;

use super::limits::{RATE_SPAN_MIN, SILENT_AFTER};

/// Everything that this leader has seen of the nodes; bounded by [`NODES_MAX`].
#[derive(Clone, Debug)]
pub struct Observed {
    leader_since: Mono,
    nodes: BTreeMap<NodeId, NodeSeen>,
}

/// Whether a node's stream to this leader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscription {
    /// It stands since then.
    Connected {
        /// When it was opened.
        since: Mono,
    },
    /// It broke then.
    Broken {
        /// When that was noticed.
        since: Mono,
    },
}

/// A report and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// When it came.
    pub at: Mono,
    /// What it says.
    pub report: Report,
}

/// A push of which the node did not accept everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When it said so.
    pub at: Mono,
    /// The state that the push led to.
    pub to: ConfigPosition,
    /// The first reason it gave.
    pub reason: String,
}

/// What was seen of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its stream.
    pub subscription: Subscription,
    /// The disk that it has.
    pub disk: DiskId,
    /// Its present start.
    pub incarnation: Incarnation,
    /// The version of its program.
    pub program: String,
    /// Its newest report of this incarnation.
    pub last: Option<Reported>,
    /// Commit points in an earlier report, for the rate of writes.
    commits_before: Option<(Mono, BTreeMap<ShardId, Seq>)>,
    /// The newest state that was pushed to it.
    pub sent: ConfigPosition,
    /// When.
    pub sent_at: Option<Mono>,
    /// Since when something that was pushed to it is not accepted; `None` when it has accepted all of it.
    pub unanswered_since: Option<Mono>,
    /// The newest state that it accepted and persisted.
    pub acked: ConfigPosition,
    /// The newest state in force on every replica that it names.
    pub effective: ConfigPosition,
    /// What it refused, until it accepts something as new.
    pub refusal: Option<Refusal>,
    /// When anything came from it.
    pub last_sign: Mono,
}

impl NodeSeen {
    /// Whether its stream stands.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self.subscription, Subscription::Connected { .. })
    }

    /// Connected, and its newest report is not older than [`SILENT_AFTER`].
    #[must_use]
    pub fn is_reporting(&self, now: Mono) -> bool {
        let fresh = |seen: &Reported| now.since(seen.at) < SILENT_AFTER;
        self.is_connected() && self.last.as_ref().is_some_and(fresh)
    }

    /// Connected, and no report for [`SILENT_AFTER`]: stopped or hung (FAULTS 15).
    #[must_use]
    pub fn is_silent(&self, now: Mono) -> bool {
        let Subscription::Connected { since } = self.subscription else {
            return false;
        };
        let heard = self.last.as_ref().map_or(since, |seen| seen.at.max(since));
        now.since(heard) >= SILENT_AFTER
    }

    /// Takes in what it says that it has accepted. Whoever moves forward is given time anew.
    fn accepted(&mut self, now: Mono, acked: ConfigPosition) {
        if acked > self.acked {
            self.unanswered_since = (acked < self.sent).then_some(now);
        }
        self.acked = acked;
    }

    /// Its newest report's line on `shard`.
    #[must_use]
    pub fn replica(&self, shard: ShardId) -> Option<&ReplicaReport> {
        let report = &self.last.as_ref()?.report;
        report.replicas.iter().find(|r| r.shard == shard)
    }

    /// Its newest report's line on the link to `fellow`.
    #[must_use]
    pub fn link(&self, fellow: NodeId) -> Option<&LinkReport> {
        let report = &self.last.as_ref()?.report;
        report.links.iter().find(|l| l.fellow == fellow)
    }

    /// Records a second that `shard` committed between its two latest reports; 0 when they say nothing.
    #[must_use]
    pub fn commits_per_second(&self, shard: ShardId) -> u64 {
        let (Some(last), Some((at, before))) = (&self.last, &self.commits_before) else {
            return 0;
        };
        let span = last.at.since(*at);
        let (Some(from), Some(to)) = (before.get(&shard), self.replica(shard)) else {
            return 0;
        };
        if span < RATE_SPAN_MIN {
            return 0;
        }
        let millis = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        to.commit.since(*from).saturating_mul(1_000) / millis.max(1)
    }
}

impl Observed {
    /// Nothing seen yet, by a master that leads since `leader_since`.
    #[must_use]
    pub const fn new(leader_since: Mono) -> Self {
        Self {
            leader_since,
            nodes: BTreeMap::new(),
        }
    }

    /// Since when this master leads.
    #[must_use]
    pub const fn leader_since(&self) -> Mono {
        self.leader_since
    }

    /// `at` as evidence carries it: the span since this master became leader.
    #[must_use]
    pub const fn span(&self, at: Mono) -> Duration {
        at.since(self.leader_since)
    }

    /// What was seen of `node`; `None` if it never subscribed to this leader.
    #[must_use]
    pub fn node(&self, node: NodeId) -> Option<&NodeSeen> {
        self.nodes.get(&node)
    }

    /// All nodes that subscribed, by id.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &NodeSeen)> {
        self.nodes.iter().map(|(node, seen)| (*node, seen))
    }

    /// Whether `node` is connected and reports.
    #[must_use]
    pub fn is_reporting(&self, node: NodeId, now: Mono) -> bool {
        self.node(node).is_some_and(|seen| seen.is_reporting(now))
    }

    /// When anything came from `node` last; the beginning of this leadership if nothing ever did.
    #[must_use]
    pub fn last_sign(&self, node: NodeId) -> Mono {
        self.node(node)
            .map_or(self.leader_since, |seen| seen.last_sign)
    }

    /// A node subscribed. A new start of it makes earlier reports void.
    pub fn on_open(&mut self, now: Mono, open: &NodeOpen) {
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&open.node) {
            // More nodes cannot be registered either (limits), so nothing is lost by not seeing it.
            return;
        }
        let same_start =
            |seen: &NodeSeen| seen.incarnation == open.incarnation && seen.disk == open.disk;
        let before = self.nodes.remove(&open.node).filter(same_start);
        let (last, commits_before, effective) = before
            .map(|seen| (seen.last, seen.commits_before, seen.effective))
            .unwrap_or_default();
        self.nodes.insert(
            open.node,
            NodeSeen {
                subscription: Subscription::Connected { since: now },
                disk: open.disk,
                incarnation: open.incarnation,
                program: open.version.clone(),
                last,
                commits_before,
                sent: open.position,
                sent_at: None,
                unanswered_since: None,
                acked: open.position,
                effective,
                refusal: None,
                last_sign: now,
            },
        );
    }

    /// A node reported. A report that is older than the one held counts as a sign of life only.
    pub fn on_report(&mut self, now: Mono, node: NodeId, report: Report) {
        let Some(seen) = self.nodes.get_mut(&node) else {
            return;
        };
        seen.last_sign = now;
        if let Some(held) = &seen.last {
            if report.no <= held.report.no {
                return;
            }
            let kept_for = |(at, _): &(Mono, _)| held.at.since(*at);
            let renew = seen
                .commits_before
                .as_ref()
                .is_none_or(|before| kept_for(before) >= RATE_SPAN_MIN);
            if renew {
                let commits = held.report.replicas.iter().map(|r| (r.shard, r.commit));
                seen.commits_before = Some((held.at, commits.collect()));
            }
        }
        seen.accepted(now, report.acked);
        seen.effective = report.effective;
        if seen.refusal.as_ref().is_some_and(|r| report.acked > r.to) {
            seen.refusal = None;
        }
        seen.last = Some(Reported { at: now, report });
    }

    /// A node said what became of a push.
    pub fn on_outcome(&mut self, now: Mono, node: NodeId, outcome: PushOutcome) {
        let Some(seen) = self.nodes.get_mut(&node) else {
            return;
        };
        seen.last_sign = now;
        match outcome.refused.into_iter().next() {
            None => {
                seen.accepted(now, seen.acked.max(outcome.to));
                seen.refusal = None;
            }
            Some(item) => {
                seen.refusal = Some(Refusal {
                    at: now,
                    to: outcome.to,
                    reason: item.reason,
                });
            }
        }
    }

    /// A node's stream broke.
    pub fn on_closed(&mut self, now: Mono, node: NodeId) {
        if let Some(seen) = self.nodes.get_mut(&node) {
            seen.subscription = Subscription::Broken { since: now };
        }
    }

    /// Something was pushed to a node, up to the state at `to`.
    pub fn on_pushed(&mut self, now: Mono, node: NodeId, to: ConfigPosition) {
        if let Some(seen) = self.nodes.get_mut(&node) {
            seen.sent = seen.sent.max(to);
            seen.sent_at = Some(now);
            if seen.sent > seen.acked && seen.unanswered_since.is_none() {
                seen.unanswered_since = Some(now);
            }
        }
    }
}
