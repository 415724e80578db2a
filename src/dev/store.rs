//! The snapshot store of a local cluster: where its nodes look for the cluster's state.
//!
//! A state is a new object under a name that orders it, created only if absent,
//! so that a reader never sees half of one and no two writers share one.

use catena_proto::config::ClusterConfig;
use catena_proto::ids::ClusterId;
use catena_proto::snapshot;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::layout::Layout;
use crate::exit::Failure;

/// The store as nodes are told of it.
pub(crate) fn url(layout: &Layout) -> String {
    let path = layout.store_dir();
    let mut url = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'~' => url.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(*byte)),
            byte => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url
}

/// Makes the store's folder, where it is not there.
pub(crate) fn make(layout: &Layout) -> Result<(), Failure> {
    let made = std::fs::create_dir_all(layout.store_dir());
    made.map_err(|why| failed("making the store", layout, &why))
}

/// Adds a state.
pub(crate) async fn write(layout: &Layout, config: &ClusterConfig) -> Result<(), Failure> {
    let name = Path::from(snapshot::name(config.position));
    let content = PutPayload::from_bytes(snapshot::encode(config));
    let options = PutOptions::from(PutMode::Create);
    match open(layout)?.put_opts(&name, content, options).await {
        // An earlier start wrote it and ended before it was in force; a state is decided by the one before it.
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(why) => Err(failed("writing the cluster's state", layout, &why)),
    }
}

/// The newest state that is whole and of this cluster.
pub(crate) async fn newest(layout: &Layout, cluster: ClusterId) -> Result<ClusterConfig, Failure> {
    let what = "reading the cluster's state";
    let store = open(layout)?;
    let objects = store.list_with_delimiter(None).await;
    let objects = objects.map_err(|why| failed(what, layout, &why))?.objects;
    let mut found: Vec<_> = objects
        .into_iter()
        .filter_map(|object| Some((snapshot::position(object.location.filename()?)?, object)))
        .collect();
    found.sort_by_key(|(position, _)| std::cmp::Reverse(*position));
    let mut last = None;
    for (_, object) in found {
        let read = async { store.get(&object.location).await?.bytes().await };
        let bytes = read.await.map_err(|why| failed(what, layout, &why))?;
        match snapshot::decode(&bytes, Some(cluster)) {
            Ok(config) => return Ok(config),
            Err(why) => last = Some(format!("{}: {why}", object.location)),
        }
    }
    let why = last.unwrap_or_else(|| "there is none".into());
    Err(failed(what, layout, &why))
}

fn open(layout: &Layout) -> Result<LocalFileSystem, Failure> {
    make(layout)?;
    LocalFileSystem::new_with_prefix(layout.store_dir())
        .map_err(|why| failed("opening the store", layout, &why))
}

fn failed(what: &str, layout: &Layout, why: &dyn std::fmt::Display) -> Failure {
    Failure::local(
        format!("{what} in {}", layout.store_dir().display()),
        why,
        "bring the folder back as it was, or name another one with --dir",
    )
}

#[cfg(test)]
mod tests {
    use catena_proto::ids::ConfigVersion;

    use super::*;

    fn config(version: u64) -> ClusterConfig {
        let mut config = ClusterConfig::empty(ClusterId::new(7));
        config.position.version = ConfigVersion::new(version);
        config
    }

    #[tokio::test]
    async fn the_newest_state_that_is_whole_and_ours_counts() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(Some(dir.path())).expect("opened");
        assert!(newest(&layout, ClusterId::new(7)).await.is_err());
        for version in [1, 2, 10] {
            write(&layout, &config(version)).await.expect("written");
        }
        let found = newest(&layout, ClusterId::new(7)).await.expect("found");
        assert_eq!(found, config(10));

        let name = snapshot::name(config(10).position);
        std::fs::write(layout.store_dir().join(name), b"CATSNAP half").expect("damaged");
        let found = newest(&layout, ClusterId::new(7)).await.expect("found");
        assert_eq!(found, config(2));
        assert!(newest(&layout, ClusterId::new(8)).await.is_err());
    }

    #[tokio::test]
    async fn a_state_once_written_is_never_replaced() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(Some(dir.path())).expect("opened");
        write(&layout, &config(1)).await.expect("written");
        let mut other = config(1);
        other.settings.lease_ms += 1;
        write(&layout, &other).await.expect("left alone");
        let found = newest(&layout, ClusterId::new(7)).await.expect("found");
        assert_eq!(found, config(1));
    }

    #[test]
    fn an_odd_path_survives_as_a_url() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(Some(&dir.path().join("a b%"))).expect("opened");
        assert!(
            url(&layout).ends_with("/a%20b%25/store"),
            "{}",
            url(&layout)
        );
    }
}
