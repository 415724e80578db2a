//! The snapshot store from a node's side: the highest snapshot that is whole and ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::ids::ClusterId;
use catena_proto::{limits, snapshot};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};

/// Snapshots that are tried, newest first, before a node gives up for this time.
const TRIED_MAX: usize = 8;
/// Longest look at the store: one that is slow is as good as one that is down.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// A bucket is paid by the request, and a fleet that waits for its first config asks all at once.
const POLL_BUCKET_EVERY: Duration = Duration::from_secs(1);
/// The schemes of buckets; this build reads them if it has the feature `clouds`.
const BUCKETS: [&str; 3] = ["s3", "az", "gs"];

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address is not one that this build can use.
    #[error("snapshot_store {url:?} is refused: {why}")]
    Url {
        /// The address.
        url: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// It did not answer, or not in a way that makes sense.
    #[error("the snapshot store does not answer: {0}")]
    Unreachable(#[from] object_store::Error),
    /// It did not answer in time.
    #[error("the snapshot store did not answer within {READ_WITHIN:?}")]
    Slow,
}

/// A folder or a bucket with snapshots.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotStore {
    store: Arc<dyn ObjectStore>,
    poll_every_min: Duration,
}

impl SnapshotStore {
    /// Opens the store at this address: `file:///folder`, or, in a build with the feature `clouds`,
    /// `s3://bucket/prefix`, `az://container/prefix`, `gs://bucket/prefix` with the cloud's usual variables.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub(crate) fn open(url: &str) -> Result<Self, StoreError> {
        let refused = |why: String| StoreError::Url {
            url: url.to_owned(),
            why,
        };
        let parsed = url::Url::parse(url).map_err(|e| refused(e.to_string()))?;
        if parsed.scheme() == "file" {
            let path = parsed
                .to_file_path()
                .map_err(|()| refused("a folder is named by an absolute path".into()))?;
            std::fs::create_dir_all(&path).map_err(|e| refused(e.to_string()))?;
            let store = object_store::local::LocalFileSystem::new_with_prefix(path)
                .map_err(|e| refused(e.to_string()))?;
            return Ok(Self {
                store: Arc::new(store),
                poll_every_min: Duration::ZERO,
            });
        }
        if !BUCKETS.contains(&parsed.scheme()) {
            let scheme = parsed.scheme();
            let known = "name it as file:///…, s3://…, az://… or gs://…";
            return Err(refused(format!(
                "the scheme `{scheme}` is not known: {known}"
            )));
        }
        if !cfg!(feature = "clouds") {
            let why = "this build reads folders only: name a file:///… store, or build with `--features clouds`";
            return Err(refused(why.into()));
        }
        let (store, prefix) = object_store::parse_url_opts(&parsed, std::env::vars())
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            store: Arc::new(PrefixStore::new(store, prefix)),
            poll_every_min: POLL_BUCKET_EVERY,
        })
    }

    /// How often it may be looked at, at most: a folder costs nothing.
    pub(crate) const fn poll_every_min(&self) -> Duration {
        self.poll_every_min
    }

    /// The newest snapshot after `known` that is whole and of this cluster. Bad ones are passed over, and said.
    ///
    /// # Errors
    /// [`StoreError::Unreachable`] and [`StoreError::Slow`]; no effect on serving.
    pub(crate) async fn newest(
        &self,
        cluster: ClusterId,
        known: ConfigPosition,
    ) -> Result<Option<ClusterConfig>, StoreError> {
        match tokio::time::timeout(READ_WITHIN, self.read(cluster, known)).await {
            Ok(found) => found,
            Err(_) => Err(StoreError::Slow),
        }
    }

    async fn read(
        &self,
        cluster: ClusterId,
        known: ConfigPosition,
    ) -> Result<Option<ClusterConfig>, StoreError> {
        let mut missed = None;
        for (position, path) in self.names(known).await?.into_iter().rev() {
            let bytes = match self.store.get(&path).await {
                Ok(object) if object.meta.size > limits::CONFIG_BYTES_MAX as u64 => {
                    tracing::warn!(object = %path, size = object.meta.size, "a snapshot is passed over: it is too large");
                    continue;
                }
                Ok(object) => object.bytes().await,
                Err(why) => Err(why),
            };
            // One that was thinned out meanwhile, or cannot be read, says nothing about the others.
            let bytes = match bytes {
                Ok(bytes) => bytes,
                Err(why) => {
                    missed = Some(why);
                    continue;
                }
            };
            match snapshot::decode(&bytes, Some(cluster)) {
                Ok(config) if config.position == position => return Ok(Some(config)),
                Ok(_) => {
                    tracing::warn!(object = %path, "a snapshot is passed over: its name and contents differ");
                }
                Err(why) => tracing::warn!(object = %path, %why, "a snapshot is passed over"),
            }
        }
        missed.map_or(Ok(None), |why| Err(why.into()))
    }

    /// The newest few objects that are named as snapshots after `known`, whatever else is in the store.
    async fn names(
        &self,
        known: ConfigPosition,
    ) -> Result<BTreeMap<ConfigPosition, Path>, StoreError> {
        let mut newest = BTreeMap::new();
        let mut objects = self.store.list(None);
        while let Some(object) = objects.try_next().await? {
            let position = object.location.filename().and_then(snapshot::position);
            if let Some(position) = position.filter(|position| *position > known) {
                newest.insert(position, object.location);
                if newest.len() > TRIED_MAX {
                    newest.pop_first();
                }
            }
        }
        Ok(newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::{ConfigVersion, Generation};

    const CLUSTER: ClusterId = ClusterId::new(7);

    fn config(version: u64) -> ClusterConfig {
        let mut config = ClusterConfig::empty(CLUSTER);
        config.position = ConfigPosition {
            generation: Generation::ZERO,
            version: ConfigVersion::new(version),
        };
        config
    }

    #[tokio::test]
    async fn the_newest_whole_snapshot_of_this_cluster_is_found_among_garbage() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = SnapshotStore::open(&format!("file://{}", dir.path().display()));
        let store = store.expect("opened");
        let put = |config: &ClusterConfig, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = snapshot::encode(config).to_vec();
            change(&mut bytes);
            std::fs::write(dir.path().join(snapshot::name(config.position)), bytes)
                .expect("written");
        };
        let known = ConfigPosition::default();
        assert_eq!(store.newest(CLUSTER, known).await.expect("read"), None);
        put(&config(1), &|_| ());
        put(&config(2), &|_| ());
        put(&config(3), &|bytes| bytes[20] ^= 1);
        put(&config(4), &|bytes| bytes.truncate(9));
        let mut foreign = config(5);
        foreign.cluster = ClusterId::new(8);
        put(&foreign, &|_| ());
        std::fs::write(dir.path().join("snapshot-nonsense"), b"x").expect("written");
        std::fs::write(dir.path().join(snapshot::name(config(6).position)), b"").expect("written");
        let found = store.newest(CLUSTER, known).await.expect("read");
        assert_eq!(found, Some(config(2)));
        let newer = store.newest(CLUSTER, config(2).position).await;
        assert_eq!(newer.expect("read"), None, "nothing goes back");
    }

    #[test]
    fn an_address_that_this_build_cannot_use_is_refused_with_the_mend() {
        for (url, mend) in [
            ("s3://bucket/catena", "clouds"),
            ("ftp://x/y", "file:///"),
            ("nonsense", "relative URL"),
        ] {
            if cfg!(feature = "clouds") && url.starts_with("s3") {
                continue;
            }
            let refused = SnapshotStore::open(url).expect_err("refused").to_string();
            assert!(refused.contains(mend), "{refused}");
        }
    }
}
