//! A master's folder: whose it is, that only one process uses it, and whether it was ever used.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use catena_proto::ids::{ClusterId, DiskId, MasterId};
use serde::{Deserialize, Serialize};

use super::StartError;

const IDENTITY: &str = "identity.json";
const FORMAT: u32 = 1;

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    cluster_id: ClusterId,
    master_id: MasterId,
    /// Names the log, so that segments of another folder are refused.
    disk_id: DiskId,
    /// The log has held metadata: one without any is a lost one, and its votes with it.
    log_used: bool,
    /// CRC-32 of the other fields, in this order, as text.
    checksum: u32,
}

impl IdentityFile {
    fn sum(&self) -> u32 {
        let text = format!(
            "{} {} {} {} {}",
            self.format, self.cluster_id, self.master_id, self.disk_id, self.log_used
        );
        crc32fast::hash(text.as_bytes())
    }
}

/// A master's folder, held by this process until it is dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    identity: IdentityFile,
    _lock: File,
}

impl Folder {
    /// Takes the folder. An empty one is prepared only when `bootstrap` says so: a master that forgot its votes must
    /// not vote again.
    pub(super) fn open(
        dir: &Path,
        cluster: ClusterId,
        me: MasterId,
        bootstrap: bool,
    ) -> Result<Self, StartError> {
        let failed = |why| StartError::disk(dir, &why);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::InUse {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(why)) => return Err(failed(why)),
        }
        let found = read(dir)?;
        if let Some(found) = &found
            && (found.cluster_id != cluster || found.master_id != me)
        {
            return Err(StartError::NotOurs {
                dir: dir.to_owned(),
                master: found.master_id,
                cluster: found.cluster_id,
            });
        }
        let used = found.as_ref().is_some_and(|found| found.log_used);
        if !used && !bootstrap {
            return Err(StartError::EmptyFolder {
                dir: dir.to_owned(),
            });
        }
        let identity = match found {
            Some(found) => found,
            None => fresh(dir, cluster, me)?,
        };
        Ok(Self {
            dir: dir.to_owned(),
            identity,
            _lock: lock,
        })
    }

    /// Names the log.
    pub(super) const fn disk(&self) -> DiskId {
        self.identity.disk_id
    }

    /// The log has held metadata.
    pub(super) const fn is_log_used(&self) -> bool {
        self.identity.log_used
    }

    /// Notes that the log holds metadata, durably.
    pub(super) fn note_log_used(&mut self) -> Result<(), StartError> {
        if !self.identity.log_used {
            self.identity.log_used = true;
            write(&self.dir, &mut self.identity)
                .map_err(|why| StartError::disk(&self.dir, &why))?;
        }
        Ok(())
    }

    /// The folder of the log.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The folder of snapshots of the state.
    pub(super) fn snapshot_dir(&self) -> PathBuf {
        self.dir.join("state")
    }
}

fn fresh(dir: &Path, cluster: ClusterId, me: MasterId) -> Result<IdentityFile, StartError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|why| StartError::disk(dir, &why))?;
    let mut identity = IdentityFile {
        format: FORMAT,
        cluster_id: cluster,
        master_id: me,
        disk_id: DiskId::new(u128::from_be_bytes(random)),
        log_used: false,
        checksum: 0,
    };
    write(dir, &mut identity).map_err(|why| StartError::disk(dir, &why))?;
    Ok(identity)
}

fn read(dir: &Path) -> Result<Option<IdentityFile>, StartError> {
    let damaged = |why: String| StartError::Damaged {
        what: dir.join(IDENTITY),
        why,
    };
    let text = match std::fs::read(dir.join(IDENTITY)) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(StartError::disk(dir, &why)),
    };
    let found: IdentityFile =
        serde_json::from_slice(&text).map_err(|why| damaged(why.to_string()))?;
    if found.format != FORMAT {
        return Err(damaged(format!(
            "it has format {}, this build reads {FORMAT}",
            found.format
        )));
    }
    if found.checksum != found.sum() {
        return Err(damaged("it does not match its checksum".to_owned()));
    }
    Ok(Some(found))
}

fn write(dir: &Path, file: &mut IdentityFile) -> io::Result<()> {
    file.checksum = file.sum();
    replace(dir, IDENTITY, &serde_json::to_vec_pretty(file)?)
}

/// Writes a file whole and durable, then puts it in the old one's place.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(format!("{name}.new"));
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, dir.join(name))?;
    File::open(dir)?.sync_all()
}
