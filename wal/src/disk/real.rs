//! A folder of the operating system.
#![allow(
    clippy::disallowed_methods,
    reason = "this is the one place of the log that touches real files"
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{Disk, DiskError};

/// Zeros written at a time when a file is filled.
const FILL_BYTES: usize = 1 << 20;

/// A real folder; it keeps its files open.
#[derive(Debug)]
pub struct RealDisk {
    folder: PathBuf,
    open: RefCell<BTreeMap<String, File>>,
}

impl RealDisk {
    /// Opens a folder, and creates it durably if it is not there.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path) -> Result<Self, DiskError> {
        let create = |e: io::Error| failed("create", "the folder", &e);
        if !folder.is_dir() {
            std::fs::create_dir_all(folder).map_err(create)?;
            // A folder that a power cut takes back would take the log with it.
            if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
                File::open(parent)
                    .and_then(|f| f.sync_all())
                    .map_err(create)?;
            }
        }
        Ok(Self {
            folder: folder.to_owned(),
            open: RefCell::default(),
        })
    }

    fn with<T>(
        &self,
        op: &'static str,
        file: &str,
        act: impl FnOnce(&File) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let mut open = self.open.borrow_mut();
        if !open.contains_key(file) {
            let handle = OpenOptions::new()
                .read(true)
                .write(true)
                .open(self.folder.join(file))
                .map_err(|e| failed(op, file, &e))?;
            open.insert(file.to_owned(), handle);
        }
        act(&open[file]).map_err(|e| failed(op, file, &e))
    }
}

fn failed(op: &'static str, file: &str, error: &io::Error) -> DiskError {
    let file = file.to_owned();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskError::Full { op, file },
        _ => DiskError::Failed {
            op,
            file,
            why: error.to_string(),
        },
    }
}

impl Disk for RealDisk {
    fn list(&self) -> Result<Vec<(String, u64)>, DiskError> {
        let read = |e: &io::Error| failed("list", "the folder", e);
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(|e| read(&e))? {
            let entry = entry.map_err(|e| read(&e))?;
            let meta = match entry.metadata() {
                // Another thread renamed a spare just now: it will be seen under its new name.
                Err(gone) if gone.kind() == io::ErrorKind::NotFound => continue,
                meta => meta.map_err(|e| read(&e))?,
            };
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                files.push((name, meta.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn create(&mut self, file: &str, len: u64) -> Result<(), DiskError> {
        let path = self.folder.join(file);
        let make = || -> io::Result<File> {
            let handle = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)?;
            match fallocate(&handle, FallocateFlags::empty(), 0, len) {
                // Not every file system can; the zeros below meet a full disk as well, only later.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                done => done?,
            }
            // Written blocks, not only reserved ones: a later `fdatasync` then has no metadata to
            // write, which is half of its cost.
            let zeros = vec![0; FILL_BYTES];
            let mut at = 0;
            while at < len {
                let part = usize::try_from(len - at).map_or(FILL_BYTES, |n| n.min(FILL_BYTES));
                handle.write_all_at(&zeros[..part], at)?;
                at += part as u64;
            }
            handle.sync_all()?;
            Ok(handle)
        };
        match make() {
            Ok(_) => {
                self.open.borrow_mut().remove(file);
                Ok(())
            }
            Err(error) => {
                // Half a file is no file.
                let _ = std::fs::remove_file(&path);
                Err(failed("create", file, &error))
            }
        }
    }

    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.with("read", file, |f| f.read_exact_at(buf, at))
    }

    fn write_at(&mut self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.with("write", file, |f| f.write_all_at(bytes, at))
    }

    fn sync(&mut self, file: &str) -> Result<(), DiskError> {
        self.with("sync", file, File::sync_data)
    }

    fn sync_folder(&mut self) -> Result<(), DiskError> {
        File::open(&self.folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| failed("sync", "the folder", &e))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        std::fs::rename(self.folder.join(from), self.folder.join(to))
            .map_err(|e| failed("rename", from, &e))?;
        // Opened anew by name: somebody else may have put another file under the old one meanwhile.
        let mut open = self.open.borrow_mut();
        open.remove(from);
        open.remove(to);
        Ok(())
    }

    fn remove(&mut self, file: &str) -> Result<(), DiskError> {
        self.open.borrow_mut().remove(file);
        std::fs::remove_file(self.folder.join(file)).map_err(|e| failed("remove", file, &e))
    }
}
