//! What the leader knows, as an operator sees it.

use std::collections::{BTreeMap, BTreeSet};

use catena_proto::config::ClusterConfig;
use catena_proto::ids::{NodeId, ShardId};
use catena_proto::report::Standing;
use catena_proto::time::Mono;
use catena_proto::wire;

use crate::control::{Discrepancy, NodeSeen, Observed};
use crate::state::{Event, MasterState};

/// Words of the event log that begin something an operator should know, and that end it.
const RAISED: &[(&str, &str)] = &[("hold", "SUSPICION_HOLD"), ("alarm", "CONTROL_ALARM")];
const OVER: &str = "-over";

/// One moment of the leader's view.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderView {
    pub(crate) nodes: Vec<wire::NodeView>,
    pub(crate) chains: Vec<wire::ChainView>,
}

impl LeaderView {
    pub(crate) fn new(
        state: &MasterState,
        observed: &Observed,
        found: &[Discrepancy],
        now: Mono,
    ) -> Self {
        let Some(config) = state.config() else {
            return Self::default();
        };
        let dead: BTreeSet<NodeId> = found
            .iter()
            .filter_map(|d| match d {
                Discrepancy::SeemsDead { node, .. } => Some(*node),
                _ => None,
            })
            .collect();
        let nodes = config.nodes.keys().map(|node| {
            let is_member = config.chains.values().any(|c| c.position(*node).is_some());
            let is_learner = config.learners.iter().any(|l| l.node == *node);
            let seen = observed.node(*node);
            let word = match seen {
                Some(seen) if seen.is_reporting(now) && (is_member || is_learner) => "up",
                Some(seen) if seen.is_reporting(now) => idle_word(state, *node),
                _ if is_member || dead.contains(node) && is_learner => "suspect",
                _ => "down",
            };
            node_view(*node, word, seen, now)
        });
        let chains = config.chains.keys().map(|shard| {
            let record = state.shard(*shard);
            let in_sync = record.map(|r| r.in_sync().iter().map(|n| n.get()).collect());
            wire::ChainView {
                shard_id: shard.get(),
                in_sync_node_ids: in_sync.unwrap_or_default(),
                learners: learners(config, observed, *shard),
                why: why(found, *shard),
                replicas_wanted: u32::try_from(state.replicas_wanted()).unwrap_or(u32::MAX),
            }
        });
        Self {
            nodes: nodes.collect(),
            chains: chains.collect(),
        }
    }
}

/// A node in no chain: a spare, or one that was taken out and is not back yet.
fn idle_word(state: &MasterState, node: NodeId) -> &'static str {
    let subject = format!("node {node}");
    let taken_out = state
        .events()
        .rev()
        .any(|e| e.action == "remove-member" && names(&e.subject, &subject));
    if taken_out { "excluded" } else { "up" }
}

/// Whether an event's subject (`shard 1 node 3`) names this node.
fn names(subject: &str, node: &str) -> bool {
    subject
        .split(',')
        .any(|part| part.trim() == node || part.trim_end().ends_with(&format!(" {node}")))
}

fn node_view(node: NodeId, word: &str, seen: Option<&NodeSeen>, now: Mono) -> wire::NodeView {
    let Some(seen) = seen else {
        return wire::NodeView {
            node_id: node.get(),
            state: word.to_owned(),
            ..wire::NodeView::default()
        };
    };
    let report = seen.last.as_ref();
    wire::NodeView {
        node_id: node.get(),
        state: word.to_owned(),
        incarnation: seen.incarnation.get(),
        sent: Some(seen.sent.into()),
        acked: Some(seen.acked.into()),
        effective: Some(seen.effective.into()),
        config_source: report.map_or_else(String::new, |r| r.report.config_source.clone()),
        report_age_ms: report.map_or(u64::MAX, |r| {
            u64::try_from(now.since(r.at).as_millis()).unwrap_or(u64::MAX)
        }),
        refusal: seen
            .refusal
            .as_ref()
            .map_or_else(String::new, |r| r.reason.clone()),
    }
}

/// How far each learner's log is, against the newest commit point that any member reports.
fn learners(config: &ClusterConfig, observed: &Observed, shard: ShardId) -> Vec<wire::LearnerView> {
    let reports = || observed.nodes().filter_map(|(_, seen)| seen.replica(shard));
    let commit = reports()
        .filter(|r| matches!(r.standing, Standing::Member(_)))
        .map(|r| r.commit.get())
        .max()
        .unwrap_or(0);
    let of = config.learners.iter().filter(|l| l.shard == shard);
    of.map(|learner| {
        let durable = observed
            .node(learner.node)
            .and_then(|seen| seen.replica(shard))
            .map_or(0, |r| r.durable.get());
        let progress = match commit {
            0 => 1.0,
            // Precision is no matter: it is drawn as a bar.
            commit => durable.min(commit) as f64 / commit as f64,
        };
        wire::LearnerView {
            node_id: learner.node.get(),
            progress,
        }
    })
    .collect()
}

/// What a chain waits for: the gravest thing that the loop found about it.
fn why(found: &[Discrepancy], shard: ShardId) -> String {
    let rank = |d: &Discrepancy| match d {
        Discrepancy::Blocked { .. } => 0,
        Discrepancy::LastInSyncStale { .. } => 1,
        Discrepancy::ReplicaStale { .. } => 2,
        Discrepancy::WrongDisk { .. } => 3,
        _ => 4,
    };
    found
        .iter()
        .filter(|d| d.shard() == Some(shard))
        .min_by_key(|d| rank(d))
        .map_or_else(String::new, ToString::to_string)
}

/// What is raised and not over, from the event log: it outlives a change of leader.
pub(crate) fn alarms(state: &MasterState) -> Vec<wire::Alarm> {
    let mut raised: BTreeMap<(String, String), &Event> = BTreeMap::new();
    for event in state.events() {
        for (word, name) in RAISED {
            let key = ((*name).to_owned(), event.subject.clone());
            if event.action == *word {
                raised.entry(key).or_insert(event);
            } else if event.action.strip_suffix(OVER) == Some(word) {
                raised.remove(&key);
            }
        }
    }
    raised
        .into_iter()
        .map(|((name, subject), event)| wire::Alarm {
            name,
            since_ms: event.at.0,
            detail: format!("{subject}: {}", event.cause),
        })
        .collect()
}
