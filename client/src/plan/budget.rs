//! The retry budget: a token bucket that first tries fill and repeated tries empty.
//!
//! Without it a stall turns into a storm: everything that timed out is sent
//! again, on top of what arrives anyway, and the load never falls (FAULTS 33).
//! An empty bucket delays a repetition; it does not refuse it, so the outcome
//! of an operation never depends on it.

use std::time::Duration;

use crate::limits;

/// Thousandths of a token.
const TOKEN: u64 = 1000;

/// How many tries may be repeated now. Starts full.
#[derive(Debug)]
pub(crate) struct Budget {
    saved: u64,
    refilled_at: Duration,
    asked_before: u64,
}

impl Budget {
    /// A full bucket.
    pub(crate) const fn new() -> Self {
        Self {
            saved: limits::RETRIES_SAVED_MAX * TOKEN,
            refilled_at: Duration::ZERO,
            asked_before: 0,
        }
    }

    /// Takes a token for one repeated try.
    ///
    /// `now` is the time since the client's start, `asked` the first tries sent since then.
    ///
    /// # Errors
    /// How long to wait before asking again; never zero.
    pub(crate) fn take(&mut self, now: Duration, asked: u64) -> Result<(), Duration> {
        self.refill(now, asked);
        match self.saved.checked_sub(TOKEN) {
            Some(rest) => {
                self.saved = rest;
                Ok(())
            }
            None => {
                let missing = TOKEN - self.saved;
                let micros = missing * 1000 / limits::RETRIES_PER_SECOND;
                Err(Duration::from_micros(micros.max(1)))
            }
        }
    }

    fn refill(&mut self, now: Duration, asked: u64) {
        let passed = now.saturating_sub(self.refilled_at);
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        // Whole milliseconds only, so that frequent calls lose nothing to rounding.
        self.refilled_at += Duration::from_millis(millis);
        let by_time = millis.saturating_mul(limits::RETRIES_PER_SECOND);
        let by_use = asked
            .saturating_sub(self.asked_before)
            .saturating_mul(limits::RETRIES_PER_MILLE);
        self.asked_before = self.asked_before.max(asked);
        self.saved = self
            .saved
            .saturating_add(by_time)
            .saturating_add(by_use)
            .min(limits::RETRIES_SAVED_MAX * TOKEN);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_connection_can_be_repeated_at_once_but_not_twice() {
        let mut budget = Budget::new();
        let now = Duration::ZERO;
        for _ in 0..limits::RETRIES_SAVED_MAX {
            assert_eq!(budget.take(now, 0), Ok(()));
        }
        assert_eq!(budget.take(now, 0), Err(Duration::from_millis(50)));
        assert_eq!(budget.take(now + Duration::from_millis(50), 0), Ok(()));
    }

    #[test]
    fn ten_first_tries_allow_one_repetition() {
        let mut budget = Budget::new();
        while budget.take(Duration::ZERO, 0).is_ok() {}
        assert!(budget.take(Duration::ZERO, 9).is_err());
        assert_eq!(budget.take(Duration::ZERO, 10), Ok(()));
        assert!(budget.take(Duration::ZERO, 10).is_err());
    }

    proptest! {
        #[test]
        fn repetitions_never_exceed_their_share(steps in prop::collection::vec((0..500_u64, 0..200_u64, 0..100_u32), 1..60)) {
            let (mut budget, mut now, mut asked, mut granted) = (Budget::new(), Duration::ZERO, 0, 0_u64);
            for (ms, more, wanted) in steps {
                now += Duration::from_millis(ms);
                asked += more;
                for _ in 0..wanted {
                    match budget.take(now, asked) {
                        Ok(()) => granted += 1,
                        Err(pause) => {
                            prop_assert!(!pause.is_zero());
                            break;
                        }
                    }
                }
            }
            let share = asked * limits::RETRIES_PER_MILLE / 1000;
            let floor = u64::try_from(now.as_millis()).expect("short") * limits::RETRIES_PER_SECOND / 1000;
            prop_assert!(granted <= limits::RETRIES_SAVED_MAX + share + floor + 1);
        }
    }
}
