//! What the node says of itself to the master (DESIGN §4.3, *monitor*).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::ConfigPosition;
use catena_proto::ids::Seq;
use catena_proto::limits;
use catena_proto::report::{LinkReport, ReplicaReport, Report};
use catena_proto::time::Mono;

use super::shared::{Shard, Shared};

/// The name of the alarm of a replica that stopped (C2, L2).
const FENCED: &str = "REPLICA_FENCED";
/// With at most so many replicas, all of them are looked at each time; with more, only when something happened.
const FEW_REPLICAS: usize = 256;

/// Makes the reports of one incarnation, and knows which of them are news.
pub(crate) struct Reporter {
    shared: Arc<Shared>,
    no: u64,
    said: Option<Report>,
}

impl Reporter {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            no: 0,
            said: None,
        }
    }

    /// The next report, for sure.
    pub(crate) fn next(&mut self, now: Mono) -> Report {
        let report = self.build(now);
        self.say(report)
    }

    /// The next report, if it says anything new. `happened`: replicas may have changed since the last look.
    pub(crate) fn news(&mut self, now: Mono, happened: bool) -> Option<Report> {
        let few = self.shared.shards.read().len() <= FEW_REPLICAS;
        let links = self.links(now);
        let alive = |links: &[LinkReport]| -> Vec<_> {
            links.iter().map(|l| (l.fellow, l.alive)).collect()
        };
        let moved = self
            .said
            .as_ref()
            .is_none_or(|said| alive(&said.links) != alive(&links));
        if !(few || happened || moved) {
            return None;
        }
        let report = self.build(now);
        let old = self.said.as_ref().map(essence);
        (old.as_ref() != Some(&essence(&report))).then(|| self.say(report))
    }

    fn say(&mut self, mut report: Report) -> Report {
        self.no += 1;
        report.no = self.no;
        self.said = Some(report.clone());
        report
    }

    fn links(&self, now: Mono) -> Vec<LinkReport> {
        let silence = Duration::from_millis(self.shared.config().settings.link_silence_ms);
        let mut links = self.shared.fellows.report(now, silence);
        links.truncate(limits::NODES_MAX);
        links
    }

    fn build(&self, now: Mono) -> Report {
        let shared = &self.shared;
        let shards: Vec<_> = shared.shards.read().values().cloned().collect();
        let replicas: Vec<_> = shards.iter().filter_map(|s| replica(s, now)).collect();
        let alarms = replicas
            .iter()
            .filter(|r| r.fenced)
            .take(limits::REPORT_ALARMS_MAX)
            .map(|r| {
                (
                    FENCED.to_owned(),
                    cut(format!("shard {}: {}", r.shard, r.why)),
                )
            })
            .collect();
        Report {
            no: self.no,
            acked: shared.config().position,
            effective: effective(shared),
            config_source: (*shared.config_source.lock()).to_owned(),
            replicas,
            links: self.links(now),
            read_only: shared.read_only.load(Ordering::Relaxed),
            uptime: now.since(shared.started),
            alarms,
        }
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
        for seq in [
            &mut replica.last,
            &mut replica.durable,
            &mut replica.commit,
            &mut replica.applied,
        ] {
            *seq = Seq::ZERO;
        }
        replica.serving_reads = false;
        replica.why = String::new();
    }
    essence
}

fn replica(shard: &Shard, now: Mono) -> Option<ReplicaReport> {
    let mut report = shard.replica.read().report(now)?;
    report.why = cut(report.why);
    Some(report)
}

/// The newest state whose every chain that concerns this node is in force on its replica.
///
/// It is a lower bound: a state that was overtaken before it was in force everywhere is never named.
pub(crate) fn effective(shared: &Shared) -> ConfigPosition {
    let config = shared.config();
    let me = shared.me.node;
    let held = shared.shards.read();
    let in_force = config.chains.values().all(|chain| {
        let replica = held.get(&chain.shard);
        if replica.is_none() && chain.position(me).is_none() {
            return true;
        }
        let epoch = replica.and_then(|s| s.replica.read().chain().map(|c| c.epoch));
        epoch.is_some_and(|epoch| epoch >= chain.epoch)
    });
    drop(held);
    let mut effective = shared.effective.lock();
    if in_force && config.position > *effective {
        *effective = config.position;
    }
    *effective
}

/// Cuts a text for people at the limit that the wire has for it, between two characters.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > limits::REFUSAL_MESSAGE_BYTES_MAX {
        let mut end = limits::REFUSAL_MESSAGE_BYTES_MAX;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
    }
    text
}
