//! A disk in memory that fails as real ones do: torn, lost, misplaced, flipped, full, failing.
//!
//! It decides nothing by itself: what a crash takes is asked of the caller, so
//! that one seed gives one history.

use std::collections::BTreeMap;

use super::{Disk, DiskError};

/// The unit that a real disk writes at once.
const SECTOR: u64 = 512;

/// A fault that strikes at the next chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The next write fails.
    Write,
    /// The next sync fails.
    Sync,
    /// The next write lands this many bytes away from where it was meant.
    Misplace(i64),
}

#[derive(Clone, Debug, Default)]
struct SimFile {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: Vec<u64>,
}

/// A folder in memory; a clone is an older copy of the disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    files: BTreeMap<String, SimFile>,
    /// Files that a crash brings back: removals and renames are not durable before the folder is synced.
    folder: Option<BTreeMap<String, SimFile>>,
    capacity: Option<u64>,
    fault: Option<Fault>,
    /// Syncs that were done, for tests that count them.
    pub syncs: u64,
}

impl SimDisk {
    /// Bytes that all files together may have.
    pub const fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    /// Arms a fault.
    pub const fn inject(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Power is lost: of each sector that was not synced, `keeps` decides whether it made it.
    pub fn crash(&mut self, mut keeps: impl FnMut() -> bool) {
        if let Some(before) = self.folder.take()
            && !keeps()
        {
            for (name, file) in before {
                self.files.entry(name).or_insert(file);
            }
        }
        for file in self.files.values_mut() {
            for sector in std::mem::take(&mut file.dirty) {
                if keeps() {
                    let from = (sector * SECTOR) as usize;
                    let to = (from + SECTOR as usize).min(file.now.len());
                    file.durable[from..to].copy_from_slice(&file.now[from..to]);
                }
            }
            file.now = file.durable.clone();
        }
        self.fault = None;
    }

    /// Flips one bit of a file, durable and in the cache.
    pub fn flip(&mut self, file: &str, at: u64, bit: u8) {
        if let Some(file) = self.files.get_mut(file) {
            for bytes in [&mut file.now, &mut file.durable] {
                if let Some(byte) = bytes.get_mut(at as usize) {
                    *byte ^= 1 << (bit % 8);
                }
            }
        }
    }

    fn file(&self, op: &'static str, file: &str) -> Result<&SimFile, DiskError> {
        self.files
            .get(file)
            .ok_or_else(|| failed(op, file, "no such file"))
    }

    fn file_mut(&mut self, op: &'static str, file: &str) -> Result<&mut SimFile, DiskError> {
        self.files
            .get_mut(file)
            .ok_or_else(|| failed(op, file, "no such file"))
    }

    fn remember_folder(&mut self) {
        if self.folder.is_none() {
            self.folder = Some(self.files.clone());
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

impl Disk for SimDisk {
    fn list(&self) -> Result<Vec<(String, u64)>, DiskError> {
        Ok(self
            .files
            .iter()
            .map(|(name, f)| (name.clone(), f.now.len() as u64))
            .collect())
    }

    fn create(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        let used: u64 = self.files.values().map(|f| f.now.len() as u64).sum();
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
            dirty: Vec::new(),
        };
        self.files.insert(file.to_owned(), made);
        Ok(())
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        let found = self.file("read", file)?;
        let from = at as usize;
        let bytes = found.now.get(from..from + buf.len());
        buf.copy_from_slice(bytes.ok_or_else(|| failed("read", file, "beyond its end"))?);
        Ok(())
    }

    fn write_at(&mut self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let at = match self.fault {
            Some(Fault::Write) => {
                self.fault = None;
                return Err(failed("write", file, "input/output error"));
            }
            Some(Fault::Misplace(by)) => {
                self.fault = None;
                at.saturating_add_signed(by)
            }
            _ => at,
        };
        let found = self.file_mut("write", file)?;
        let from = at as usize;
        let Some(target) = found.now.get_mut(from..from + bytes.len()) else {
            return Err(failed("write", file, "beyond its end"));
        };
        target.copy_from_slice(bytes);
        if !bytes.is_empty() {
            found
                .dirty
                .extend(at / SECTOR..=(at + bytes.len() as u64 - 1) / SECTOR);
        }
        Ok(())
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        if self.fault == Some(Fault::Sync) {
            self.fault = None;
            return Err(failed("sync", file, "input/output error"));
        }
        self.syncs += 1;
        let found = self.file_mut("sync", file)?;
        for sector in std::mem::take(&mut found.dirty) {
            let from = (sector * SECTOR) as usize;
            let to = (from + SECTOR as usize).min(found.now.len());
            found.durable[from..to].copy_from_slice(&found.now[from..to]);
        }
        Ok(())
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        self.folder = None;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        self.remember_folder();
        let file = self
            .files
            .remove(from)
            .ok_or_else(|| failed("rename", from, "no such file"))?;
        self.files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.remember_folder();
        self.files
            .remove(file)
            .map(|_| ())
            .ok_or_else(|| failed("remove", file, "no such file"))
    }
}
