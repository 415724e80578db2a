//! What follows a try that brought no answer.
//!
//! The rule for outcomes (DESIGN §3.4): an operation *failed* only if every one of
//! its tries failed definitely; otherwise, when it gives up, it is *unknown*.
//! Reads change nothing, so they always fail.

use std::sync::Arc;
use std::time::Duration;

use catena_proto::errors::{Reason, Refusal};

use crate::{Cause, Error};

/// How often an operation may be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Any number of times: a read, or the opening of a session.
    Repeatable,
    /// Sent any number of times, executed once: a write under a session.
    Session,
    /// Never sent again once it may have been executed: a write without a session.
    Once,
}

/// What a try met in place of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It never left this process: no route, or no connection.
    NotSent(Arc<str>),
    /// It never left this process: the connection's queue is full.
    Full(Arc<str>),
    /// The connection broke after it had been sent.
    Lost(Arc<str>),
    /// No answer in the try's time, though it had been sent.
    Silent,
    /// A node refused it.
    Refused(Box<Refusal>),
}

impl Trouble {
    /// Whether this try certainly did nothing and never will.
    pub(crate) fn is_definite(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Full(_) => true,
            Self::Lost(_) | Self::Silent => false,
            Self::Refused(refusal) => !refusal.indefinite,
        }
    }

    /// Whether the try reached a node, and so cost it something.
    pub(crate) const fn was_sent(&self) -> bool {
        !matches!(self, Self::NotSent(_) | Self::Full(_))
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The same again, after a pause.
    Retry {
        /// The pause.
        after: Duration,
    },
    /// Choose the node anew, after a pause: another member, or whoever is head by then.
    Reroute {
        /// The pause.
        after: Duration,
    },
    /// Open another session; the write was never executed under this one.
    NewSession,
    /// Ask the same node by a unary call: the answer does not fit the pipe.
    Unary,
    /// End, with this outcome.
    GiveUp(Verdict),
}

/// The outcome of an operation that gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Every try failed definitely.
    Failed,
    /// A try may have been executed.
    Unknown,
}

/// What is known when a try has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Time since the operation began.
    pub(crate) elapsed: Duration,
    /// The operation's time-out.
    pub(crate) timeout: Duration,
    /// The pause whose turn it is.
    pub(crate) pause: Duration,
    /// Nodes that could answer this operation.
    pub(crate) candidates: usize,
    /// Whether the trouble taught a newer route.
    pub(crate) learned: bool,
}

/// The tries of one operation so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tries {
    kind: Kind,
    count: usize,
    /// A try may have been executed.
    uncertain: bool,
}

impl Tries {
    /// None yet.
    pub(crate) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            count: 0,
            uncertain: false,
        }
    }

    /// How many have ended.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// The outcome if the operation gave up now.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.uncertain && self.kind != Kind::Repeatable {
            Verdict::Unknown
        } else {
            Verdict::Failed
        }
    }

    /// Notes that a try has met `trouble`, and decides what follows.
    pub(crate) fn decide(&mut self, trouble: &Trouble, at: &Moment) -> Next {
        self.count += 1;
        let before = self.verdict();
        self.uncertain |= !trouble.is_definite();
        let next = self.wish(trouble, at, before);
        match next {
            Next::Retry { after } | Next::Reroute { after }
                if at.elapsed.saturating_add(after) >= at.timeout =>
            {
                Next::GiveUp(self.verdict())
            }
            Next::NewSession | Next::Unary if at.elapsed >= at.timeout => {
                Next::GiveUp(self.verdict())
            }
            next => next,
        }
    }

    /// What would follow if time were no matter.
    fn wish(&self, trouble: &Trouble, at: &Moment, before: Verdict) -> Next {
        if self.kind == Kind::Once && self.uncertain {
            return Next::GiveUp(Verdict::Unknown);
        }
        // Each candidate is asked at once; then it takes pauses.
        let elsewhere = Next::Reroute {
            after: match self.kind {
                Kind::Repeatable if self.count < at.candidates => Duration::ZERO,
                _ => at.pause,
            },
        };
        let refusal = match trouble {
            Trouble::NotSent(_) | Trouble::Lost(_) | Trouble::Silent => return elsewhere,
            Trouble::Full(_) if before == Verdict::Unknown => {
                return Next::Retry { after: at.pause };
            }
            Trouble::Full(_) => return Next::GiveUp(self.verdict()),
            Trouble::Refused(refusal) => refusal,
        };
        let after = at.pause.max(refusal.retry_after.unwrap_or_default());
        match refusal.reason {
            Reason::WrongChain if at.learned => Next::Reroute {
                after: Duration::ZERO,
            },
            Reason::WrongChain | Reason::Interrupted => elsewhere,
            Reason::NotReady => match elsewhere {
                Next::Reroute {
                    after: Duration::ZERO,
                } => elsewhere,
                _ => Next::Reroute { after },
            },
            Reason::TooStale if self.count < at.candidates => elsewhere,
            Reason::Overloaded | Reason::SessionsExhausted | Reason::Deadline => {
                Next::Retry { after }
            }
            Reason::UnknownSession if before == Verdict::Failed && !refusal.indefinite => {
                Next::NewSession
            }
            Reason::UseUnary => Next::Unary,
            // The session keeps it from being done twice: another try can still find out what happened.
            Reason::Internal if refusal.indefinite => Next::Retry { after },
            Reason::UnknownSession
            | Reason::TooStale
            | Reason::Superseded
            | Reason::Invalid
            | Reason::ForeignCluster
            | Reason::ReadOnly
            | Reason::Internal => Next::GiveUp(self.verdict()),
        }
    }

    /// The error of an operation that gives up after `trouble`.
    pub(crate) fn error(&self, verdict: Verdict, trouble: &Trouble, at: &Moment) -> Error {
        let late = at.elapsed.saturating_add(at.pause) >= at.timeout;
        let cause = cause(trouble, verdict, late.then_some(at.timeout));
        match verdict {
            Verdict::Failed => Error::Failed(cause),
            Verdict::Unknown => Error::Unknown(cause),
        }
    }
}

