//! The cluster config of a node: its own disk first, then the snapshot store (DESIGN §4.2).
//!
//! What is kept here routes, addresses and settings; the epoch of a chain is
//! also kept beside the replica's data, and only that one counts (C1).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::{ChainPhase, ClusterConfig, ConfigError};
use catena_proto::ids::ClusterId;
use catena_proto::{limits, snapshot};

use super::folder::replace;
use super::shared::{Shared, Work};
use super::store::SnapshotStore;

/// How often the store is looked at while no master answers, and while a shard is being created.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_CREATING_EVERY: Duration = Duration::from_millis(100);

/// The newest config on the node's own disk that is whole; damaged ones are passed over, and said.
pub(crate) fn newest_on_disk(folder: &Path, cluster: ClusterId) -> Option<ClusterConfig> {
    for name in kept(folder).into_iter().rev() {
        let Ok(bytes) = std::fs::read(folder.join(&name)) else {
            continue;
        };
        match snapshot::decode(&bytes.into(), Some(cluster)) {
            Ok(config) => return Some(config),
            Err(why) => tracing::warn!(name, %why, "a kept config is passed over"),
        }
    }
    None
}

/// Names of the kept configs, oldest first.
fn kept(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| snapshot::position(name).is_some())
        .collect();
    names.sort();
    names
}

/// Persists a config, and keeps the last few.
fn keep(folder: &Path, config: &ClusterConfig) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    replace(
        folder,
        &snapshot::name(config.position),
        &snapshot::encode(config),
    )?;
    let names = kept(folder);
    for old in names
        .iter()
        .take(names.len().saturating_sub(limits::CONFIGS_KEPT))
    {
        // An old copy that stays does no harm.
        let _ = std::fs::remove_file(folder.join(old));
    }
    Ok(())
}

/// Where configs are accepted: one place, whatever their source.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    folder: PathBuf,
}

impl Acceptor {
    pub(crate) const fn new(shared: Arc<Shared>, folder: PathBuf) -> Self {
        Self { shared, folder }
    }

    /// Takes a newer config: item by item, never backwards, persisted before it is used (C1).
    pub(crate) fn accept(&self, offered: &ClusterConfig, source: &'static str) {
        let held = self.shared.config();
        if let Err(why) = held.check_cluster(offered.cluster) {
            tracing::warn!(%why, source, "a config is refused");
            return;
        }
        if offered.position <= held.position {
            return;
        }
        let mut next = (*held).clone();
        let delta = held.delta_to(offered);
        match next.apply(&delta) {
            Err(why) => {
                tracing::warn!(%why, source, "a config is refused");
                return;
            }
            Ok(verdicts) => {
                for refused in verdicts.into_iter().filter_map(Result::err) {
                    // The replica decides about its own epoch; an older one here is no alarm.
                    match refused {
                        ConfigError::StaleEpoch { .. } => {}
                        why => tracing::warn!(%why, source, "an item of a config is refused"),
                    }
                }
            }
        }
        if let Err(why) = keep(&self.folder, &next) {
            tracing::error!(%why, "a config cannot be kept; it is not used");
            return;
        }
        tracing::info!(version = %next.position.version, source, "config accepted");
        *self.shared.config_source.lock() = source;
        let next = Arc::new(next);
        *self.shared.config.write() = Arc::clone(&next);
        self.shared.inbox.push(Work::Config(next));
    }

    /// While no master answers, the store is the only source of newer configs: it is looked at slowly.
    pub(crate) async fn follow_store(self, store: SnapshotStore) {
        let mut said = false;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let config = self.shared.config();
            match store
                .newest(self.shared.me.cluster, Some(config.position))
                .await
            {
                Ok(Some(newer)) => self.accept(&newer, "snapshot"),
                Ok(None) => said = false,
                Err(why) if !said => {
                    said = true;
                    tracing::warn!(%why, "serving goes on with the config that is held");
                }
                Err(_) => {}
            }
            let creating = config
                .chains
                .values()
                .any(|c| c.phase == ChainPhase::Creating);
            let young = creating || config.chains.is_empty();
            let pause = if young {
                POLL_CREATING_EVERY
            } else {
                POLL_EVERY
            };
            self.shared.pause(pause).await;
        }
    }
}
