//! The clocks of a master: monotonic for decisions, wall for people.

use catena_proto::time::Mono;
use rustix::time::{ClockId, clock_gettime};

use crate::state::WallMs;

/// `CLOCK_BOOTTIME`: monotonic, and it counts suspend.
pub(crate) fn now() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Milliseconds since 1970: for event logs and budgets, never for safety.
pub(crate) fn wall() -> WallMs {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    WallMs(now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}
