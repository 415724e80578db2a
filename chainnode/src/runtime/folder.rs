//! A node's folder: whose it is, that only one process uses it, and which start this is.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use catena_proto::ids::{ClusterId, DiskId, Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use super::clock;

const IDENTITY: &str = "identity.json";
const FORMAT: u32 = 1;

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    cluster_id: ClusterId,
    node_id: NodeId,
    disk_id: DiskId,
    /// The newest start that was begun; the next one is higher.
    incarnation: Incarnation,
    /// The log has held a replica's metadata: without any in it, the disk is another one (rule C4).
    log_used: bool,
    /// CRC-32 of the other fields, in this order, as text.
    checksum: u32,
}

impl IdentityFile {
    const fn new(cluster_id: ClusterId, node_id: NodeId, disk_id: DiskId) -> Self {
        Self {
            format: FORMAT,
            cluster_id,
            node_id,
            disk_id,
            incarnation: Incarnation::ZERO,
            log_used: false,
            checksum: 0,
        }
    }

    fn sum(&self) -> u32 {
        let text = format!(
            "{} {} {} {} {} {}",
            self.format,
            self.cluster_id,
            self.node_id,
            self.disk_id,
            self.incarnation,
            self.log_used
        );
        crc32fast::hash(text.as_bytes())
    }
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process uses it.
    #[error("{dir} is in use by another process: a copy of this node is running")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// It belongs to another node or cluster.
    #[error("{dir} belongs to node {node} of cluster {cluster}: point this node at its own folder")]
    NotOurs {
        /// The folder.
        dir: PathBuf,
        /// Whose node it is.
        node: NodeId,
        /// Of which cluster.
        cluster: ClusterId,
    },
    /// Its identity file cannot be trusted.
    #[error(
        "{dir}/identity.json {why}: restore it, or empty the folder, and the node comes back with a new disk id"
    )]
    Damaged {
        /// The folder.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("{dir} cannot be used: {why}")]
    Failed {
        /// The folder.
        dir: PathBuf,
        /// The system's own words.
        why: std::io::Error,
    },
    /// No randomness for a new disk id.
    #[error("the system gives no random bytes for a disk id: {0}")]
    Randomness(String),
}

/// A node's folder, held by this process.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// The disk's id.
    pub disk: DiskId,
    /// This start.
    pub incarnation: Incarnation,
    /// The folder was new: nothing was ever promised from it.
    pub fresh: bool,
    cluster: ClusterId,
    node: NodeId,
    log_used: AtomicBool,
    _lock: File,
}

/// Prepares an empty folder for a node, and gives it a disk id; a folder that has one keeps it.
///
/// # Errors
/// [`FolderError`].
pub fn format(dir: &Path, cluster: ClusterId, node: NodeId) -> Result<DiskId, FolderError> {
    let failed = |why| FolderError::Failed {
        dir: dir.to_owned(),
        why,
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    if let Some(found) = read(dir)? {
        check(dir, &found, cluster, node)?;
        return Ok(found.disk_id);
    }
    let disk = DiskId::new(random(dir)?);
    write(dir, IdentityFile::new(cluster, node, disk))?;
    Ok(disk)
}

impl Folder {
    /// Takes the folder for this start. An empty one gets a new disk id (rule C4).
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn open(dir: &Path, cluster: ClusterId, node: NodeId) -> Result<Self, FolderError> {
        let failed = |why| FolderError::Failed {
            dir: dir.to_owned(),
            why,
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(why)) => return Err(failed(why)),
        }
        let found = read(dir)?;
        let fresh = found.is_none();
        let mut identity = match found {
            Some(found) => {
                check(dir, &found, cluster, node)?;
                // Config and log both gone: what this disk promised is gone too, so it is another disk.
                // (A first start that was killed before it promised anything has neither yet.)
                let emptied =
                    found.log_used && !dir.join("log").exists() && !dir.join("config").exists();
                if emptied {
                    IdentityFile {
                        incarnation: found.incarnation,
                        ..IdentityFile::new(cluster, node, DiskId::new(random(dir)?))
                    }
                } else {
                    found
                }
            }
            None => IdentityFile::new(cluster, node, DiskId::new(random(dir)?)),
        };
        identity.incarnation = next_incarnation(identity.incarnation, random(dir)?);
        write(dir, identity.clone())?;
        Ok(Self {
            dir: dir.to_owned(),
            disk: identity.disk_id,
            incarnation: identity.incarnation,
            fresh,
            cluster,
            node,
            log_used: AtomicBool::new(identity.log_used),
            _lock: lock,
        })
    }

    /// Whether the log has ever held a replica's metadata.
    #[must_use]
    pub fn is_log_used(&self) -> bool {
        self.log_used.load(Ordering::SeqCst)
    }

    /// Notes that the log holds a replica's metadata, durably; from now on a log without any is a lost one.
    ///
    /// # Errors
    /// [`FolderError::Failed`].
    pub fn note_log_used(&self) -> Result<(), FolderError> {
        if !self.is_log_used() {
            write(&self.dir, self.identity(true))?;
            self.log_used.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The log is lost, and what the disk promised with it: it is another disk now (rule C4).
    /// What is left of log and state is put aside.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn renew(&mut self) -> Result<(), FolderError> {
        self.put_aside(&self.log_dir())?;
        self.put_aside(&self.state_dir())?;
        self.disk = DiskId::new(random(&self.dir)?);
        self.log_used = AtomicBool::new(false);
        write(&self.dir, self.identity(false))
    }

    /// Renames a folder of this one, so that nobody uses it and nothing of it is lost; returns its new place.
    ///
    /// # Errors
    /// [`FolderError::Failed`].
    pub fn put_aside(&self, part: &Path) -> Result<PathBuf, FolderError> {
        let aside = part.with_extension(format!("lost-{}", self.incarnation));
        match std::fs::rename(part, &aside) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => Err(FolderError::Failed {
                dir: part.to_owned(),
                why,
            }),
            _ => Ok(aside),
        }
    }

    fn identity(&self, log_used: bool) -> IdentityFile {
        IdentityFile {
            incarnation: self.incarnation,
            log_used,
            ..IdentityFile::new(self.cluster, self.node, self.disk)
        }
    }

    /// The folder of the log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The folder of accepted configs.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// The folder of the engine's files.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }
}

