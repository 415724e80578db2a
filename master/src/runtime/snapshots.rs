//! The snapshot store from the master's side: the whole state, written at a fixed pace (DESIGN §4.2).
//!
//! The pace does not depend on how much changes: constant work. Each position
//! is an object of its own, made with create-if-absent; an object of ours that is
//! not whole any more is written again. The store being away harms nothing but
//! first boots of new nodes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::snapshot;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

/// The whole state is written this often (DESIGN §4.5): a node that boots from it is behind by little, which a
/// delta makes up, and a write of a few MiB every ten seconds is nothing to any store.
pub(crate) const WRITE_EVERY: Duration = Duration::from_secs(10);
/// A write that takes longer has failed.
const WRITE_WITHIN: Duration = Duration::from_secs(8);
/// So many objects stay: the newest, and some to fall back to when it is damaged.
const KEPT: usize = 20;
/// The schemes of buckets; this build writes them if it has the feature `clouds` (decision 017).
const BUCKETS: [&str; 3] = ["s3", "az", "gs"];
/// Old objects that one pass removes at most.
const REMOVED_AT_ONCE: usize = 100;

/// Why a snapshot was not written.
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
    #[error(
        "the snapshot store cannot be written: {0}; serving goes on, new nodes boot from a master"
    )]
    Unreachable(#[from] object_store::Error),
    /// It did not answer in time.
    #[error("the snapshot store did not answer within {WRITE_WITHIN:?}; serving goes on")]
    Slow,
}

/// A folder or a bucket that snapshots go to.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    store: Arc<dyn ObjectStore>,
}

impl Snapshots {
    /// Opens the store at this address.
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
            let why = "this build writes folders only: name a file:///… store, or build with `--features clouds`";
            return Err(refused(why.into()));
        }
        let (store, prefix) = object_store::parse_url_opts(&parsed, std::env::vars())
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            store: Arc::new(PrefixStore::new(store, prefix)),
        })
    }

    /// Writes the state, unless its object is there and whole; then removes what is too old.
    pub(crate) async fn write(&self, config: &ClusterConfig) -> Result<(), StoreError> {
        let written = tokio::time::timeout(WRITE_WITHIN, async {
            self.put(config).await?;
            self.thin(config.position).await
        });
        match written.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(StoreError::Slow),
        }
    }

    async fn put(&self, config: &ClusterConfig) -> object_store::Result<()> {
        let path = Path::from(snapshot::name(config.position));
        let bytes = snapshot::encode(config);
        let create = PutOptions::from(PutMode::Create);
        match self
            .store
            .put_opts(&path, bytes.clone().into(), create)
            .await
        {
            Err(object_store::Error::AlreadyExists { .. }) => {}
            written => return written.map(drop),
        }
        // It was written before: by us, by the leader before us, or it is something else under this name.
        let there: Bytes = self.store.get(&path).await?.bytes().await?;
        let whole = snapshot::decode(&there, Some(config.cluster))
            .is_ok_and(|held| held.position == config.position);
        if !whole {
            tracing::warn!(object = %path, "a snapshot was damaged in the store: it is written again");
            self.store.put(&path, bytes.into()).await?;
        }
        Ok(())
    }

    /// Removes all but the newest objects up to `newest`; those above it are not ours to judge.
    async fn thin(&self, newest: ConfigPosition) -> object_store::Result<()> {
        let objects: Vec<_> = self.store.list(None).try_collect().await?;
        let mut ours: Vec<(ConfigPosition, Path)> = objects
            .into_iter()
            .filter_map(|o| Some((snapshot::position(o.location.filename()?)?, o.location)))
            .filter(|(position, _)| *position <= newest)
            .collect();
        ours.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
        for (_, path) in ours.into_iter().skip(KEPT).take(REMOVED_AT_ONCE) {
            self.store.delete(&path).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catena_proto::ids::{ClusterId, ConfigVersion, Generation};

    fn config(version: u64) -> ClusterConfig {
        let mut config = ClusterConfig::empty(ClusterId::new(7));
        config.position = ConfigPosition {
            generation: Generation::ZERO,
            version: ConfigVersion::new(version),
        };
        config
    }

    fn store(folder: &std::path::Path) -> Snapshots {
        let url = url::Url::from_directory_path(folder).expect("an absolute path");
        Snapshots::open(url.as_str()).expect("a folder that is there")
    }

    #[tokio::test]
    async fn a_damaged_object_is_written_again_and_old_ones_go() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = store(folder.path());
        for version in 1..=30 {
            store.write(&config(version)).await.expect("written");
        }
        let name = snapshot::name(config(30).position);
        std::fs::write(folder.path().join(&name), b"garbage").expect("damaged");
        store.write(&config(30)).await.expect("written again");
        let bytes = std::fs::read(folder.path().join(&name)).expect("there");
        let held = snapshot::decode(&bytes.into(), Some(ClusterId::new(7)));
        assert_eq!(held, Ok(config(30)));
        let kept = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(kept, KEPT);
    }

    #[tokio::test]
    async fn a_removed_store_is_made_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let below = folder.path().join("store");
        std::fs::create_dir(&below).expect("made");
        let store = store(&below);
        store.write(&config(1)).await.expect("written");
        std::fs::remove_dir_all(&below).expect("removed");
        store.write(&config(2)).await.expect("written anew");
        assert!(below.join(snapshot::name(config(2).position)).exists());
    }

    #[test]
    fn other_schemes_are_refused_by_name() {
        let refused = Snapshots::open("ftp://x/y").expect_err("refused");
        assert!(refused.to_string().contains("ftp"), "{refused}");
    }
}
