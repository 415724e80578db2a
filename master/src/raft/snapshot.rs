//! Snapshots of the masters' state: one file, replaced as a whole, never half believed.
//!
//! ```text
//! {"format":1,"cluster":"…","bytes":1234,"checksum":99}\n      <- one line
//! {"meta":{…},"state":{…}}                                      <- what the line speaks of
//! ```
//! The same bytes travel to a master that is too far behind; it checks them as if
//! they had come from its own disk.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catena_proto::ids::{ClusterId, MasterId};
use openraft::Snapshot;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::StartError;
use super::fatal::Alarm;
use super::folder::replace;
use super::types::{LogId, MasterRaft, Membership, SNAPSHOT_BYTES_MAX, SnapshotMeta};
use crate::state::MasterState;

const FILE: &str = "snapshot.json";
const FORMAT: u32 = 1;
/// Longest first line.
const HEADER_BYTES_MAX: usize = 1 << 10;

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is not whole, or not one.
    #[error("the snapshot is damaged: {0}")]
    Damaged(String),
    /// It is another cluster's.
    #[error("the snapshot belongs to cluster {0}")]
    Foreign(ClusterId),
    /// It is larger than any may be.
    #[error("the snapshot has {0} bytes, at most {SNAPSHOT_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// The system refused.
    #[error("the snapshot cannot be stored or read: {0}")]
    Io(#[from] std::io::Error),
    /// The master stops.
    #[error("this master stops: nothing is stored any more")]
    Closed,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    cluster: ClusterId,
    bytes: usize,
    /// CRC-32 of those bytes.
    checksum: u32,
}

#[derive(Serialize)]
struct BodyRef<'a> {
    meta: &'a SnapshotMeta,
    state: &'a MasterState,
}

#[derive(Deserialize)]
struct Body {
    meta: SnapshotMeta,
    state: MasterState,
}

/// A state with the place in the log that it stands for.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) applied: Option<LogId>,
    pub(super) membership: Membership,
    pub(super) state: Arc<MasterState>,
}

/// A snapshot's bytes, judged.
pub(super) struct Judged {
    pub(super) meta: SnapshotMeta,
    pub(super) state: MasterState,
}

/// Reads a snapshot, whoever sent it.
pub(super) fn judge(cluster: ClusterId, bytes: &[u8]) -> Result<Judged, SnapshotError> {
    let damaged = |why: &dyn ToString| SnapshotError::Damaged(why.to_string());
    if bytes.len() > SNAPSHOT_BYTES_MAX {
        return Err(SnapshotError::TooLarge(bytes.len()));
    }
    let line = bytes
        .iter()
        .take(HEADER_BYTES_MAX)
        .position(|b| *b == b'\n')
        .ok_or_else(|| damaged(&"it has no first line"))?;
    let (header, body) = (&bytes[..line], &bytes[line + 1..]);
    let header: Header = serde_json::from_slice(header).map_err(|why| damaged(&why))?;
    if header.format != FORMAT {
        let why = format!("it has format {}, this build reads {FORMAT}", header.format);
        return Err(damaged(&why));
    }
    if header.cluster != cluster {
        return Err(SnapshotError::Foreign(header.cluster));
    }
    if header.bytes != body.len() {
        let why = format!("it has {} bytes, {} were written", body.len(), header.bytes);
        return Err(damaged(&why));
    }
    if header.checksum != crc32fast::hash(body) {
        return Err(damaged(&"it does not match its checksum"));
    }
    let body: Body = serde_json::from_slice(body).map_err(|why| damaged(&why))?;
    Ok(Judged {
        meta: body.meta,
        state: body.state,
    })
}

fn encode(
    cluster: ClusterId,
    meta: &SnapshotMeta,
    state: &MasterState,
) -> Result<Vec<u8>, SnapshotError> {
    let unwritable = |why: serde_json::Error| SnapshotError::Io(why.into());
    let body = serde_json::to_vec(&BodyRef { meta, state }).map_err(unwritable)?;
    let header = Header {
        format: FORMAT,
        cluster,
        bytes: body.len(),
        checksum: crc32fast::hash(&body),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(unwritable)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&body);
    if bytes.len() > SNAPSHOT_BYTES_MAX {
        return Err(SnapshotError::TooLarge(bytes.len()));
    }
    Ok(bytes)
}

