//! The snapshot store: production objects in a list that may be away, emptied, put back, or filled with garbage.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::ids::ClusterId;
use catena_proto::snapshot;

/// Objects that are kept; older ones are thinned.
const KEPT_MAX: usize = 6;

/// Objects by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    objects: BTreeMap<String, Bytes>,
    /// It does not answer.
    pub(super) down: bool,
}

impl Store {
    /// Create-if-absent; false if the store does not answer.
    pub(super) fn write(&mut self, config: &ClusterConfig) -> bool {
        if self.down {
            return false;
        }
        let name = snapshot::name(config.position);
        self.objects
            .entry(name)
            .or_insert_with(|| snapshot::encode(config));
        while self.objects.len() > KEPT_MAX {
            self.objects.pop_first();
        }
        true
    }

    /// The highest object that is whole and of this cluster, if it is newer than `held`.
    pub(super) fn newest(&self, cluster: ClusterId, held: ConfigPosition) -> Option<ClusterConfig> {
        let objects = self.objects.iter().rev().filter(|_| !self.down);
        objects
            .filter(|(name, _)| snapshot::position(name).is_some_and(|at| at > held))
            .find_map(|(_, bytes)| snapshot::decode(bytes, Some(cluster)).ok())
    }

    /// The highest whole object, however old.
    pub(super) fn any(&self, cluster: ClusterId) -> Option<ClusterConfig> {
        let objects = self.objects.values().rev().filter(|_| !self.down);
        objects
            .filter_map(|bytes| snapshot::decode(bytes, Some(cluster)).ok())
            .next()
    }

    pub(super) fn empty(&mut self) {
        self.objects.clear();
    }

    /// Replaced by an older copy of itself.
    pub(super) fn roll_back(&mut self) {
        while self.objects.len() > 1 {
            self.objects.pop_last();
        }
    }

    /// Damaged objects under names beyond every real one, and one of another cluster.
    pub(super) fn fill_with_garbage(&mut self) {
        for bytes in self.objects.values_mut() {
            let mut bad = bytes.to_vec();
            if let Some(last) = bad.last_mut() {
                *last ^= 0x55;
            }
            *bytes = bad.into();
        }
        let mut far = ClusterConfig::empty(ClusterId::new(0xbad));
        far.position.generation = catena_proto::ids::Generation::new(9);
        let name = snapshot::name(far.position);
        self.objects.insert(name, snapshot::encode(&far));
    }
}
