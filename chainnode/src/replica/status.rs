//! What an operator sees of a replica.

use catena_proto::config::Role;
use catena_proto::ids::{Epoch, NodeId, Seq};
use catena_proto::report::{ReplicaReport, Standing};
use catena_proto::time::Mono;

use super::Replica;

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// What it is to its chain.
    pub standing: Standing,
    /// Has passed rule S2 in this epoch.
    pub in_sync: bool,
    /// Is synced for its present stint (S1).
    pub synced: bool,
    /// Would answer a linearizable read now.
    pub serving_reads: bool,
    /// Would take a write now (head and solo).
    pub serving_writes: bool,
    /// The end of its log.
    pub last: Seq,
    /// Durable up to here.
    pub durable: Seq,
    /// Its commit point.
    pub commit: Seq,
    /// In the state up to here.
    pub applied: Seq,
    /// The alarm that stopped it.
    pub fenced: Option<String>,
    /// What it waits for; empty when nothing.
    pub why: String,
    /// Bytes of records that are not yet applied.
    pub pending_bytes: usize,
    /// Effects in the overlay.
    pub overlay_len: usize,
    /// Open sessions.
    pub sessions: usize,
    /// Learners that it feeds: how far each one's log is durable.
    pub learners: Vec<(NodeId, Seq)>,
}

impl Replica {
    /// A summary for status, metrics and reports.
    #[must_use]
    pub fn status(&self, now: Mono) -> Status {
        let standing = match self.role() {
            Some(role) => Standing::Member(role),
            None if self.learn => Standing::Learner,
            None => Standing::Outside,
        };
        let view = self.read_view();
        let readable = view.admit(now).is_ok();
        Status {
            standing,
            in_sync: self.in_sync || (self.is_synced() && !self.serving_phase()),
            synced: self.is_synced(),
            serving_reads: readable,
            serving_writes: self.is_head() && self.in_sync && !self.read_only,
            last: self.log.last(),
            durable: self.log.durable(),
            commit: self.commit,
            applied: self.state.applied,
            fenced: self.meta.as_ref().and_then(|m| m.fenced.clone()),
            why: self.why(now),
            pending_bytes: self
                .log
                .bytes_after(self.state.applied)
                .min(self.log.bytes()),
            overlay_len: self.overlay.len(),
            sessions: self.sessions.len(),
            learners: self
                .down
                .iter()
                .filter(|d| d.learner)
                .map(|d| (d.peer, d.durable))
                .collect(),
        }
    }

    /// What a node tells the masters of this replica; one that holds no config yet says nothing.
    #[must_use]
    pub fn report(&self, now: Mono) -> Option<ReplicaReport> {
        let chain = self.chain()?;
        let status = self.status(now);
        Some(ReplicaReport {
            shard: self.id.shard,
            epoch: chain.epoch,
            joined_epoch: chain
                .member(self.id.node, self.id.disk)
                .map_or(Epoch::ZERO, |m| m.joined_epoch),
            standing: status.standing,
            synced: status.synced,
            in_sync: status.in_sync,
            last: status.last,
            durable: status.durable,
            commit: status.commit,
            applied: status.applied,
            fenced: status.fenced.is_some(),
            serving_reads: status.serving_reads,
            why: status.why,
        })
    }

    /// The first thing that stands in the way of serving, in words.
    fn why(&self, now: Mono) -> String {
        let Some(chain) = &self.chain else {
            return "it has no config of this shard yet".into();
        };
        if let Some(evidence) = self.meta.as_ref().and_then(|m| m.fenced.as_ref()) {
            return format!("fenced: {evidence}");
        }
        if let Some(other) = chain
            .members
            .iter()
            .find(|m| m.node == self.id.node && m.disk != self.id.disk)
        {
            return format!(
                "the chain names disk {} of this node, its folder is disk {} (rule C4): it must be added again",
                other.disk, self.id.disk
            );
        }
        let Some(role) = self.role() else {
            return if self.learn {
                "it follows as a learner".into()
            } else {
                String::new()
            };
        };
        if !self.serving_phase() {
            return "the shard is being created".into();
        }
        if !self.debts.none() {
            return "it waits until leases of an older epoch have run out (rule R3)".into();
        }
        if self.scan_needed || self.state.scan.is_some() {
            return "it copies the state from its predecessor".into();
        }
        if !self.in_sync {
            return match role {
                Role::Head | Role::Solo if !self.is_synced() => {
                    "it is not synced and has no predecessor to repair from (rule M3): remove it from the chain"
                        .into()
                }
                Role::Head | Role::Solo => "it makes its log durable".into(),
                _ if self.up.is_none() => "it waits for its predecessor".into(),
                _ => "it catches up to its predecessor's log (rule S2)".into(),
            };
        }
        let successor = chain.successor(self.id.node);
        if let Some(next) =
            successor.filter(|_| !self.down.iter().any(|d| !d.learner && d.is_live()))
        {
            return format!("its successor, node {}, does not answer", next.node);
        }
        match self.read_view().admit(now) {
            Ok(()) => String::new(),
            Err(refusal) => format!("{refusal}: a member below does not commit or return rounds"),
        }
    }
}
