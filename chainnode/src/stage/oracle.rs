//! What must never happen, checked at every step of a stage or simulation, by rule.
//!
//! The oracle sees what no single replica can: all of them at once, and the
//! clients. It keeps the one history that the chain is allowed to have.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use catena_proto::ids::{Epoch, NodeId, Seq};
use catena_proto::op::{Outcome, RequestId};
use catena_proto::record::{Group, Record};
use catena_proto::time::Mono;

/// A broken rule, with what was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {what}")]
pub struct Violation {
    /// The rule's number, or its name in DESIGN.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// What a disk holds for sure at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It was applied and flushed long ago.
    Trimmed,
    /// This record.
    Record(Record),
    /// Nothing yet.
    Nothing,
}

#[derive(Clone, Debug)]
struct Committed {
    record: Record,
    /// Who was the first to hold it for committed, and in which epoch.
    by: NodeId,
    epoch: Epoch,
}

/// Watches a shard's replicas and clients.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    /// The one committed record at each position (at most one per (shard, seq)).
    committed: BTreeMap<Seq, Committed>,
    /// Requests that were executed, and where (exactly once).
    executed: BTreeMap<RequestId, Seq>,
    /// The newest version of each key that a client was told of.
    acknowledged: BTreeMap<Bytes, Seq>,
    /// Epochs that each node acted on.
    epochs: BTreeMap<NodeId, Epoch>,
    /// When each node began to act in each epoch.
    moved: BTreeMap<NodeId, BTreeMap<Epoch, Mono>>,
    violations: Vec<Violation>,
    seen: BTreeSet<&'static str>,
}

