//! Files that are ready to become the next segment: where a full disk is met.
//!
//! `spare` is made ahead of time by whoever likes; `spare-1` and on by an append
//! that needs several at once. A file gets such a name only when it is whole:
//! filled with zeros, and synced.

use crate::disk::{Disk, DiskError};

const SPARE: &str = "spare";
/// Under this name the log itself makes a spare when nobody else has.
const WORKING: &str = "spare.own";
/// More segments than an append may ask for at once: 32 MiB each, more than replicas may have pending.
const READY_MAX: usize = 64;

/// Prepares the file that becomes the next segment, so that no append waits for it. A background thread may
/// call this with a disk of its own, and a `working_name` of its own that begins with `spare.`.
///
/// # Errors
/// [`DiskError::Full`] if there is no room: the node should refuse writes early.
pub fn make_spare(
    disk: &mut impl Disk,
    working_name: &str,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    if ready(disk, segment_bytes)?.iter().any(|name| name == SPARE) {
        return Ok(());
    }
    make(disk, working_name, SPARE, segment_bytes)
}

/// The files that are ready, in the order of their use.
pub(crate) fn ready(disk: &impl Disk, segment_bytes: u32) -> Result<Vec<String>, DiskError> {
    let listed = disk.list()?;
    Ok((0..READY_MAX)
        .map(name)
        .filter(|name| {
            listed
                .iter()
                .any(|(found, len)| found == name && *len == u64::from(segment_bytes))
        })
        .collect())
}

/// Makes sure that as many are ready.
pub(crate) fn ensure(
    disk: &mut impl Disk,
    count: usize,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    let found = ready(disk, segment_bytes)?;
    let missing = (0..READY_MAX).map(name).filter(|n| !found.contains(n));
    for name in missing.take(count.saturating_sub(found.len())) {
        make(disk, WORKING, &name, segment_bytes)?;
    }
    Ok(())
}

/// Removes what an interrupted start or another setting left behind.
pub(crate) fn tidy(disk: &mut impl Disk, segment_bytes: u32) -> Result<(), DiskError> {
    let found = ready(disk, segment_bytes)?;
    for (name, _) in disk.list()? {
        let ours = name == SPARE || name.starts_with("spare.") || name.starts_with("spare-");
        if ours && !found.contains(&name) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

fn make(
    disk: &mut impl Disk,
    working_name: &str,
    name: &str,
    segment_bytes: u32,
) -> Result<(), DiskError> {
    disk.create(working_name, u64::from(segment_bytes))?;
    disk.rename(working_name, name)
}

fn name(i: usize) -> String {
    match i {
        0 => SPARE.to_owned(),
        i => format!("{SPARE}-{i}"),
    }
}
