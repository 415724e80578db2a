//! The ways between the newest cluster states: what a node that is behind is brought along with.

use std::collections::{BTreeMap, VecDeque};

use catena_proto::config::{ConfigPosition, Delta, DeltaItem};
use serde::{Deserialize, Serialize};

/// Deltas kept even when a stored snapshot covers them: a node that was away for a while still needs no snapshot.
pub const HISTORY_DELTAS_KEPT: usize = 1_000;
/// Deltas kept at most. Beyond [`HISTORY_DELTAS_KEPT`] only what a stored snapshot covers is dropped, since otherwise a
/// node behind the gap could be told nothing but the whole state; but a store that is down for this many changes must
/// not fill the masters' memory, and such a node can still fetch.
pub const HISTORY_DELTAS_MAX: usize = 10_000;

/// The deltas of the newest changes, oldest first; each starts where the one before ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    deltas: VecDeque<Delta>,
    /// The newest state that is safe in the snapshot store.
    stored: ConfigPosition,
}

impl History {
    pub(super) const fn stored(&self) -> ConfigPosition {
        self.stored
    }

    pub(super) fn push(&mut self, delta: Delta) {
        assert!(
            self.deltas.back().is_none_or(|last| last.to == delta.base),
            "the history has no gap: {:?} is followed by {:?}",
            self.deltas.back().map(|last| last.to),
            delta.base
        );
        self.deltas.push_back(delta);
        self.trim();
    }

    /// A snapshot of `position` is safe. False if nothing changed.
    pub(super) fn store(&mut self, position: ConfigPosition) -> bool {
        if position <= self.stored {
            return false;
        }
        self.stored = position;
        self.trim();
        true
    }

    fn trim(&mut self) {
        while self.deltas.len() > HISTORY_DELTAS_KEPT {
            let covered = self.deltas.front().is_some_and(|d| d.to <= self.stored);
            if !covered && self.deltas.len() <= HISTORY_DELTAS_MAX {
                return;
            }
            self.deltas.pop_front();
        }
    }

    /// The way from `held` to the newest state in one delta; `None` if `held` is none of the states that this reaches.
    pub(super) fn since(&self, held: ConfigPosition) -> Option<Delta> {
        let first = self.deltas.iter().position(|d| d.base == held)?;
        let last = self.deltas.back()?;
        let mut merged = Merged::default();
        for item in self.deltas.range(first..).flat_map(|d| &d.items) {
            merged.add(item);
        }
        Some(Delta {
            cluster: last.cluster,
            base: held,
            to: last.to,
            items: merged.into_items(),
        })
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.deltas.len()
    }
}

/// Of each thing the newest item: items are whole values, so the last one alone counts.
#[derive(Default)]
struct Merged {
    chains: BTreeMap<u64, DeltaItem>,
    learners: BTreeMap<u64, DeltaItem>,
    nodes: BTreeMap<u64, DeltaItem>,
    settings: Option<DeltaItem>,
}

impl Merged {
    fn add(&mut self, item: &DeltaItem) {
        let newest = item.clone();
        match item {
            DeltaItem::Chain(chain) => self.chains.insert(chain.shard.get(), newest),
            DeltaItem::Learners(shard, _) => self.learners.insert(shard.get(), newest),
            DeltaItem::Node(info) => self.nodes.insert(info.node.get(), newest),
            DeltaItem::NodeForgotten(node) => self.nodes.insert(node.get(), newest),
            DeltaItem::Settings(_) => self.settings.replace(newest),
        };
    }

    /// Chains first, settings last (DESIGN §4.2).
    fn into_items(self) -> Vec<DeltaItem> {
        let maps = [self.chains, self.learners, self.nodes];
        maps.into_iter()
            .flat_map(BTreeMap::into_values)
            .chain(self.settings)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use catena_proto::config::Settings;
    use catena_proto::ids::{ClusterId, ConfigVersion, Generation};

    use super::*;

    fn at(version: usize) -> ConfigPosition {
        ConfigPosition {
            generation: Generation::new(1),
            version: ConfigVersion::new(version as u64),
        }
    }

    fn history(deltas: usize) -> History {
        let mut history = History::default();
        for version in 0..deltas {
            history.push(Delta {
                cluster: ClusterId::new(1),
                base: at(version),
                to: at(version + 1),
                items: vec![DeltaItem::Settings(Settings::default())],
            });
        }
        history
    }

    #[test]
    fn nothing_is_dropped_that_no_snapshot_covers() {
        let mut history = history(HISTORY_DELTAS_KEPT + 500);
        assert_eq!(history.len(), HISTORY_DELTAS_KEPT + 500);
        assert!(history.since(at(0)).is_some());
        assert!(history.store(at(200)));
        assert_eq!(history.len(), HISTORY_DELTAS_KEPT + 300);
        assert!(history.since(at(199)).is_none());
        assert!(history.since(at(200)).is_some());
        assert!(!history.store(at(100)), "an older snapshot changes nothing");
        assert!(history.store(at(HISTORY_DELTAS_KEPT + 500)));
        assert_eq!(history.len(), HISTORY_DELTAS_KEPT);
    }

    #[test]
    fn the_hard_bound_holds_without_any_snapshot() {
        let history = history(HISTORY_DELTAS_MAX + 7);
        assert_eq!(history.len(), HISTORY_DELTAS_MAX);
        assert!(history.since(at(7)).is_some());
        assert!(history.since(at(6)).is_none());
    }

    #[test]
    fn a_merged_delta_names_each_thing_once() {
        let merged = history(5).since(at(1)).expect("in the history");
        assert_eq!((merged.base, merged.to), (at(1), at(5)));
        assert_eq!(merged.items.len(), 1);
    }
}