#[derive(Debug)]
struct Current {
    meta: Option<SnapshotMeta>,
    closed: bool,
}

/// The one snapshot of a master. Its methods block.
#[derive(Debug)]
pub(super) struct Snapshots {
    dir: PathBuf,
    cluster: ClusterId,
    me: MasterId,
    alarm: Alarm,
    current: Mutex<Current>,
}

impl Snapshots {
    /// Opens the folder, and reads the snapshot if there is one.
    pub(super) fn open(
        dir: &Path,
        cluster: ClusterId,
        me: MasterId,
        alarm: Alarm,
    ) -> Result<(Self, Option<Judged>), StartError> {
        std::fs::create_dir_all(dir).map_err(|why| StartError::disk(dir, &why))?;
        let found = match std::fs::read(dir.join(FILE)) {
            Ok(bytes) => Some(
                judge(cluster, &bytes).map_err(|why| StartError::damaged(&dir.join(FILE), &why))?,
            ),
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => None,
            Err(why) => return Err(StartError::disk(dir, &why)),
        };
        let snapshots = Self {
            dir: dir.to_owned(),
            cluster,
            me,
            alarm,
            current: Mutex::new(Current {
                meta: found.as_ref().map(|judged| judged.meta.clone()),
                closed: false,
            }),
        };
        Ok((snapshots, found))
    }

    /// Stores a state, unless a newer one is stored already; what is stored then.
    pub(super) fn build(&self, taken: &Taken) -> Result<Snapshot<MasterRaft>, SnapshotError> {
        let at = taken.applied.map_or_else(
            || "0-0".to_owned(),
            |id| format!("{}-{}", id.leader_id.term, id.index),
        );
        let meta = SnapshotMeta {
            last_log_id: taken.applied,
            last_membership: taken.membership.clone(),
            // Two masters' snapshots of one place are never mixed in a transfer.
            snapshot_id: format!("{at}-by-{}", self.me),
        };
        let bytes = encode(self.cluster, &meta, &taken.state)?;
        self.store(meta, bytes)
    }

    /// Stores a snapshot that a leader sent; its state.
    pub(super) fn install(
        &self,
        meta: &SnapshotMeta,
        bytes: Vec<u8>,
    ) -> Result<MasterState, SnapshotError> {
        let judged = judge(self.cluster, &bytes)?;
        if judged.meta != *meta {
            let why = format!("it stands for {}, not for {meta}", judged.meta);
            return Err(SnapshotError::Damaged(why));
        }
        self.store(judged.meta, bytes)?;
        Ok(judged.state)
    }

    fn store(
        &self,
        meta: SnapshotMeta,
        bytes: Vec<u8>,
    ) -> Result<Snapshot<MasterRaft>, SnapshotError> {
        let mut current = self.current.lock();
        if current.closed {
            // The folder may be another process's by now.
            return Err(SnapshotError::Closed);
        }
        // One that is being built while a newer one is installed must not replace it: the log behind it is gone.
        let newer = current
            .meta
            .as_ref()
            .is_none_or(|held| held.last_log_id < meta.last_log_id);
        if newer {
            replace(&self.dir, FILE, &bytes).inspect_err(|why| self.alarm.disk(why))?;
            current.meta = Some(meta.clone());
            return Ok(Snapshot {
                meta,
                snapshot: Box::new(Cursor::new(bytes)),
            });
        }
        self.read(&current)?
            .ok_or_else(|| SnapshotError::Damaged("it is gone".to_owned()))
    }

    /// The snapshot that is stored.
    pub(super) fn current(&self) -> Result<Option<Snapshot<MasterRaft>>, SnapshotError> {
        self.read(&self.current.lock())
    }

    fn read(&self, current: &Current) -> Result<Option<Snapshot<MasterRaft>>, SnapshotError> {
        let Some(meta) = current.meta.clone() else {
            return Ok(None);
        };
        let bytes = std::fs::read(self.dir.join(FILE))?;
        Ok(Some(Snapshot {
            meta,
            snapshot: Box::new(Cursor::new(bytes)),
        }))
    }

    /// Nothing is stored from here on.
    pub(super) fn close(&self) {
        self.current.lock().closed = true;
    }
}
