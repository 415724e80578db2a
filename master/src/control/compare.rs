//! *Compare*: the desired state and the observed one, and where they differ.

use std::collections::BTreeSet;

use catena_proto::config::{ChainConfig, ChainPhase, ClusterConfig, Member};
use catena_proto::ids::{Epoch, NodeId};
use catena_proto::limits::LEASE_MAX;
use catena_proto::report::Standing;
use catena_proto::time::Mono;

use super::discrepancy::{Discrepancy, SignGone, UselessWhy};
use super::limits::{LEARNER_GONE_AFTER, LEARNER_LAG_RECORDS_MAX, LEARNER_LAG_TIME_MAX};
use super::observed::{NodeSeen, Observed, Subscription};
use super::suspicion::{broken_links, in_service, is_broken};
use crate::state::{MasterState, Mutant, ShardRecord};

/// Every difference between `desired` and `observed` at `now`; none before there is a cluster. Nodes come first,
/// then the links between them, then chains in order.
#[must_use]
pub fn compare(desired: &MasterState, observed: &Observed, now: Mono) -> Vec<Discrepancy> {
    let Some(config) = desired.config() else {
        return Vec::new();
    };
    let compared = Compared {
        desired,
        config,
        observed,
        now,
    };
    let mut found = Vec::new();
    compared.nodes(&mut found);
    let links = broken_links(config, observed, now).into_iter();
    found.extend(links.map(|(low, high)| Discrepancy::LinkBroken { low, high }));
    let chains = || {
        let chains = config.chains.values();
        chains.filter_map(|chain| Some((chain, desired.shard(chain.shard)?)))
    };
    for (chain, record) in chains() {
        compared.members(chain, record, &mut found);
    }
    let behind: BTreeSet<NodeId> = found.iter().filter_map(behind).collect();
    for (chain, record) in chains() {
        compared.length(chain, record, &behind, &mut found);
        compared.learners(chain, record, &mut found);
    }
    found
}

/// The node that does not follow the desired state, if that is what `discrepancy` says.
pub(super) const fn behind(discrepancy: &Discrepancy) -> Option<NodeId> {
    match discrepancy {
        Discrepancy::Stale { node, .. }
        | Discrepancy::ReplicaStale { node, .. }
        | Discrepancy::Refusing { node, .. } => Some(*node),
        _ => None,
    }
}

struct Compared<'a> {
    desired: &'a MasterState,
    config: &'a ClusterConfig,
    observed: &'a Observed,
    now: Mono,
}

