//! A disk in memory that fails as real ones do: torn, lost, misplaced, flipped, full, failing, hanging.
//!
//! It decides nothing by itself: what a crash takes is asked of the caller, so
//! that one seed gives one history. A clone is a snapshot, for the disk that is
//! rolled back behind a node's back.
//!
//! Two things are modelled on purpose. A failed sync leaves the page cache
//! looking written and clean, so a second try succeeds and proves nothing
//! (fsyncgate). And names are durable apart from contents: a crash before the
//! folder's sync takes back the latest creations, renames and removals.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use super::{Disk, DiskError};

/// The unit that a real disk writes at once.
pub const SECTOR_BYTES: u64 = 512;

/// A fault that strikes at the next chance, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next write fails, half done.
    Write,
    /// The next sync fails; what it was to make durable is forgotten.
    Sync,
    /// The next read fails.
    Read,
    /// The next write is acknowledged and never happens.
    LostWrite,
    /// The next write lands this many bytes away from where it was meant.
    Misplace(i64),
}

/// A file, whatever its name.
#[derive(Clone, Debug, Default)]
struct SimFile {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since they were last made durable.
    dirty: BTreeSet<u64>,
}

impl SimFile {
    fn keep(&mut self, sector: u64) {
        let from = (sector * SECTOR_BYTES) as usize;
        let to = (from + SECTOR_BYTES as usize).min(self.now.len());
        self.durable[from..to].copy_from_slice(&self.now[from..to]);
    }
}

/// A change of the folder that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

type Names = BTreeMap<String, u64>;

/// A folder in memory; a clone is an older copy of the disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    files: BTreeMap<u64, SimFile>,
    made: u64,
    names: Names,
    durable_names: Names,
    changes: Vec<NameChange>,
    capacity: Option<u64>,
    fault: Cell<Option<Fault>>,
    hung: bool,
    /// Writes that were done, for tests that count them.
    pub writes: u64,
    /// Syncs of files that were done, for tests that count them.
    pub syncs: u64,
}

impl SimDisk {
    /// Bytes that all files together may have.
    pub const fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Arms a fault.
    pub fn inject(&mut self, fault: Fault) {
        self.fault.set(Some(fault));
    }

    /// The disk hangs, or goes on. Calls cannot wait in here: whoever plays the log's thread asks
    /// [`SimDisk::is_hung`] first, and lets it stand still (FAULTS 15).
    pub const fn set_hung(&mut self, hung: bool) {
        self.hung = hung;
    }

    /// Whether the disk hangs.
    #[must_use]
    pub const fn is_hung(&self) -> bool {
        self.hung
    }

    /// Power is lost. Of each sector that was not synced, `keeps` decides whether it made it; of the changes of
    /// names, which a journal keeps in order, up to which one.
    pub fn crash(&mut self, mut keeps: impl FnMut() -> bool) {
        for change in std::mem::take(&mut self.changes) {
            if !keeps() {
                break;
            }
            apply(&mut self.durable_names, change);
        }
        self.names = self.durable_names.clone();
        self.write_back(keeps);
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        for file in self.files.values_mut() {
            file.dirty.clear();
            file.now.clone_from(&file.durable);
        }
        self.fault.set(None);
        self.hung = false;
    }

    /// The system writes some of what is dirty by itself, in no order.
    pub fn write_back(&mut self, mut keeps: impl FnMut() -> bool) {
        for file in self.files.values_mut() {
            for sector in std::mem::take(&mut file.dirty) {
                if keeps() {
                    file.keep(sector);
                } else {
                    file.dirty.insert(sector);
                }
            }
        }
    }

    /// Flips one bit of a file, on the disk and in the cache.
    pub fn flip(&mut self, file: &str, at: u64, bit: u8) {
        self.damage(file, at, 1, |byte| *byte ^= 1 << (bit % 8));
    }

    /// Makes a stretch of a file zeros, on the disk and in the cache, as a sector that was given up.
    pub fn wipe(&mut self, file: &str, at: u64, len: u64) {
        self.damage(file, at, len, |byte| *byte = 0);
    }

