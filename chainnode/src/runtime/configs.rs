//! The cluster config of a node: its own disk first, then the snapshot store, then the master (DESIGN §4.2).
//!
//! What is kept here routes, addresses and settings; the epoch of a chain is
//! also kept beside the replica's data, and only that one counts (C1).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use catena_proto::config::{
    Acceptance, ChainPhase, ClusterConfig, ConfigError, ConfigPosition, Delta, DeltaItem,
};
use catena_proto::conversion::config::ParsedDelta;
use catena_proto::ids::ClusterId;
use catena_proto::report::ItemRefused;
use catena_proto::{limits, snapshot};
use parking_lot::Mutex;

use super::folder::replace;
use super::report::cut;
use super::shared::{Shared, Work};
use super::store::SnapshotStore;
use super::switch::Mode;
use crate::replica::Input;

/// How often the store is looked at while no master is connected, and while a shard is being created.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_CREATING_EVERY: Duration = Duration::from_millis(100);
/// A delta that makes the state inconsistent is taken apart to find the item; a larger one is refused as a whole.
const TAKEN_APART_ITEMS_MAX: usize = 1_000;

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
    let bytes = snapshot::encode(config);
    if bytes.len() > limits::CONFIG_BYTES_MAX {
        // It could never be read again.
        return Err(std::io::Error::other(format!(
            "it takes {} bytes; {} are allowed",
            bytes.len(),
            limits::CONFIG_BYTES_MAX
        )));
    }
    replace(folder, &snapshot::name(config.position), &bytes)?;
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

/// Why an offered config or delta was not taken; nothing has changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// It is no newer than what is held (C1: nothing goes back).
    #[error("generation {} version {} is older than generation {} version {}, which is held", offered.generation, offered.version, held.generation, held.version)]
    Older {
        /// What was offered.
        offered: ConfigPosition,
        /// What is held.
        held: ConfigPosition,
    },
    /// It makes no sense here: another cluster's, another base, or contradictory as a whole.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It cannot be persisted, so it may not be used.
    #[error("the config cannot be kept on disk, so it is not used: {0}")]
    Keep(std::io::Error),
    /// A test wants it refused.
    #[error("testing switch")]
    Switch,
}

/// Where configs are accepted: one place, whatever their source.
pub(crate) struct Acceptor {
    shared: Arc<Shared>,
    folder: PathBuf,
    /// One source at a time: between the check and the change nothing else comes (FAULTS 5).
    gate: Mutex<()>,
}

impl Acceptor {
    pub(crate) const fn new(shared: Arc<Shared>, folder: PathBuf) -> Self {
        Self {
            shared,
            folder,
            gate: Mutex::new(()),
        }
    }

    /// Takes a newer config: item by item, never backwards, persisted before it is used (C1). Blocks on the disk.
    ///
    /// # Errors
    /// [`AcceptError`]; what is held stays.
    pub(crate) fn accept(
        &self,
        offered: &ClusterConfig,
        source: &'static str,
    ) -> Result<(), AcceptError> {
        let _one_at_a_time = self.gate.lock();
        if !self.shared.switch.is_off() {
            return Err(AcceptError::Switch);
        }
        let held = self.shared.config();
        held.check_cluster(offered.cluster)?;
        if offered.position <= held.position {
            return Err(AcceptError::Older {
                offered: offered.position,
                held: held.position,
            });
        }
        let delta = held.delta_to(offered);
        let (next, verdicts) = judge(&held, &delta)?;
        for (item, verdict) in delta.items.iter().zip(verdicts) {
            match verdict {
                Ok(_) => {}
                // The replica decides about its own epoch; an older one here is no alarm.
                Err(ConfigError::StaleEpoch { .. }) => {}
                Err(why) => {
                    tracing::warn!(%why, source, "an item of a config is refused");
                    self.raise(item, &why);
                }
            }
        }
        self.adopt(next, source)
    }

    /// Takes a delta that a master pushed: each item by itself, persisted before it is used. Blocks on the disk.
    /// One that was taken before is acknowledged again (FAULTS 28). Returns what was refused.
    ///
    /// # Errors
    /// [`AcceptError`]: the delta as a whole; what is held stays.
    pub(crate) fn accept_delta(
        &self,
        pushed: &ParsedDelta,
    ) -> Result<Vec<ItemRefused>, AcceptError> {
        let delta = &pushed.delta;
        let _one_at_a_time = self.gate.lock();
        let held = self.shared.config();
        held.check_cluster(delta.cluster)?;
        let refused = |(index, why): &(usize, _)| ItemRefused {
            index: *index,
            reason: cut(format!("{why}")),
        };
        let mut outcome: Vec<ItemRefused> = pushed.refused.iter().map(refused).collect();
        if self.shared.switch.mode() == Mode::Nack {
            return Err(AcceptError::Switch);
        }
        if delta.to < held.position {
            return Err(AcceptError::Older {
                offered: delta.to,
                held: held.position,
            });
        }
        // One that begins where it ends says everything once more: what was refused before is judged anew.
        if delta.to == held.position && delta.base != held.position {
            return Ok(outcome);
        }
        let (next, verdicts) = judge(&held, delta)?;
        for ((index, item), verdict) in places(pushed).zip(&delta.items).zip(verdicts) {
            if let Err(why) = verdict {
                self.raise(item, &why);
                let reason = cut(why.to_string());
                outcome.push(ItemRefused { index, reason });
            }
        }
        outcome.sort_by_key(|refused| refused.index);
        for refused in &outcome {
            let ItemRefused { index, reason } = refused;
            tracing::warn!(index, reason, "an item of a push is refused");
        }
        if next == *held {
            // Nothing new; but a replica that does not follow the config is asked once more.
            if self.shared.switch.is_off() {
                self.shared.inbox.push(Work::Config(held));
            }
            return Ok(outcome);
        }
        self.adopt(next, "push")?;
        Ok(outcome)
    }