impl Compared<'_> {
    fn nodes(&self, found: &mut Vec<Discrepancy>) {
        let serving = in_service(self.config);
        for (node, registered) in &self.config.nodes {
            let node = *node;
            let seen = self.observed.node(node);
            if let Some(sign) = self.sign_gone(seen)
                && serving.contains(&node)
            {
                found.push(Discrepancy::SeemsDead { node, sign });
            }
            let Some(seen) = seen.filter(|s| s.is_connected() && s.last.is_some()) else {
                continue;
            };
            if seen.disk != registered.disk {
                // It is about to be registered anew.
                continue;
            }
            let follows = self.config.learners.iter().any(|l| l.node == node);
            self.versions(node, seen, follows || serving.contains(&node), found);
            if let Some(refusal) = &seen.refusal {
                found.push(Discrepancy::Refusing {
                    node,
                    to: refusal.to,
                    reason: refusal.reason.clone(),
                });
            }
        }
    }

    fn sign_gone(&self, seen: Option<&NodeSeen>) -> Option<SignGone> {
        match seen {
            None => Some(SignGone::NeverCame),
            Some(seen) if !seen.is_connected() => Some(SignGone::Broken),
            Some(seen) => seen.is_silent(self.now).then_some(SignGone::Silent),
        }
    }

    /// What is in force matters where the node is a member or a learner; a former one has nothing that could be.
    fn versions(&self, node: NodeId, seen: &NodeSeen, serves: bool, found: &mut Vec<Discrepancy>) {
        let wanted = self.desired.position();
        if seen.acked < wanted || (serves && seen.effective < wanted) {
            found.push(Discrepancy::Stale {
                node,
                wanted,
                acked: seen.acked,
                effective: seen.effective,
            });
        }
    }

    /// What is in force counts, whatever the node says that it has accepted.
    fn replica(&self, chain: &ChainConfig, member: &Member) -> Option<Discrepancy> {
        let seen = self.observed.node(member.node)?;
        if !seen.is_connected() || seen.last.is_none() || seen.disk != member.disk {
            return None;
        }
        let held = seen
            .replica(chain.shard)
            .map_or(Epoch::ZERO, |replica| replica.epoch);
        (held < chain.epoch).then_some(Discrepancy::ReplicaStale {
            node: member.node,
            shard: chain.shard,
            wanted: chain.epoch,
            held,
        })
    }

    fn members(&self, chain: &ChainConfig, record: &ShardRecord, found: &mut Vec<Discrepancy>) {
        let shard = chain.shard;
        for member in &chain.members {
            let node = member.node;
            if let Some(info) = self.config.nodes.get(&node)
                && info.disk != member.disk
            {
                found.push(Discrepancy::WrongDisk {
                    shard,
                    node,
                    named: member.disk,
                    registered: info.disk,
                });
                continue;
            }
            found.extend(self.replica(chain, member));
            found.extend(self.sync(chain, record, member));
            found.extend(self.head_unsynced(chain, record, member));
        }
        let all_in_sync = chain
            .members
            .iter()
            .all(|m| record.in_sync().contains(&m.node));
        if chain.phase == ChainPhase::Creating && all_in_sync {
            found.push(Discrepancy::Created {
                shard,
                epoch: chain.epoch,
            });
        }
    }

    /// S2: a head that lost its data repairs from nobody, and blocks whoever is in sync below it.
    fn head_unsynced(
        &self,
        chain: &ChainConfig,
        record: &ShardRecord,
        member: &Member,
    ) -> Option<Discrepancy> {
        let node = member.node;
        let is_head = chain.head() == Some(member) && chain.phase == ChainPhase::Serving;
        let others = record.in_sync().iter().any(|other| *other != node);
        // An old report is no news of it: this master may be cut off (FAULTS 20).
        let seen = self.observed.node(node)?;
        let replica = seen
            .replica(chain.shard)
            .filter(|_| seen.is_reporting(self.now))?;
        let lost = replica.epoch == chain.epoch && !replica.synced;
        let counted = record.in_sync().contains(&node);
        (is_head && others && lost && !counted).then_some(Discrepancy::HeadUnsynced {
            shard: chain.shard,
            node,
        })
    }

    /// A report counts for the epoch, the stint and the disk that it is about (M2).
    fn sync(
        &self,
        chain: &ChainConfig,
        record: &ShardRecord,
        member: &Member,
    ) -> Option<Discrepancy> {
        let seen = self.observed.node(member.node)?;
        let replica = seen.replica(chain.shard)?;
        let newest = seen.disk == member.disk
            && replica.epoch == chain.epoch
            && replica.joined_epoch == member.joined_epoch;
        if !newest {
            return None;
        }
        let (shard, node) = (chain.shard, member.node);
        let counted = record.in_sync().contains(&node);
        // S1: what is persisted for this stint was in sync once, and whatever was committed since needed it. It may
        // wait for a predecessor now, and be the very one that the chain has to go on with.
        let synced = replica.in_sync || (replica.synced && !replica.fenced);
        if synced && !counted {
            return Some(Discrepancy::InSyncUnconfirmed {
                shard,
                node,
                epoch: chain.epoch,
                joined_epoch: member.joined_epoch,
                disk: member.disk,
            });
        }
        let ignored = self.desired.planted(Mutant::LostSyncIgnored);
        (counted && !replica.synced && !ignored).then_some(Discrepancy::SyncLost {
            shard,
            node,
            joined_epoch: member.joined_epoch,
            disk: member.disk,
        })
    }

    fn length(
        &self,
        chain: &ChainConfig,
        record: &ShardRecord,
        behind: &BTreeSet<NodeId>,
        found: &mut Vec<Discrepancy>,
    ) {
        let shard = chain.shard;
        let (members, wanted) = (chain.members.len(), self.desired.replicas_wanted());
        if chain.phase == ChainPhase::Creating {
            return;
        }
        if members < wanted {
            found.push(Discrepancy::Short {
                shard,
                members,
                wanted,
            });
        }
        let mut living = record.in_sync().iter().filter(|node| {
            let seen = self.observed.node(**node);
            self.sign_gone(seen).is_none()
        });
        match (living.next(), living.next()) {
            (None, _) => found.push(Discrepancy::Blocked { shard }),
            (Some(last), None) if behind.contains(last) => {
                found.push(Discrepancy::LastInSyncStale { shard, node: *last });
            }
            _ => {}
        }
    }

    fn learners(&self, chain: &ChainConfig, record: &ShardRecord, found: &mut Vec<Discrepancy>) {
        let shard = chain.shard;
        for learner in self.config.learners.iter().filter(|l| l.shard == shard) {
            let node = learner.node;
            let registered = self.config.nodes.get(&node).map(|info| info.disk);
            let wanted = record.wanted().contains(&node);
            let full = chain.members.len() >= self.desired.replicas_wanted() && !wanted;
            let why = if registered.is_none() || self.is_long_gone(node) {
                Some(UselessWhy::Gone)
            } else if registered != Some(learner.disk) {
                Some(UselessWhy::DiskChanged)
            } else if record.unwanted().contains(&node) {
                Some(UselessWhy::Unwanted)
            } else {
                full.then_some(UselessWhy::ChainFull)
            };
            if let Some(why) = why {
                found.push(Discrepancy::UselessLearner { shard, node, why });
                continue;
            }
            let all_in_sync = chain
                .members
                .iter()
                .all(|m| record.in_sync().contains(&m.node));
            let seen = self.observed.node(node);
            let Some(seen) = seen.filter(|s| s.is_reporting(self.now)) else {
                continue;
            };
            let in_time = all_in_sync || self.desired.planted(Mutant::AppendBeforeInSync);
            if !in_time || chain.phase == ChainPhase::Creating || seen.disk != learner.disk {
                continue;
            }
            if let Some(lag) = self.caught_up(chain, node, seen) {
                found.push(Discrepancy::CaughtUp {
                    shard,
                    node,
                    disk: learner.disk,
                    lag,
                });
            }
        }
    }

    fn is_long_gone(&self, node: NodeId) -> bool {
        let gone_since = match self.observed.node(node).map(|seen| seen.subscription) {
            None => self.observed.leader_since(),
            Some(Subscription::Broken { since }) => since,
            Some(Subscription::Connected { .. }) => return false,
        };
        self.now.since(gone_since) >= LEARNER_GONE_AFTER
    }

    /// M4: the learner's lag if it is small and its node is up for longer than `L_max` (R4).
    ///
    /// Reports come a second apart, and under load a second is many records: both sides are compared at the moment
    /// of the learner's report, by the rate at which the chain commits.
    fn caught_up(&self, chain: &ChainConfig, node: NodeId, learner: &NodeSeen) -> Option<u64> {
        let shard = chain.shard;
        let replica = learner.replica(shard)?;
        let reported = learner.last.as_ref()?;
        let uptime = reported.report.uptime + self.now.since(reported.at);
        if self.desired.planted(Mutant::LearnerAppendedEarly) {
            return Some(0);
        }
        if replica.standing != Standing::Learner || replica.fenced || uptime <= LEASE_MAX {
            return None;
        }
        // The tail is to be its predecessor: over a broken link it would never be in sync, and hold up every write.
        let tail = chain.tail()?.node;
        if is_broken(self.observed, tail, node) {
            return None;
        }
        let members = chain.members.iter();
        let (source, commit) = members
            .filter_map(|m| self.observed.node(m.node))
            .filter(|seen| seen.is_reporting(self.now))
            .filter_map(|seen| Some((seen, seen.replica(shard)?.commit)))
            .max_by_key(|(_, commit)| *commit)?;
        let source_at = source.last.as_ref()?.at;
        let rate = source.commits_per_second(shard);
        let moved = |millis: u128| {
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            rate.saturating_mul(millis) / 1_000
        };
        let ahead = moved(reported.at.since(source_at).as_millis());
        let beyond = moved(source_at.since(reported.at).as_millis());
        let lag = commit
            .plus(ahead)
            .since(replica.durable)
            .saturating_sub(beyond);
        let allowed = LEARNER_LAG_RECORDS_MAX.max(moved(LEARNER_LAG_TIME_MAX.as_millis()));
        (lag <= allowed).then_some(lag)
    }
}
