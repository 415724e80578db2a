//! Which master is asked next, and when: in turn, with jitter, so that a fleet that lost them together does not come
//! back together (FAULTS 26).

use std::time::Duration;

use catena_proto::limits;

/// The shortest pause before another try; the longest at first, and at last.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// The pause after a master that said what makes no sense here.
const PAUSE_SENSELESS: Duration = Duration::from_secs(5);
/// Masters that name each other as the leader are not followed for ever without a pause.
const FOLLOWED_MAX: u32 = 3;

/// The masters that a node was started with, and the pace at which they are asked.
#[derive(Debug)]
pub(crate) struct Masters {
    addrs: Vec<String>,
    at: usize,
    /// Where the last one sent us; it may be one that we were not started with.
    hint: Option<String>,
    followed: u32,
    pause_max: Duration,
}

impl Masters {
    /// These masters, from any of them on.
    pub(crate) fn new(addrs: Vec<String>) -> Self {
        let at = usize::try_from(random()).unwrap_or(0);
        Self {
            at,
            addrs,
            hint: None,
            followed: 0,
            pause_max: PAUSE_MAX_FIRST,
        }
    }

    /// The master to be asked now; `None` if there is none at all.
    pub(crate) fn next(&mut self) -> Option<String> {
        if let Some(hint) = self.hint.take() {
            return Some(hint);
        }
        if self.addrs.is_empty() {
            return None;
        }
        self.at = self.at.wrapping_add(1) % self.addrs.len();
        self.addrs.get(self.at).cloned()
    }

    /// A subscription was of use: pauses begin anew.
    pub(crate) fn was_of_use(&mut self) {
        self.pause_max = PAUSE_MAX_FIRST;
        self.followed = 0;
    }

    /// Another master leads: it is asked next. How long to wait before.
    pub(crate) fn follow(&mut self, leader: String) -> Duration {
        self.followed += 1;
        if leader.len() <= limits::ADDR_BYTES_MAX {
            self.hint = Some(leader);
        }
        if self.followed <= FOLLOWED_MAX {
            return Duration::ZERO;
        }
        self.pause()
    }

    /// The same master is asked next. How long to wait before.
    pub(crate) fn again(&mut self, addr: String) -> Duration {
        self.hint = Some(addr);
        jitter(Duration::ZERO, PAUSE_MIN)
    }

    /// The same master is asked next, after a pause.
    pub(crate) fn retry(&mut self, addr: String) -> Duration {
        self.hint = Some(addr);
        self.pause()
    }

    /// How long to wait before the next try; longer from try to try.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = jitter(PAUSE_MIN, self.pause_max);
        self.pause_max = (self.pause_max * 2).min(PAUSE_MAX);
        pause
    }

    /// A master said when to come again: not sooner, and not all at once.
    pub(crate) fn later(&mut self, span: Duration) -> Duration {
        span + self.pause()
    }

    /// A master made no sense: it, or this node, is wrongly set up, and hurry mends nothing.
    pub(crate) fn slowly(&mut self) -> Duration {
        self.pause_max = PAUSE_MAX;
        jitter(PAUSE_SENSELESS / 2, PAUSE_SENSELESS)
    }
}

/// A random span between two.
fn jitter(from: Duration, to: Duration) -> Duration {
    let nanos = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
    from + Duration::from_nanos(random() % nanos.max(1))
}

/// Without the system's randomness the clock has to do: nothing rests on it but the spread.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|_| super::clock::now().as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_named_is_asked_at_once_but_not_for_ever() {
        let mut masters = Masters::new(vec!["a:1".to_owned(), "b:1".to_owned()]);
        for _ in 0..FOLLOWED_MAX {
            assert_eq!(masters.follow("c:1".to_owned()), Duration::ZERO);
            assert_eq!(masters.next().as_deref(), Some("c:1"));
        }
        assert!(masters.follow("c:1".to_owned()) >= PAUSE_MIN);
        masters.next();
        let asked = [masters.next(), masters.next()].map(Option::unwrap_or_default);
        assert!(asked.contains(&"a:1".to_owned()) && asked.contains(&"b:1".to_owned()));
    }

    #[test]
    fn pauses_grow_to_their_bound_and_begin_anew() {
        let mut masters = Masters::new(Vec::new());
        assert_eq!(masters.next(), None);
        for _ in 0..10 {
            let pause = masters.pause();
            assert!(pause >= PAUSE_MIN && pause <= PAUSE_MAX);
        }
        assert_eq!(masters.pause_max, PAUSE_MAX);
        masters.was_of_use();
        assert!(masters.pause() <= PAUSE_MAX_FIRST);
    }
}
