//! A counter's final value lies between what was acknowledged and what may have happened.
//!
//! Source: Jepsen's `counter` checker, and DESIGN §3.4 (exactly once). Each
//! acknowledged increment counts once, a failed one not at all, an unknown
//! one once or not at all:
//!
//! `acknowledged + unknown below 0 <= final <= acknowledged + unknown above 0`
//!
//! Sums are of 128 bits, so they cannot overflow.

use crate::check::operation::{Op, Operation, Outcome};

/// The final value cannot come from the increments that were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CounterTotalError {
    /// Something acknowledged was lost.
    #[error(
        "the counter ends at {last}, below {lowest}: an acknowledged increment was lost, or a negative one counted twice"
    )]
    TooLow {
        /// The final value.
        last: i128,
        /// The lowest that it can be.
        lowest: i128,
    },
    /// Something counted twice.
    #[error(
        "the counter ends at {last}, above {highest}: an increment counted twice, or a failed one was executed"
    )]
    TooHigh {
        /// The final value.
        last: i128,
        /// The highest that it can be.
        highest: i128,
    },
}

/// Checks the final value of one key, read after every increment had ended or been given up.
///
/// Operations other than `incr` are not looked at: the key must have been
/// absent or 0 before, and no one may have set it.
///
/// # Errors
/// When the value is outside the bounds.
pub fn check<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    last: i64,
) -> Result<(), CounterTotalError> {
    let (mut lowest, mut highest) = (0i128, 0i128);
    for operation in operations {
        let Op::Incr { by } = operation.op else {
            continue;
        };
        let by = i128::from(by);
        match operation.outcome {
            Outcome::Ok(_) => {
                lowest += by;
                highest += by;
            }
            Outcome::Failed => {}
            Outcome::Unknown => {
                lowest += by.min(0);
                highest += by.max(0);
            }
        }
    }
    let last = i128::from(last);
    if last < lowest {
        return Err(CounterTotalError::TooLow { last, lowest });
    }
    if last > highest {
        return Err(CounterTotalError::TooHigh { last, highest });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::check::history::History;
    use crate::check::operation::{Answer, Process};

    /// Acknowledged 5 and -1, failed 100, unknown 10 and -3.
    fn history() -> History {
        let counted = Outcome::Ok(Answer::Counted {
            value: None,
            version: None,
        });
        let mut history = History::new();
        for (by, outcome) in [
            (5, counted.clone()),
            (-1, counted),
            (100, Outcome::Failed),
            (10, Outcome::Unknown),
            (-3, Outcome::Unknown),
        ] {
            let process = Process::new(0);
            history
                .invoke(process, Bytes::from_static(b"n"), Op::Incr { by }, None)
                .expect("nothing is in flight");
            history
                .complete(process, outcome, None)
                .expect("it is in flight");
        }
        history
    }

    #[test]
    fn every_total_that_the_unknown_ones_allow_is_accepted() {
        for last in [1, 4, 14] {
            assert_eq!(check(history().operations(), last), Ok(()));
        }
    }

    #[test]
    fn a_lost_and_a_doubled_increment_are_caught() {
        assert_eq!(
            check(history().operations(), 0),
            Err(CounterTotalError::TooLow { last: 0, lowest: 1 })
        );
        assert_eq!(
            check(history().operations(), 15),
            Err(CounterTotalError::TooHigh {
                last: 15,
                highest: 14
            })
        );
    }
}