impl Oracle {
    /// The first broken rule, if any.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violations.first()
    }

    /// A rule was found broken by whoever sees more than one step.
    pub fn on_rule(&mut self, rule: &'static str, what: String) {
        self.broken(rule, what);
    }

    /// A node acts in this epoch, at this moment.
    pub fn on_moved(&mut self, node: NodeId, epoch: Epoch, now: Mono) {
        self.moved
            .entry(node)
            .or_default()
            .entry(epoch)
            .or_insert(now);
    }

    /// When a node first acted beyond `epoch`; `None` if it never did.
    #[must_use]
    pub fn moved_beyond(&self, node: NodeId, epoch: Epoch) -> Option<Mono> {
        let moved = self.moved.get(&node)?.range(epoch.next()..);
        moved.map(|(_, at)| *at).min()
    }

    fn broken(&mut self, rule: &'static str, what: String) {
        // The first of a kind tells the story; the rest follow from it.
        if self.seen.insert(rule) {
            self.violations.push(Violation { rule, what });
        }
    }

    /// A node hands these records to its engine: it holds them for committed.
    pub fn on_apply(&mut self, node: NodeId, epoch: Epoch, groups: &[Group]) {
        for (seq, record) in groups.iter().filter_map(|g| g.decode().ok()).flatten() {
            match self.committed.get(&seq) {
                Some(known) if known.record == record => continue,
                Some(Committed {
                    record: known, by, ..
                }) => {
                    let what = format!(
                        "seq {seq} is {:?} on node {by} and {:?} on node {node}",
                        known.effects, record.effects
                    );
                    self.broken("one committed record per seq (L1, L2)", what);
                    continue;
                }
                None => {}
            }
            if let Some(id) = record.request
                && let Some(before) = self.executed.insert(id, seq)
                && before != seq
            {
                let what = format!("request {id:?} was executed at seq {before} and at seq {seq}");
                self.broken("exactly once (DESIGN §3.4)", what);
            }
            let by = node;
            self.committed.insert(seq, Committed { record, by, epoch });
        }
    }

    /// A client was told that its write of `key` has this outcome; `durable_on` says which members of the
    /// answering head's chain have which record durable at a position.
    pub fn on_acknowledged(
        &mut self,
        key: Option<&Bytes>,
        outcome: Outcome,
        durable_on: impl Fn(Seq) -> Vec<(NodeId, Durable)>,
    ) {
        let version = match outcome {
            Outcome::Written { version }
            | Outcome::Deleted {
                version,
                existed: true,
            }
            | Outcome::Incremented { version, .. } => version,
            _ => return,
        };
        for (node, durable) in durable_on(version) {
            let lacks = match durable {
                Durable::Trimmed => false,
                Durable::Nothing => true,
                Durable::Record(found) => self
                    .committed
                    .get(&version)
                    .is_some_and(|c| c.record != found),
            };
            if lacks {
                let what = format!("seq {version} was acknowledged, node {node} has not synced it");
                self.broken(
                    "acknowledged means durable on every member (DESIGN §3.2)",
                    what,
                );
            }
        }
        if let Some(key) = key {
            let newest = self.acknowledged.entry(key.clone()).or_insert(version);
            *newest = (*newest).max(version);
        }
    }

    /// What a read that begins now must at least see.
    #[must_use]
    pub fn least_version(&self, key: &Bytes) -> Seq {
        self.acknowledged.get(key).copied().unwrap_or(Seq::ZERO)
    }

    /// A linearizable read was answered; `least` is what was acknowledged before it began.
    pub fn on_read(&mut self, node: NodeId, key: &Bytes, version: Seq, least: Seq) {
        // An absent key answers with version zero: right if a delete was committed since.
        let tombstone = |record: &Record| {
            record
                .effects
                .iter()
                .any(|e| e.key == key && e.value.is_none())
        };
        let deleted = version == Seq::ZERO
            && self
                .committed
                .range(least..)
                .any(|(_, c)| tombstone(&c.record));
        if version < least && !deleted {
            let what = format!(
                "node {node} answered a read of {key:?} with version {version}, {least} was acknowledged before"
            );
            self.broken("no stale read (R2, R3)", what);
        }
        let newest = self.acknowledged.entry(key.clone()).or_insert(version);
        *newest = (*newest).max(version);
    }

    /// A node acts in this epoch; `persisted` is what its disk holds.
    pub fn on_epoch(&mut self, node: NodeId, epoch: Epoch, persisted: Epoch) {
        if epoch > persisted {
            let what = format!("node {node} acts in epoch {epoch}, its disk holds {persisted}");
            self.broken("C1: persisted before acted on", what);
        }
        let newest = self.epochs.entry(node).or_insert(epoch);
        if epoch < *newest {
            let what = format!("node {node} went from epoch {newest} back to {epoch}");
            self.broken("C1: epochs never go back", what);
        }
        let newest = self.epochs.entry(node).or_insert(epoch);
        *newest = (*newest).max(epoch);
    }

    /// The node's disk was replaced: what it remembered is gone.
    pub fn on_new_disk(&mut self, node: NodeId) {
        self.epochs.remove(&node);
    }

    /// A replica stopped by C2 or L2 although nothing was wrong.
    pub fn on_false_alarm(&mut self, node: NodeId, evidence: &str) {
        self.broken("L2: no false alarm", format!("node {node}: {evidence}"));
    }

    /// A member that is in sync lacks something that is committed.
    pub fn on_in_sync(
        &mut self,
        node: NodeId,
        epoch: Epoch,
        last: Seq,
        holds: impl Fn(Seq, &Record) -> bool,
    ) {
        // Whoever was left behind in an older epoch may lack what newer ones committed.
        for (seq, Committed { record, by, .. }) in
            self.committed.iter().filter(|(_, c)| c.epoch <= epoch)
        {
            if *seq > last || !holds(*seq, record) {
                let what =
                    format!("node {node} is in sync and lacks seq {seq}, committed by node {by}");
                return self.broken("S2: in sync means it has all that is committed", what);
            }
        }
    }

    /// A learner's log reaches to `last`.
    pub fn on_learner(&mut self, node: NodeId, last: Seq) {
        let committed = self
            .committed
            .last_key_value()
            .map_or(Seq::ZERO, |(seq, _)| *seq);
        if last > committed {
            let what = format!("learner {node} holds seq {last}, committed is {committed}");
            self.broken("L4: a learner receives committed records only", what);
        }
    }

    /// Every record that was committed, in order.
    pub fn committed(&self) -> impl Iterator<Item = (&Seq, &Record)> {
        self.committed.iter().map(|(seq, c)| (seq, &c.record))
    }
}
