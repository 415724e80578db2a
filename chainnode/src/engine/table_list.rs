//! Whether the files that say which tables a fjall keyspace has are whole; looked at before fjall does.
//!
//! lsm-tree 3.1 writes a checksum of each list into `current`, beside the
//! list's number, and does not look at it when it opens. With a bit of the list
//! flipped it opens without some tables, and everything that is left is valid,
//! and old; or it asserts, and a second panic in a destructor ends the process.
//! Neither may happen to a node (FAULTS 13), so the list is held to its checksum here.
//!
//! The layout is that of `lsm-tree/src/version/persist.rs`: a number (u64), an
//! XXH3-128 of the list and the kind of checksum (0), little-endian. Another
//! layout fails the check, and the conformance suite with it.
#![allow(
    clippy::disallowed_methods,
    reason = "it reads an engine's files before the engine does"
)]

use std::io::ErrorKind;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_128;

/// A number, a checksum, and the checksum's kind.
const CURRENT_BYTES: usize = 8 + 16 + 1;
const KIND_XXH3: u8 = 0;

/// Why a folder's tables cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub(super) enum ListError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// It is not what was written.
    #[error("the list of tables in {folder} {what}")]
    Damaged {
        /// The keyspace's folder.
        folder: String,
        /// What is wrong.
        what: &'static str,
    },
}

/// Checks the list of every keyspace of the database in `dir`; a database that is not there yet has none.
///
/// # Errors
/// [`ListError`].
pub(super) fn check(dir: &Path) -> Result<(), ListError> {
    let keyspaces = match std::fs::read_dir(dir.join("keyspaces")) {
        Ok(keyspaces) => keyspaces,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    // A later keyspace that has its list: this one was made, even if its rows are in the journal alone.
    let mut made_up_to = 0;
    let mut without = Vec::new();
    for keyspace in keyspaces {
        let keyspace = keyspace?;
        if !keyspace.file_type()?.is_dir() {
            continue;
        }
        let (folder, name) = (keyspace.path(), keyspace.file_name());
        let number: u64 = name.to_string_lossy().parse().unwrap_or(u64::MAX);
        check_keyspace(&folder)?;
        if folder.join("current").exists() {
            made_up_to = made_up_to.max(number);
        } else {
            without.push((number, folder));
        }
    }
    match without.into_iter().find(|(n, _)| *n < made_up_to) {
        None => Ok(()),
        Some((_, folder)) => Err(ListError::Damaged {
            folder: folder.display().to_string(),
            what: "is gone",
        }),
    }
}

fn check_keyspace(folder: &Path) -> Result<(), ListError> {
    let damaged = |what| ListError::Damaged {
        folder: folder.display().to_string(),
        what,
    };
    let current = match std::fs::read(folder.join("current")) {
        Ok(current) => current,
        // A keyspace that is being made has no list yet; one with tables has lost it.
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if has_tables(folder)? {
                Err(damaged("is gone"))
            } else {
                Ok(())
            };
        }
        Err(error) => return Err(error.into()),
    };
    let current: [u8; CURRENT_BYTES] = current
        .try_into()
        .map_err(|_| damaged("has a pointer of another length"))?;
    let (mut number, mut checksum) = ([0; 8], [0; 16]);
    number.copy_from_slice(&current[..8]);
    checksum.copy_from_slice(&current[8..24]);
    if current[24] != KIND_XXH3 {
        return Err(damaged("has a checksum of an unknown kind"));
    }
    let list = match std::fs::read(folder.join(format!("v{}", u64::from_le_bytes(number)))) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(damaged("is not the one that its pointer names"));
        }
        Err(error) => return Err(error.into()),
    };
    if xxh3_128(&list) != u128::from_le_bytes(checksum) {
        return Err(damaged("does not match its checksum"));
    }
    Ok(())
}

fn has_tables(folder: &Path) -> Result<bool, ListError> {
    match std::fs::read_dir(folder.join("tables")) {
        Ok(mut tables) => Ok(tables.next().transpose()?.is_some()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}