    fn damage(&mut self, file: &str, at: u64, len: u64, mut harm: impl FnMut(&mut u8)) {
        let Some(found) = self.names.get(file).and_then(|id| self.files.get_mut(id)) else {
            return;
        };
        for bytes in [&mut found.now, &mut found.durable] {
            let end = bytes.len();
            let from = (at as usize).min(end);
            let to = (at.saturating_add(len) as usize).min(end);
            bytes[from..to].iter_mut().for_each(&mut harm);
        }
    }

    fn file(&self, op: &'static str, file: &str) -> Result<&SimFile, DiskError> {
        self.names
            .get(file)
            .and_then(|id| self.files.get(id))
            .ok_or_else(|| failed(op, file, "no such file"))
    }

    fn file_mut(&mut self, op: &'static str, file: &str) -> Result<&mut SimFile, DiskError> {
        self.names
            .get(file)
            .and_then(|id| self.files.get_mut(id))
            .ok_or_else(|| failed(op, file, "no such file"))
    }

    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, change.clone());
        self.changes.push(change);
    }

    fn strikes(&self, fault: Fault) -> bool {
        let now = self.fault.get() == Some(fault);
        if now {
            self.fault.set(None);
        }
        now
    }
}

fn apply(names: &mut Names, change: NameChange) {
    match change {
        NameChange::Create(name, id) => {
            names.insert(name, id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(&from) {
                names.insert(to, id);
            }
        }
        NameChange::Remove(name) => {
            names.remove(&name);
        }
    }
}

fn failed(op: &'static str, file: &str, why: &str) -> DiskError {
    DiskError::Failed {
        op,
        file: file.to_owned(),
        why: why.to_owned(),
    }
}

const EIO: &str = "input/output error";

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<(String, u64)>, DiskError> {
        let length = |id| self.files.get(id).map_or(0, |f| f.now.len() as u64);
        Ok(self
            .names
            .iter()
            .map(|(name, id)| (name.clone(), length(id)))
            .collect())
    }

    fn create(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        let used: u64 = self
            .names
            .iter()
            .filter(|(name, _)| *name != file)
            .filter_map(|(_, id)| self.files.get(id))
            .map(|f| f.now.len() as u64)
            .sum();
        if self.capacity.is_some_and(|capacity| used + len > capacity) {
            return Err(DiskError::Full {
                op: "create",
                file: file.to_owned(),
            });
        }
        let zeros = vec![0; len as usize];
        let made = SimFile {
            now: zeros.clone(),
            durable: zeros,
            dirty: BTreeSet::new(),
        };
        self.made += 1;
        self.files.insert(self.made, made);
        self.change(NameChange::Create(file.to_owned(), self.made));
        Ok(())
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        if self.strikes(Fault::Read) {
            return Err(failed("read", file, EIO));
        }
        let found = self.file("read", file)?;
        let from = at as usize;
        let bytes = found.now.get(from..from.saturating_add(buf.len()));
        buf.copy_from_slice(bytes.ok_or_else(|| failed("read", file, "beyond its end"))?);
        Ok(())
    }

    fn write_at(&mut self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        if self.strikes(Fault::LostWrite) {
            return Ok(());
        }
        let fails = self.strikes(Fault::Write);
        let done = if fails {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        let at = match self.fault.get() {
            Some(Fault::Misplace(by)) => {
                self.fault.set(None);
                at.saturating_add_signed(by)
            }
            _ => at,
        };
        let found = self.file_mut("write", file)?;
        let from = at as usize;
        let Some(target) = found.now.get_mut(from..from.saturating_add(done.len())) else {
            return Err(failed("write", file, "beyond its end"));
        };
        target.copy_from_slice(done);
        if let Some(last) = (at + done.len() as u64).checked_sub(1)
            && !done.is_empty()
        {
            found.dirty.extend(at / SECTOR_BYTES..=last / SECTOR_BYTES);
        }
        if fails {
            return Err(failed("write", file, EIO));
        }
        self.writes += 1;
        Ok(())
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        let fails = self.strikes(Fault::Sync);
        let found = self.file_mut("sync", file)?;
        let dirty = std::mem::take(&mut found.dirty);
        if fails {
            return Err(failed("sync", file, EIO));
        }
        for sector in dirty {
            found.keep(sector);
        }
        self.syncs += 1;
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.changes.clear();
        self.durable_names.clone_from(&self.names);
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.file("rename", from)?;
        self.change(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.file("remove", file)?;
        self.change(NameChange::Remove(file.to_owned()));
        Ok(())
    }
}
