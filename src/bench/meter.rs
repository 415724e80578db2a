//! Counts what the clients report while the measured stretch lasts, and nothing before or after.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catena_client::Error;
use hdrhistogram::Histogram;

/// Longest latency told apart, in nanoseconds; a longer one counts as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;
/// Significant digits of latencies: 0.1 %.
const DIGITS: u8 = 3;
/// Histograms side by side, so that clients on different cores seldom wait for each other.
const LANES: usize = 16;

/// Everything that is measured.
#[derive(Debug)]
pub(crate) struct Meter {
    /// All moments are counted from here, so that one number is enough for each.
    origin: Instant,
    measuring: AtomicBool,
    ended: AtomicBool,
    lanes: Vec<Mutex<Lane>>,
    done: AtomicU64,
    last_done_ns: AtomicU64,
    gap_ns_max: AtomicU64,
    first_error: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Lane {
    latencies: Histogram<u64>,
    errors: u64,
    unknown: u64,
}

/// What was counted.
#[derive(Clone, Debug)]
pub(crate) struct Totals {
    /// Operations that were answered well.
    pub(crate) done: u64,
    /// Operations that failed: nothing was done.
    pub(crate) errors: u64,
    /// Writes that may or may not have happened.
    pub(crate) unknown: u64,
    /// Of the operations that were answered well.
    pub(crate) latencies: Histogram<u64>,
    /// The longest stretch without such an answer, the one before the end included.
    pub(crate) gap: Duration,
    /// Why the first operation that failed did so.
    pub(crate) first_error: Option<String>,
}

impl Meter {
    /// A meter that does not measure yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            measuring: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            lanes: (0..LANES).map(|_| Mutex::new(Lane::new())).collect(),
            done: AtomicU64::new(0),
            last_done_ns: AtomicU64::new(0),
            gap_ns_max: AtomicU64::new(0),
            first_error: Mutex::new(None),
        }
    }

    /// From now on reports count.
    pub(crate) fn begin(&self, now: Instant) {
        self.last_done_ns.store(self.nanos(now), Ordering::Relaxed);
        self.measuring.store(true, Ordering::Release);
    }

    /// From now on they do not, and the clients stop.
    pub(crate) fn end(&self, now: Instant) {
        self.measuring.store(false, Ordering::Release);
        self.ended.store(true, Ordering::Release);
        self.note_gap(now);
    }

    /// Whether the clients shall stop.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Operations answered well so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Client number `client` got its answer `now`, to an operation that started at `started`.
    pub(crate) fn report(
        &self,
        client: u64,
        started: Instant,
        now: Instant,
        answer: &Result<(), Error>,
    ) {
        if let Err(error) = answer {
            let mut first = self
                .first_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| error.to_string());
        }
        if !self.measuring.load(Ordering::Acquire) {
            return;
        }
        let lane = usize::try_from(client).unwrap_or(0) % LANES;
        let mut lane = self.lanes[lane]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(()) => {
                let nanos = u64::try_from((now - started).as_nanos()).unwrap_or(u64::MAX);
                lane.latencies.saturating_record(nanos);
                drop(lane);
                self.done.fetch_add(1, Ordering::Relaxed);
                self.note_gap(now);
            }
            Err(error) if error.is_unknown() => lane.unknown += 1,
            Err(_) => lane.errors += 1,
        }
    }

    fn note_gap(&self, now: Instant) {
        let now = self.nanos(now);
        let last = self.last_done_ns.fetch_max(now, Ordering::Relaxed);
        self.gap_ns_max
            .fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    fn nanos(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Adds everything up.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals {
            done: 0,
            errors: 0,
            unknown: 0,
            latencies: histogram(),
            gap: Duration::from_nanos(self.gap_ns_max.load(Ordering::Relaxed)),
            first_error: self
                .first_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        };
        for lane in &self.lanes {
            let lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
            totals.errors += lane.errors;
            totals.unknown += lane.unknown;
            // Same bounds everywhere: adding cannot fail.
            let _ = totals.latencies.add(&lane.latencies);
        }
        totals.done = totals.latencies.len();
        totals
    }
}

impl Lane {
    fn new() -> Self {
        Self {
            latencies: histogram(),
            errors: 0,
            unknown: 0,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS)
        .expect("the bounds are constants that hdrhistogram accepts")
}

#[cfg(test)]
mod tests {
    use catena_client::Cause;

    use super::*;

    #[test]
    fn only_the_measured_stretch_counts() {
        let origin = Instant::now();
        let at = |ms| origin + Duration::from_millis(ms);
        let meter = Meter::new(origin);
        meter.report(0, at(0), at(5), &Ok(()));
        meter.begin(at(1_000));
        meter.report(0, at(1_000), at(1_010), &Ok(()));
        meter.report(17, at(1_000), at(1_310), &Ok(()));
        meter.report(
            1,
            at(1_000),
            at(1_500),
            &Err(Error::Failed(Cause::Overflow)),
        );
        meter.report(
            1,
            at(1_000),
            at(1_500),
            &Err(Error::Unknown(Cause::Overflow)),
        );
        meter.end(at(2_000));
        meter.report(0, at(1_900), at(2_100), &Ok(()));

        let totals = meter.totals();
        assert_eq!((totals.done, totals.errors, totals.unknown), (2, 1, 1));
        // The stretch before the end is one like any other.
        assert_eq!(totals.gap, Duration::from_millis(690));
        assert!(meter.has_ended());
        let longest = totals.latencies.max() as f64 / 1e6;
        assert!((longest - 310.0).abs() < 1.0, "{longest}");
        assert_eq!(
            totals.first_error,
            Some(Error::Failed(Cause::Overflow).to_string())
        );
    }
}
