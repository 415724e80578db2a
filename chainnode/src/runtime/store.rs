//! The snapshot store from a node's side: the highest snapshot that is whole and ours.

use std::sync::Arc;
use std::time::Duration;

use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::ids::ClusterId;
use catena_proto::snapshot;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

/// Snapshots that are tried, newest first, before a node gives up for this time.
const TRIED_MAX: usize = 8;

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is not one that this build can use.
    #[error("snapshot_store {url:?} is refused: {why}; this build reads file:///… stores")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// It did not answer, or not in a way that makes sense.
    #[error("the snapshot store does not answer: {0}")]
    Unreachable(#[from] object_store::Error),
}

/// A folder or a bucket with snapshots.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
    poll_every_min: Duration,
}

impl SnapshotStore {
    /// Opens the store at this address.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub(crate) fn open(url: &str) -> Result<Self, StoreError> {
        let refused = |why: String| StoreError::Url {
            url: url.to_owned(),
            why,
        };
        let parsed = url::Url::parse(url).map_err(|e| refused(e.to_string()))?;
        if parsed.scheme() != "file" {
            return Err(refused(format!(
                "the scheme `{}` is not known",
                parsed.scheme()
            )));
        }
        let path = parsed
            .to_file_path()
            .map_err(|()| refused("a folder is named by an absolute path".into()))?;
        std::fs::create_dir_all(&path).map_err(|e| refused(e.to_string()))?;
        let store = object_store::local::LocalFileSystem::new_with_prefix(path)
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            store: Arc::new(store),
            poll_every_min: Duration::ZERO,
        })
    }

    /// How often it may be looked at, at most: a folder costs nothing, a bucket is paid by the request.
    pub(crate) const fn poll_every_min(&self) -> Duration {
        self.poll_every_min
    }

    /// The newest snapshot after `known` that is whole and of this cluster. Bad ones are passed over, and said.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`]; no effect on serving.
    pub(crate) async fn newest(
        &self,
        cluster: ClusterId,
        known: Option<ConfigPosition>,
    ) -> Result<Option<ClusterConfig>, StoreError> {
        let objects: Vec<_> = self.store.list(None).try_collect().await?;
        let mut names: Vec<(ConfigPosition, Path)> = objects
            .into_iter()
            .filter_map(|o| Some((snapshot::position(o.location.filename()?)?, o.location)))
            .filter(|(position, _)| known.is_none_or(|known| *position > known))
            .collect();
        names.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (position, path) in names.into_iter().take(TRIED_MAX) {
            let bytes = self.store.get(&path).await?.bytes().await?;
            match snapshot::decode(&bytes, Some(cluster)) {
                Ok(config) if config.position == position => return Ok(Some(config)),
                Ok(_) => {
                    tracing::warn!(object = %path, "a snapshot is passed over: its name and contents differ")
                }
                Err(why) => tracing::warn!(object = %path, %why, "a snapshot is passed over"),
            }
        }
        Ok(None)
    }
}
