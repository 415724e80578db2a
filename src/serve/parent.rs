//! A daemon that ends with its parent: `catena dev` leaves no child behind, even when it is killed.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::exit::Failure;

/// Asks the kernel for SIGKILL when the parent ends.
///
/// SIGKILL, and not a polite signal: whatever keeps a daemon from leaving must not keep it alive,
/// and being killed must be as safe as leaving (INTERFACE, "Processes").
pub(crate) fn end_with(parent: u32) -> Result<(), Failure> {
    let what = "binding this process to its parent";
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|why| Failure::local(what, why, "start the daemon without --parent-pid"))?;
    // The parent may have ended before the kernel knew of our wish.
    let now = getppid().map(Pid::as_raw_pid);
    if now.and_then(|pid| u32::try_from(pid).ok()) == Some(parent) {
        Ok(())
    } else {
        Err(Failure::local(
            what,
            format!("process {parent} is not our parent"),
            "start the daemon without --parent-pid",
        ))
    }
}
