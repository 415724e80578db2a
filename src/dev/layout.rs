//! The folder of a local cluster: what lies where, and whether it is ours to use.
//!
//! ```text
//! DIR/cluster.json   ids, addresses and engine; written last, so that it marks a folder that is whole
//! DIR/lock           held while a `catena dev` runs on the folder
//! DIR/settings.toml  the settings that the cluster was made with, if any were named
//! DIR/store/         the snapshot store
//! DIR/master-N/      the data folder of master N, and DIR/master-N.log what it says
//! DIR/node-N/        the data folder of node N
//! DIR/node-N.log     what node N says
//! ```

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use catena_proto::ids::ClusterId;
use serde::{Deserialize, Serialize};

use crate::exit::Failure;

/// What has to stay the same from one start of a local cluster to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClusterFile {
    /// The cluster's name.
    pub(crate) cluster_id: ClusterId,
    /// What keeps the nodes' states on disk.
    pub(crate) engine: String,
    /// Its masters, in the order of their ids; none in a cluster that was made without.
    #[serde(default)]
    pub(crate) masters: Vec<NodeEntry>,
    /// Its nodes, in the order of their ids.
    pub(crate) nodes: Vec<NodeEntry>,
    /// What the masters make the cluster from, until it is made. From then on a master whose folder was emptied
    /// does not start: it would vote again on what it has voted on before.
    #[serde(default)]
    pub(crate) to_bootstrap: Option<BootstrapEntry>,
}

/// How the masters shall make the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BootstrapEntry {
    /// Members of each chain.
    pub(crate) replicas: u32,
    /// Where one shard ends and the next begins.
    pub(crate) split_keys: Vec<String>,
    /// Whether `settings.toml` is there.
    pub(crate) settings: bool,
}

/// A node or master and its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    /// Its id.
    pub(crate) id: u64,
    /// Its gRPC address.
    pub(crate) addr: SocketAddr,
    /// Its HTTP address.
    pub(crate) http: SocketAddr,
}

/// The folder of a local cluster, locked.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: PathBuf,
    /// Closed when the process ends, however it ends; that is what gives the lock back.
    _lock: File,
    /// A temporary folder is removed when this is dropped.
    temporary: Option<tempfile::TempDir>,
}

impl Layout {
    /// Takes the folder `dir`, or a temporary one.
    pub(crate) fn open(dir: Option<&Path>) -> Result<Self, Failure> {
        let what = |dir: &Path| format!("using the folder {}", dir.display());
        let failed = |dir: &Path, why: &dyn std::fmt::Display| {
            Failure::local(
                what(dir),
                why,
                "name a folder that can be written to with --dir",
            )
        };
        let (dir, temporary) = match dir {
            Some(dir) => (dir.to_owned(), None),
            None => {
                let made = tempfile::Builder::new().prefix("catena-dev-").tempdir();
                let made = made.map_err(|why| failed(&std::env::temp_dir(), &why))?;
                (made.path().to_owned(), Some(made))
            }
        };
        std::fs::create_dir_all(&dir).map_err(|why| failed(&dir, &why))?;
        // The daemons get absolute paths, so that their command lines work from anywhere.
        let dir = dir.canonicalize().map_err(|why| failed(&dir, &why))?;
        let lock = File::create(dir.join("lock")).map_err(|why| failed(&dir, &why))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                dir,
                _lock: lock,
                temporary,
            }),
            Err(TryLockError::Error(why)) => Err(failed(&dir, &why)),
            Err(TryLockError::WouldBlock) => Err(Failure::local(
                what(&dir),
                "another `catena dev` runs on it",
                "stop that one, or name another folder",
            )),
        }
    }

    /// Whether the folder goes away at exit.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The data folder of a node.
    pub(crate) fn node_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}"))
    }

    /// Where a node's words go.
    pub(crate) fn node_log(&self, id: u64) -> PathBuf {
        self.dir.join(format!("node-{id}.log"))
    }

    /// The data folder of a master.
    pub(crate) fn master_dir(&self, id: u64) -> PathBuf {
        self.dir.join(format!("master-{id}"))
    }

    /// Where a master's words go.
    pub(crate) fn master_log(&self, id: u64) -> PathBuf {
        self.dir.join(format!("master-{id}.log"))
    }

    /// The settings that the cluster was made with.
    pub(crate) fn settings_file(&self) -> PathBuf {
        self.dir.join("settings.toml")
    }

    /// The snapshot store's folder.
    pub(crate) fn store_dir(&self) -> PathBuf {
        self.dir.join("store")
    }

    /// The cluster that the folder holds, if one was made here.
    pub(crate) fn cluster(&self) -> Result<Option<ClusterFile>, Failure> {
        let path = self.dir.join("cluster.json");
        let failed = |why: &dyn std::fmt::Display| {
            Failure::local(
                format!("reading {}", path.display()),
                why,
                "name the folder of a local cluster, or a new one, with --dir",
            )
        };
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|why| failed(&why)),
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(failed(&why)),
            Err(_) if self.is_new()? => Ok(None),
            Err(_) => Err(failed(
                &"the folder has other things in it, or making a cluster in it was interrupted",
            )),
        }
    }

    fn is_new(&self) -> Result<bool, Failure> {
        let entries = std::fs::read_dir(&self.dir).map_err(|why| {
            Failure::local(
                format!("reading {}", self.dir.display()),
                why,
                "check its permissions",
            )
        })?;
        Ok(entries.flatten().all(|entry| entry.file_name() == "lock"))
    }

    /// Marks the folder as whole.
    pub(crate) fn write_cluster(&self, cluster: &ClusterFile) -> Result<(), Failure> {
        write_whole(&self.dir.join("cluster.json"), cluster)
    }
}