/// Higher than the last one on this disk, and unlikely to repeat even on an older copy of it (rule L1).
fn next_incarnation(last: Incarnation, random: u128) -> Incarnation {
    let seconds = clock::wall_ms() / 1000;
    let drawn = (seconds << 20) | (random as u64 & 0xf_ffff);
    Incarnation::new(drawn.max(last.get() + 1))
}

fn random(dir: &Path) -> Result<u128, FolderError> {
    let mut bytes = [0; 16];
    let _ = dir;
    getrandom::fill(&mut bytes).map_err(|e| FolderError::Randomness(e.to_string()))?;
    Ok(u128::from_be_bytes(bytes))
}

fn read(dir: &Path) -> Result<Option<IdentityFile>, FolderError> {
    let damaged = |why: String| FolderError::Damaged {
        dir: dir.to_owned(),
        why,
    };
    let text = match std::fs::read(dir.join(IDENTITY)) {
        Ok(text) => text,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => {
            return Err(FolderError::Failed {
                dir: dir.to_owned(),
                why,
            });
        }
    };
    let found: IdentityFile =
        serde_json::from_slice(&text).map_err(|e| damaged(format!("is damaged ({e})")))?;
    if found.format != FORMAT {
        return Err(damaged(format!(
            "has format {}, this build reads {FORMAT}",
            found.format
        )));
    }
    if found.checksum != found.sum() {
        return Err(damaged("does not match its checksum".into()));
    }
    Ok(Some(found))
}

fn check(
    dir: &Path,
    found: &IdentityFile,
    cluster: ClusterId,
    node: NodeId,
) -> Result<(), FolderError> {
    if found.cluster_id == cluster && found.node_id == node {
        return Ok(());
    }
    Err(FolderError::NotOurs {
        dir: dir.to_owned(),
        node: found.node_id,
        cluster: found.cluster_id,
    })
}

fn write(dir: &Path, mut file: IdentityFile) -> Result<(), FolderError> {
    file.checksum = file.sum();
    let text = serde_json::to_vec_pretty(&file).unwrap_or_default();
    replace(dir, IDENTITY, &text).map_err(|why| FolderError::Failed {
        dir: dir.to_owned(),
        why,
    })
}

/// Writes a file whole and durable, then puts it in the old one's place.
pub(crate) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId::new(5);
    const NODE: NodeId = NodeId::new(1);

    #[test]
    fn each_start_has_a_higher_incarnation_on_the_same_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = format(dir.path(), CLUSTER, NODE).expect("formatted");
        let first = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        assert_eq!(first.disk, disk);
        let copy = Folder::open(dir.path(), CLUSTER, NODE);
        assert!(matches!(copy, Err(FolderError::InUse { .. })));
        std::fs::create_dir(first.log_dir()).expect("a log");
        let before = first.incarnation;
        drop(first);
        let second = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        assert_eq!(second.disk, disk);
        assert!(second.incarnation > before);
    }

    #[test]
    fn a_foreign_or_damaged_folder_is_refused_and_an_emptied_one_is_a_new_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = format(dir.path(), CLUSTER, NODE).expect("formatted");
        let other = Folder::open(dir.path(), ClusterId::new(6), NODE);
        assert!(matches!(other, Err(FolderError::NotOurs { .. })));
        let other = Folder::open(dir.path(), CLUSTER, NodeId::new(2));
        assert!(matches!(other, Err(FolderError::NotOurs { .. })));
        let path = dir.path().join(IDENTITY);
        let text = std::fs::read_to_string(&path).expect("text");
        std::fs::write(&path, text.replace("\"node_id\": 1", "\"node_id\": 2")).expect("written");
        let damaged = Folder::open(dir.path(), CLUSTER, NODE);
        assert!(matches!(damaged, Err(FolderError::Damaged { .. })));
        std::fs::remove_file(&path).expect("removed");
        let emptied = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        assert!(emptied.fresh && emptied.disk != disk);
        // It was used, and its log and config are gone: again another disk.
        let second = emptied.disk;
        emptied.note_log_used().expect("noted");
        drop(emptied);
        assert_ne!(
            Folder::open(dir.path(), CLUSTER, NODE)
                .expect("opened")
                .disk,
            second
        );
    }
    #[test]
    fn a_lost_log_makes_another_disk_and_what_is_left_is_put_aside() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = format(dir.path(), CLUSTER, NODE).expect("formatted");
        let mut folder = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        std::fs::create_dir(folder.log_dir()).expect("a log");
        std::fs::create_dir(folder.state_dir()).expect("a state");
        assert!(!folder.is_log_used());
        folder.note_log_used().expect("noted");
        drop(folder);
        folder = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        assert!(folder.disk == disk && folder.is_log_used());
        folder.renew().expect("renewed");
        let renewed = folder.disk;
        assert!(renewed != disk && !folder.is_log_used());
        assert!(!folder.log_dir().exists() && !folder.state_dir().exists());
        drop(folder);
        std::fs::create_dir(dir.path().join("log")).expect("a new log");
        folder = Folder::open(dir.path(), CLUSTER, NODE).expect("opened");
        assert!(folder.disk == renewed && !folder.is_log_used());
    }
}
