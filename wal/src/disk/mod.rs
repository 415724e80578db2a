//! A folder of files: the smallest thing that a real and a faulty disk can both be.
//!
//! It is positioned, synchronous and without a cache of its own. What is written
//! is durable after `sync` of its file, and a file has its name for good after
//! `sync_folder`; nothing else may be relied on.

mod real;
mod sim;

pub use self::real::RealDisk;
pub use self::sim::{Fault, SECTOR_BYTES, SimDisk};

/// Why a disk did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no room; nothing was changed.
    #[error("no room on the disk to {op} {file}: free space; what is stored is safe")]
    Full {
        /// What was tried.
        op: &'static str,
        /// The file.
        file: String,
    },
    /// Anything else. What the file holds now is not known.
    #[error("the disk failed to {op} {file}: {why}")]
    Failed {
        /// What was tried.
        op: &'static str,
        /// The file.
        file: String,
        /// The system's own words.
        why: String,
    },
}

/// A folder. Positions are bytes from a file's beginning; only one thread uses it.
pub trait Disk {
    /// Names and lengths of the files in the folder, by name.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn list(&self) -> Result<Vec<(String, u64)>, DiskError>;

    /// Creates a file of `len` bytes of zeros with real blocks behind it, so that no later write can meet a full disk.
    ///
    /// # Errors
    /// [`DiskError::Full`] if there is no room; then the file is not there.
    fn create(&mut self, file: &str, len: u64) -> Result<(), DiskError>;

    /// Reads exactly `buf.len()` bytes.
    ///
    /// # Errors
    /// [`DiskError::Failed`], also beyond the file's end.
    fn read_at(&self, file: &str, at: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes inside a file. Not durable before [`Disk::sync`].
    ///
    /// # Errors
    /// [`DiskError::Failed`]: what is there now is not known.
    fn write_at(&mut self, file: &str, at: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// [`DiskError::Failed`]: it must never be tried again (fsyncgate); the process stops.
    fn sync(&mut self, file: &str) -> Result<(), DiskError>;

    /// Makes creations, removals and renames durable.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn sync_folder(&mut self) -> Result<(), DiskError>;

    /// Renames a file.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`DiskError::Failed`].
    fn remove(&mut self, file: &str) -> Result<(), DiskError>;
}
