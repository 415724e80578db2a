//! Every acknowledged append is in the final value exactly once, and nothing else is, in an order that time allows.
//!
//! Source: Jepsen's `set-full` and Elle's list-append ideas, and DESIGN §3.4
//! (exactly once). Items are appended with a separator behind each, every
//! item is unique, and the final value is split at the separators:
//!
//! - an acknowledged item is there once; an unknown one at most once;
//! - a failed item, and one that nobody appended, is not there;
//! - an item that was acknowledged before another was called stands before it.

use std::collections::BTreeMap;

use crate::check::operation::{Op, Operation, Outcome, Shown};

/// The final value cannot come from the appends that were asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendListError {
    /// The items do not follow the checker's rules, so nothing can be said.
    #[error(
        "the item {0} was appended twice by the workload: give each append an item of its own, ending with the separator"
    )]
    NotUnique(String),
    /// An acknowledged item is not there.
    #[error("the acknowledged item {0} is not in the final value: an acknowledged append was lost")]
    Lost(String),
    /// An item is there more than once.
    #[error("the item {0} is in the final value more than once: a retry was executed again")]
    Doubled(String),
    /// A failed item is there.
    #[error("the item {0} is in the final value, but its append failed definitely")]
    FailedButThere(String),
    /// Bytes that nobody appended.
    #[error("the final value has {0}, which nobody appended")]
    Foreign(String),
    /// Two items are in an order that time forbids.
    #[error(
        "the item {later} stands before {earlier}, which was acknowledged before {later} was appended"
    )]
    OutOfOrder {
        /// The item that was acknowledged first.
        earlier: String,
        /// The item that was called afterwards.
        later: String,
    },
}

/// Checks the final value of one key, read after every append had ended or been given up.
///
/// Operations other than `append` are not looked at: the key must have been
/// absent or empty before, and no one may have set it.
///
/// # Errors
/// The first thing that is wrong.
pub fn check<'a>(
    operations: impl IntoIterator<Item = &'a Operation>,
    last: &[u8],
    separator: u8,
) -> Result<(), AppendListError> {
    let mut appended: BTreeMap<&[u8], &Operation> = BTreeMap::new();
    for operation in operations {
        let Op::Append { value } = &operation.op else {
            continue;
        };
        let item: &[u8] = value;
        let single = item.iter().position(|byte| *byte == separator) == item.len().checked_sub(1);
        if !single || appended.insert(item, operation).is_some() {
            return Err(AppendListError::NotUnique(shown(item)));
        }
    }
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut in_order: Vec<(&[u8], &Operation)> = Vec::new();
    for item in last.split_inclusive(|byte| *byte == separator) {
        let operation = appended
            .get(item)
            .ok_or_else(|| AppendListError::Foreign(shown(item)))?;
        if operation.outcome == Outcome::Failed {
            return Err(AppendListError::FailedButThere(shown(item)));
        }
        if places.insert(item, in_order.len()).is_some() {
            return Err(AppendListError::Doubled(shown(item)));
        }
        in_order.push((item, operation));
    }
    for (item, operation) in &appended {
        if matches!(operation.outcome, Outcome::Ok(_)) && !places.contains_key(item) {
            return Err(AppendListError::Lost(shown(item)));
        }
    }
    check_order(&in_order)
}

/// From the end: no item may have been called after the earliest acknowledgement behind it.
fn check_order(in_order: &[(&[u8], &Operation)]) -> Result<(), AppendListError> {
    let mut earliest: Option<(&[u8], crate::check::operation::Moment)> = None;
    for (item, operation) in in_order.iter().rev() {
        if let Some((earlier, end)) = earliest
            && end < operation.call
        {
            return Err(AppendListError::OutOfOrder {
                earlier: shown(earlier),
                later: shown(item),
            });
        }
        if let (Outcome::Ok(_), Some(end)) = (&operation.outcome, operation.end)
            && earliest.is_none_or(|(_, other)| end < other)
        {
            earliest = Some((item, end));
        }
    }
    Ok(())
}

fn shown(item: &[u8]) -> String {
    Shown(item).to_string()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::check::history::History;
    use crate::check::operation::{Answer, Process};

    /// `a` then `b` acknowledged, `c` failed, `d` unknown.
    fn history() -> History {
        let written = Outcome::Ok(Answer::Written { version: None });
        let mut history = History::new();
        for (item, outcome) in [
            ("a;", written.clone()),
            ("b;", written),
            ("c;", Outcome::Failed),
            ("d;", Outcome::Unknown),
        ] {
            let process = Process::new(0);
            let op = Op::Append {
                value: Bytes::from_static(item.as_bytes()),
            };
            history
                .invoke(process, Bytes::from_static(b"k"), op, None)
                .expect("nothing is in flight");
            history
                .complete(process, outcome, None)
                .expect("it is in flight");
        }
        history
    }

    #[test]
    fn an_unknown_item_may_be_there_or_not() {
        for last in ["a;b;", "a;b;d;"] {
            assert_eq!(check(history().operations(), last.as_bytes(), b';'), Ok(()));
        }
    }

    #[test]
    fn lost_doubled_failed_foreign_and_misplaced_items_are_caught() {
        let quoted = |text: &str| format!("{text:?}");
        for (last, error) in [
            ("a;", AppendListError::Lost(quoted("b;"))),
            ("a;b;a;", AppendListError::Doubled(quoted("a;"))),
            ("a;b;c;", AppendListError::FailedButThere(quoted("c;"))),
            ("a;b;x;", AppendListError::Foreign(quoted("x;"))),
            ("a;b;d", AppendListError::Foreign(quoted("d"))),
            (
                "b;a;",
                AppendListError::OutOfOrder {
                    earlier: quoted("a;"),
                    later: quoted("b;"),
                },
            ),
        ] {
            assert_eq!(
                check(history().operations(), last.as_bytes(), b';'),
                Err(error),
                "{last}"
            );
        }
    }

    #[test]
    fn a_workload_that_repeats_an_item_is_told_so() {
        let history = history();
        let twice = history.operations().iter().chain(history.operations());
        assert!(matches!(
            check(twice, b"", b';'),
            Err(AppendListError::NotUnique(_))
        ));
    }
}
