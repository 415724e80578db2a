//! The clock of an open loop: says when each operation *should* start.
//!
//! A thread of its own releases the operations, because an asynchronous timer
//! wakes to the millisecond only, and that would be part of every latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::meter::Meter;

/// The pacing thread wakes at least this long after it went to sleep; operations that became due meanwhile start together.
const STEP: Duration = Duration::from_micros(100);

/// Hands out starts.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    per_second: u64,
    due: Semaphore,
    next: AtomicU64,
}

/// Starts `per_second` operations a second until the meter ends.
pub(crate) fn start(per_second: u64, meter: Arc<Meter>) -> Arc<Pace> {
    let pace = Arc::new(Pace {
        began: Instant::now(),
        per_second,
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
    });
    let paced = pace.clone();
    std::thread::spawn(move || paced.release(&meter));
    pace
}

impl Pace {
    fn release(&self, meter: &Meter) {
        let mut released = 0;
        while !meter.has_ended() {
            let due = due(self.began.elapsed(), self.per_second);
            self.due
                .add_permits(usize::try_from(due - released).unwrap_or(0));
            released = due;
            std::thread::sleep(STEP);
        }
        // Whoever still waits for a start gets none.
        self.due.close();
    }

    /// Waits for the next start; says when it was intended. `None` once the meter has ended.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Some(self.began + intended(number, self.per_second))
    }
}

/// How many operations should have started after `passed`.
fn due(passed: Duration, per_second: u64) -> u64 {
    let due = passed.as_nanos() * u128::from(per_second) / 1_000_000_000;
    u64::try_from(due).unwrap_or(u64::MAX)
}

/// When operation `number` (from 0) should start: the moment from which it is due.
fn intended(number: u64, per_second: u64) -> Duration {
    let nanos = (u128::from(number) + 1) * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_due_at_its_intended_start_and_not_before() {
        for per_second in [1, 3, 1_000, 7_000_000] {
            for number in [0, 1, 2, 1_000, 123_456] {
                let start = intended(number, per_second);
                assert!(due(start + Duration::from_nanos(1), per_second) > number);
                assert!(due(start.saturating_sub(Duration::from_nanos(1)), per_second) <= number);
            }
        }
    }
}
