//! The one clock of a node (rule R2).

use std::time::Duration;

use catena_proto::time::Mono;
use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_BOOTTIME`: monotonic, and it counts suspend.
pub(crate) fn now() -> Mono {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Mono::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// How long from now until `at`; zero if it has passed.
pub(crate) fn until(at: Mono) -> Duration {
    at.since(now())
}

/// The wall clock in milliseconds since 1970: for people and for names that should not repeat, never for the protocol.
pub(crate) fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