/// Writes JSON to a file that is whole whenever it is there: written beside it, synced, then renamed.
pub(crate) fn write_whole(path: &Path, content: &impl Serialize) -> Result<(), Failure> {
    let write = || -> std::io::Result<()> {
        let mut text = serde_json::to_vec_pretty(content)?;
        text.push(b'\n');
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let mut file = File::create(&beside)?;
        std::io::Write::write_all(&mut file, &text)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|why| {
        Failure::local(
            format!("writing {}", path.display()),
            why,
            "check that its folder exists and can be written to",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> ClusterFile {
        ClusterFile {
            cluster_id: ClusterId::new(7),
            engine: "memory".into(),
            masters: Vec::new(),
            to_bootstrap: None,
            nodes: vec![NodeEntry {
                id: 1,
                addr: SocketAddr::from(([127, 0, 0, 1], 1)),
                http: SocketAddr::from(([127, 0, 0, 1], 2)),
            }],
        }
    }

    #[test]
    fn a_new_folder_remembers_its_cluster() {
        let dir = tempfile::tempdir().expect("a folder");
        let layout = Layout::open(Some(&dir.path().join("new"))).expect("made");
        assert_eq!(layout.cluster().expect("readable"), None);
        layout.write_cluster(&file()).expect("written");
        assert_eq!(layout.cluster().expect("readable"), Some(file()));
    }

    #[test]
    fn a_folder_with_other_things_in_it_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("thesis.tex"), "x").expect("written");
        let layout = Layout::open(Some(dir.path())).expect("opened");
        let failure = layout.cluster().expect_err("refused");
        assert!(failure.why.contains("other things"), "{}", failure.why);
    }

    #[test]
    fn two_clusters_never_run_on_one_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Layout::open(Some(dir.path())).expect("opened");
        let second = Layout::open(Some(dir.path())).expect_err("locked");
        assert!(
            second.why.contains("another `catena dev`"),
            "{}",
            second.why
        );
        drop(first);
        assert!(Layout::open(Some(dir.path())).is_ok());
    }

    #[test]
    fn a_temporary_folder_goes_away() {
        let layout = Layout::open(None).expect("made");
        let dir = layout.dir().to_owned();
        assert!(layout.is_temporary() && dir.is_dir());
        drop(layout);
        assert!(!dir.exists());
    }
}