    /// C2: whoever offers it, the replica has to see a conflict, and stops.
    fn raise(&self, item: &DeltaItem, why: &ConfigError) {
        if let (DeltaItem::Chain(chain), ConfigError::Conflict { shard, .. }) = (item, why) {
            self.shared.inbox.push(Work::Input {
                shard: *shard,
                input: Input::Config(chain.clone()),
            });
        }
    }

    /// Persists, then uses.
    fn adopt(&self, next: ClusterConfig, source: &'static str) -> Result<(), AcceptError> {
        keep(&self.folder, &next).map_err(AcceptError::Keep)?;
        tracing::info!(version = %next.position.version, source, "config accepted");
        *self.shared.config_source.lock() = source;
        let next = Arc::new(next);
        *self.shared.config.write() = Arc::clone(&next);
        if self.shared.switch.is_off() {
            self.shared.inbox.push(Work::Config(next));
        }
        self.shared.changed.notify_one();
        Ok(())
    }

    /// While no master is connected, the store is the only source of newer configs: it is looked at slowly.
    pub(crate) async fn follow_store(self: Arc<Self>, store: SnapshotStore) {
        let mut said = false;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            let config = self.shared.config();
            let creating = config
                .chains
                .values()
                .any(|c| c.phase == ChainPhase::Creating);
            let young = creating || config.chains.is_empty();
            if !self.shared.master_connected.load(Ordering::Relaxed) {
                match self.read_store(&store).await {
                    Ok(_) => said = false,
                    Err(why) if !said => {
                        said = true;
                        tracing::warn!(why, "serving goes on with the config that is held");
                    }
                    Err(_) => {}
                }
            }
            let pause = match young {
                true => store.poll_every_min().max(POLL_CREATING_EVERY),
                false => POLL_EVERY,
            };
            self.shared.pause(pause).await;
        }
    }

    /// Looks for a newer config in the store, and takes it. True if there was one.
    ///
    /// # Errors
    /// In words: the store does not answer, or what it holds is not taken. No effect on serving.
    pub(crate) async fn read_store(
        self: &Arc<Self>,
        store: &SnapshotStore,
    ) -> Result<bool, String> {
        let held = self.shared.config().position;
        let found = store.newest(self.shared.me.cluster, held).await;
        match found.map_err(|why| why.to_string())? {
            None => Ok(false),
            Some(newer) => self.accept_off_the_runtime(newer, "snapshot").await,
        }
    }

    /// [`Acceptor::accept`], on a thread that may wait for the disk. True if it was taken.
    ///
    /// # Errors
    /// In words: why not. One that was overtaken meanwhile is no error.
    pub(crate) async fn accept_off_the_runtime(
        self: &Arc<Self>,
        offered: ClusterConfig,
        source: &'static str,
    ) -> Result<bool, String> {
        let acceptor = Arc::clone(self);
        let accepting = tokio::task::spawn_blocking(move || acceptor.accept(&offered, source));
        match accepting.await {
            Ok(Ok(())) => Ok(true),
            Ok(Err(AcceptError::Older { .. })) => Ok(false),
            Ok(Err(why)) => Err(why.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        }
    }
}

/// The places that the readable items of a push had among all its items.
fn places(pushed: &ParsedDelta) -> impl Iterator<Item = usize> + '_ {
    let unreadable = |place: &usize| pushed.refused.iter().any(|(refused, _)| refused == place);
    (0..).filter(move |place| !unreadable(place))
}

/// The state that a delta leads to, with a verdict an item. Each item is judged by itself, and what would make the
/// state contradictory is refused too: such a state could be kept, but never read again.
fn judge(
    held: &ClusterConfig,
    delta: &Delta,
) -> Result<(ClusterConfig, Vec<Result<Acceptance, ConfigError>>), ConfigError> {
    let mut next = held.clone();
    let verdicts = next.apply(delta)?;
    match next.check() {
        Ok(()) => return Ok((next, verdicts)),
        Err(why) if delta.items.len() > TAKEN_APART_ITEMS_MAX => return Err(why),
        Err(_) => {}
    }
    let mut next = held.clone();
    let one_by_one = delta.items.iter().map(|item| {
        let mut tried = next.clone();
        let accepted = tried.apply_item(item)?;
        tried.check()?;
        next = tried;
        Ok(accepted)
    });
    let verdicts = one_by_one.collect();
    next.position = delta.to;
    Ok((next, verdicts))
}