/// The words for it; `late` is the time-out that ended the tries, if one did.
fn cause(trouble: &Trouble, verdict: Verdict, late: Option<Duration>) -> Cause {
    let refusal = match trouble {
        Trouble::NotSent(why) => return Cause::Unreachable(why.to_string()),
        Trouble::Full(why) => return Cause::Overloaded(why.to_string()),
        Trouble::Lost(why) => {
            return match late {
                Some(after) => Cause::TimedOut {
                    after,
                    last: Some(why.to_string()),
                },
                None => Cause::Interrupted(why.to_string()),
            };
        }
        Trouble::Silent => {
            return Cause::TimedOut {
                after: late.unwrap_or_default(),
                last: None,
            };
        }
        Trouble::Refused(refusal) => refusal,
    };
    let message = refusal.message.clone();
    match refusal.reason {
        Reason::WrongChain | Reason::NotReady => Cause::NotReady(message),
        Reason::Overloaded | Reason::SessionsExhausted => Cause::Overloaded(message),
        Reason::UnknownSession | Reason::Superseded if verdict == Verdict::Unknown => {
            Cause::SessionLost(message)
        }
        Reason::Invalid => Cause::Invalid(message),
        Reason::Deadline => Cause::TimedOut {
            after: late.unwrap_or_default(),
            last: Some(message),
        },
        Reason::UnknownSession | Reason::Superseded | Reason::Interrupted => {
            Cause::Interrupted(message)
        }
        Reason::ForeignCluster => Cause::ForeignCluster(message),
        Reason::ReadOnly => Cause::ReadOnly(message),
        Reason::TooStale => Cause::TooStale(message),
        Reason::Internal | Reason::UseUnary => Cause::Internal(message),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOMENT: Moment = Moment {
        elapsed: Duration::ZERO,
        timeout: Duration::from_secs(5),
        pause: Duration::from_millis(10),
        candidates: 3,
        learned: false,
    };

    fn refused(reason: Reason) -> Trouble {
        Trouble::Refused(Box::new(Refusal::new(reason, "x")))
    }

    fn reroute(ms: u64) -> Next {
        Next::Reroute {
            after: Duration::from_millis(ms),
        }
    }

    #[test]
    fn a_lost_write_is_sent_again_only_under_a_session() {
        let lost = Trouble::Lost("reset".into());
        let mut once = Tries::new(Kind::Once);
        assert_eq!(once.decide(&lost, &MOMENT), Next::GiveUp(Verdict::Unknown));
        let mut session = Tries::new(Kind::Session);
        assert_eq!(session.decide(&lost, &MOMENT), reroute(10));
    }

    #[test]
    fn an_unknown_session_is_replaced_only_if_no_earlier_try_was_sent() {
        let gone = refused(Reason::UnknownSession);
        let mut tries = Tries::new(Kind::Session);
        assert_eq!(tries.decide(&gone, &MOMENT), Next::NewSession);
        let mut tries = Tries::new(Kind::Session);
        tries.decide(&Trouble::Silent, &MOMENT);
        let next = tries.decide(&gone, &MOMENT);
        assert_eq!(next, Next::GiveUp(Verdict::Unknown));
        let Error::Unknown(Cause::SessionLost(_)) = tries.error(Verdict::Unknown, &gone, &MOMENT)
        else {
            panic!("the caller must learn why");
        };
    }

    #[test]
    fn a_read_asks_each_member_at_once_and_then_takes_pauses() {
        let mut tries = Tries::new(Kind::Repeatable);
        let not_ready = refused(Reason::NotReady);
        assert_eq!(tries.decide(&not_ready, &MOMENT), reroute(0));
        assert_eq!(tries.decide(&not_ready, &MOMENT), reroute(0));
        assert_eq!(tries.decide(&not_ready, &MOMENT), reroute(10));
    }

    #[test]
    fn a_wrong_chain_answer_that_taught_something_costs_no_pause() {
        let wrong = refused(Reason::WrongChain);
        let mut tries = Tries::new(Kind::Session);
        assert_eq!(tries.decide(&wrong, &MOMENT), reroute(10));
        let learned = Moment {
            learned: true,
            ..MOMENT
        };
        assert_eq!(tries.decide(&wrong, &learned), reroute(0));
    }

    #[test]
    fn a_hint_to_stay_away_is_kept_and_never_beyond_the_deadline() {
        let hint = Refusal::new(Reason::Overloaded, "x").retry_after(Duration::from_secs(1));
        let hint = Trouble::Refused(Box::new(hint));
        let mut tries = Tries::new(Kind::Session);
        let after = Duration::from_secs(1);
        assert_eq!(tries.decide(&hint, &MOMENT), Next::Retry { after });
        let late = Moment {
            elapsed: Duration::from_secs(4),
            ..MOMENT
        };
        assert_eq!(tries.decide(&hint, &late), Next::GiveUp(Verdict::Failed));
    }

    #[test]
    fn a_full_queue_fails_early_unless_an_earlier_try_is_still_open() {
        let full = Trouble::Full("4096 requests wait".into());
        let mut tries = Tries::new(Kind::Session);
        assert_eq!(tries.decide(&full, &MOMENT), Next::GiveUp(Verdict::Failed));
        let mut tries = Tries::new(Kind::Session);
        tries.decide(&Trouble::Silent, &MOMENT);
        let after = MOMENT.pause;
        assert_eq!(tries.decide(&full, &MOMENT), Next::Retry { after });
    }

    fn trouble() -> impl Strategy<Value = Trouble> {
        let refusal = (
            prop::sample::select(Reason::ALL),
            any::<bool>(),
            0..3000_u64,
        )
            .prop_map(|(reason, indefinite, ms)| {
                let mut refusal = Refusal::new(reason, "x").retry_after(Duration::from_millis(ms));
                refusal.indefinite |= indefinite;
                Trouble::Refused(Box::new(refusal))
            });
        prop_oneof![
            1 => Just(Trouble::NotSent("x".into())),
            1 => Just(Trouble::Full("x".into())),
            1 => Just(Trouble::Lost("x".into())),
            1 => Just(Trouble::Silent),
            4 => refusal,
        ]
    }

    proptest! {
        #[test]
        fn no_outcome_turns_into_another(
            kind in prop::sample::select(vec![Kind::Repeatable, Kind::Session, Kind::Once]),
            steps in prop::collection::vec((trouble(), 0..800_u64, any::<bool>()), 1..30),
        ) {
            let mut tries = Tries::new(kind);
            let mut elapsed = Duration::ZERO;
            let mut open = false;
            for (trouble, ms, learned) in steps {
                elapsed += Duration::from_millis(ms);
                let at = Moment { elapsed, learned, ..MOMENT };
                let open_before = open;
                open |= !trouble.is_definite();
                let next = tries.decide(&trouble, &at);
                match next {
                    Next::GiveUp(verdict) => {
                        let unknown = open && kind != Kind::Repeatable;
                        prop_assert_eq!(verdict == Verdict::Unknown, unknown);
                        let error = tries.error(verdict, &trouble, &at);
                        prop_assert_eq!(error.is_unknown(), unknown);
                        return Ok(());
                    }
                    Next::Retry { after } | Next::Reroute { after } => {
                        prop_assert!(elapsed + after < at.timeout);
                        prop_assert!(!(kind == Kind::Once && open), "a write without a session was sent again");
                        elapsed += after;
                    }
                    Next::NewSession => {
                        prop_assert!(elapsed < at.timeout);
                        prop_assert!(kind == Kind::Repeatable || !open_before && !open);
                    }
                    Next::Unary => prop_assert!(!(kind == Kind::Once && open)),
                }
            }
        }
    }
}
