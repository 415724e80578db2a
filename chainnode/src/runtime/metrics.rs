//! What a node counts, as Prometheus text.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::clock;
use super::report;
use super::shared::Shared;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u64,
}

/// The counters of a node; each is cheap enough for every batch.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Mutex<Registry>,
    /// Time of a group sync of the log.
    pub(crate) sync_seconds: Histogram,
    /// Records in one group sync.
    pub(crate) sync_groups: Histogram,
    /// Linearizable and stale reads answered.
    pub(crate) reads: Counter,
    /// Writes answered.
    pub(crate) writes: Counter,
    refusals: Family<ReasonLabel, Counter>,
    /// Bytes of the log on disk.
    pub(crate) log_bytes: Gauge,
    connections: Gauge,
    config_version: Gauge,
    config_effective_version: Gauge,
    master_connected: Gauge,
    last: Family<ShardLabel, Gauge>,
    commit: Family<ShardLabel, Gauge>,
    applied: Family<ShardLabel, Gauge>,
    epoch: Family<ShardLabel, Gauge>,
    in_sync: Family<ShardLabel, Gauge>,
    pending_bytes: Family<ShardLabel, Gauge>,
    /// Bytes handed to the log, for figures per operation.
    pub(crate) logged_bytes: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("catena");
        let sync_seconds = Histogram::new(exponential_buckets(50e-6, 2.0, 16));
        let sync_groups = Histogram::new(exponential_buckets(1.0, 2.0, 12));
        let (reads, writes) = (Counter::default(), Counter::default());
        let refusals = Family::<ReasonLabel, Counter>::default();
        let (log_bytes, connections) = (Gauge::default(), Gauge::default());
        registry.register_with_unit(
            "log_sync",
            "Time of one group sync of the log",
            Unit::Seconds,
            sync_seconds.clone(),
        );
        registry.register("log_sync_groups", "Groups in one sync", sync_groups.clone());
        registry.register("reads", "Reads answered", reads.clone());
        registry.register("writes", "Writes answered", writes.clone());
        registry.register("refusals", "Requests refused, by reason", refusals.clone());
        registry.register_with_unit(
            "log",
            "Size of the log on disk",
            Unit::Bytes,
            log_bytes.clone(),
        );
        let (config_version, config_effective_version) = (Gauge::default(), Gauge::default());
        let master_connected = Gauge::default();
        registry.register(
            "config_version",
            "Version of the cluster state that is accepted and persisted",
            config_version.clone(),
        );
        registry.register(
            "config_effective_version",
            "Version of the cluster state that is in force on every replica that it names",
            config_effective_version.clone(),
        );
        registry.register(
            "master_connected",
            "1 while a master's subscription is open",
            master_connected.clone(),
        );
        registry.register("connections", "Open client pipes", connections.clone());
        let mut by_shard = |name: &str, help: &str| {
            let family = Family::<ShardLabel, Gauge>::default();
            registry.register(name, help, family.clone());
            family
        };
        let last = by_shard("replica_last_seq", "End of the replica's log");
        let commit = by_shard("replica_commit_seq", "Commit point of the replica");
        let applied = by_shard("replica_applied_seq", "Position of the replica's state");
        let epoch = by_shard("replica_epoch", "Epoch in force on the replica");
        let in_sync = by_shard("replica_in_sync", "1 if the replica is in sync (rule S2)");
        let pending_bytes = by_shard("replica_pending_bytes", "Bytes logged and not yet applied");
        Self {
            registry: Mutex::new(registry),
            sync_seconds,
            sync_groups,
            reads,
            writes,
            refusals,
            log_bytes,
            connections,
            config_version,
            config_effective_version,
            master_connected,
            last,
            commit,
            applied,
            epoch,
            in_sync,
            pending_bytes,
            logged_bytes: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    pub(crate) fn refused(&self, reason: &'static str) {
        self.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn logged(&self, bytes: usize) {
        self.logged_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The node's metrics in the Prometheus text format.
pub(crate) fn render(shared: &Shared) -> String {
    let metrics = &shared.metrics;
    let shards: Vec<_> = shared.shards.read().values().cloned().collect();
    for shard in shards {
        let label = ShardLabel {
            shard: shard.id.get(),
        };
        let replica = shard.replica.read();
        let status = replica.status(clock::now());
        metrics
            .last
            .get_or_create(&label)
            .set(gauge(status.last.get()));
        metrics
            .commit
            .get_or_create(&label)
            .set(gauge(status.commit.get()));
        metrics
            .applied
            .get_or_create(&label)
            .set(gauge(status.applied.get()));
        let epoch = replica.chain().map_or(0, |c| c.epoch.get());
        metrics.epoch.get_or_create(&label).set(gauge(epoch));
        metrics
            .in_sync
            .get_or_create(&label)
            .set(i64::from(status.in_sync));
        metrics
            .pending_bytes
            .get_or_create(&label)
            .set(gauge(status.pending_bytes as u64));
    }
    metrics
        .connections
        .set(gauge(shared.connection_count() as u64));
    let version = shared.config().position.version;
    metrics.config_version.set(gauge(version.get()));
    let effective = report::effective(shared).version;
    metrics.config_effective_version.set(gauge(effective.get()));
    let connected = shared.master_connected.load(Ordering::Relaxed);
    metrics.master_connected.set(i64::from(connected));
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &metrics.registry.lock());
    text
}
