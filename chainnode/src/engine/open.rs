//! Which engine, and where: the one place that knows them by name.
#![allow(
    clippy::disallowed_methods,
    reason = "engines live in folders, and this is where these are made"
)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use super::fjall::FjallStore;
use super::memory::MemoryStore;
use super::sled::SledStore;
use super::tables::Tables;
use super::{EngineError, SharedEngine};

/// Default of [`EngineOptions::cache_bytes`]: a read that finds its block here costs half of one that asks the
/// operating system; it holds a million small rows, and grows only to what is read.
pub const CACHE_BYTES_DEFAULT: u64 = 256 << 20;
/// Default of [`EngineOptions::write_buffer_bytes`]: large enough that a table written out is
/// worth its file, and small enough to be searched faster than a table (at 64 MiB a read cost twice as much).
pub const WRITE_BUFFER_BYTES_DEFAULT: u64 = 16 << 20;

/// The engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineKind {
    /// A log-structured merge tree; the default.
    #[default]
    Fjall,
    /// A lock-free tree on a log of its own.
    Sled,
    /// Nothing on disk.
    Memory,
}

/// The name is none of an engine's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an engine: use `fjall`, `sled` or `memory`")]
pub struct EngineKindError(String);

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Fjall, Self::Sled, Self::Memory];

    /// The name in settings, errors and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fjall => "fjall",
            Self::Sled => "sled",
            Self::Memory => "memory",
        }
    }
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EngineKind {
    type Err = EngineKindError;

    fn from_str(name: &str) -> Result<Self, EngineKindError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == name)
            .ok_or_else(|| EngineKindError(name.to_owned()))
    }
}

/// How much an engine may use. The memory engine uses what its rows need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Memory for what was read from disk, in bytes.
    pub cache_bytes: u64,
    /// Rows that fjall collects in memory before it writes them out, in bytes; it holds up to five such buffers
    /// while the disk is slow. It is fixed when the folder is made.
    pub write_buffer_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            cache_bytes: CACHE_BYTES_DEFAULT,
            write_buffer_bytes: WRITE_BUFFER_BYTES_DEFAULT,
        }
    }
}

/// Opens the engine in the folder of its own name inside `dir`, or makes it there. The memory engine leaves `dir` alone.
///
/// A node that changes its engine thus starts with an empty state, as with a
/// new disk, and never reads another engine's files.
///
/// # Errors
/// [`EngineError::Unusable`] if its files do not fit together, [`EngineError::Format`] if another build wrote them.
pub fn open(
    kind: EngineKind,
    dir: &Path,
    options: EngineOptions,
) -> Result<SharedEngine, EngineError> {
    let folder = dir.join(kind.as_str());
    if kind != EngineKind::Memory && !folder.exists() {
        // Made aside and put in place whole: a process that is killed meanwhile leaves nothing half made.
        let new = dir.join(format!("{}.new", kind.as_str()));
        let failed = |why: std::io::Error| EngineError::Unusable {
            engine: kind.as_str(),
            why: why.to_string(),
        };
        match std::fs::remove_dir_all(&new) {
            Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(failed(why)),
            _ => {}
        }
        open_in(kind, &new, options)?.flush()?;
        std::fs::rename(&new, &folder).map_err(failed)?;
    }
    open_in(kind, &folder, options)
}

fn open_in(
    kind: EngineKind,
    dir: &Path,
    options: EngineOptions,
) -> Result<SharedEngine, EngineError> {
    // The engines' libraries assert where their files surprise them. Nothing of
    // ours is half-done then, so a panic is one more way of not opening.
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<SharedEngine, EngineError> {
        Ok(match kind {
            EngineKind::Fjall => Arc::new(Tables::open(FjallStore::open(dir, options)?)?),
            EngineKind::Sled => Arc::new(Tables::open(SledStore::open(dir, options)?)?),
            EngineKind::Memory => Arc::new(Tables::open(MemoryStore::default())?),
        })
    }));
    opened.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(EngineError::Unusable {
            engine: kind.as_str(),
            why: said.unwrap_or("its library panicked").to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_an_unknown_one_is_told_the_choice() {
        for kind in EngineKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "rocksdb"
            .parse::<EngineKind>()
            .expect_err("it is not there");
        assert!(error.to_string().contains("`fjall`, `sled` or `memory`"));
    }
}
