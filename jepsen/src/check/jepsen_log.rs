//! Histories as Jepsen logs them: `INFO  jepsen.util - 0 :invoke :cas [3 0]`.
//!
//! What stands before the process is the logger's and varies with its
//! settings, so an event is found by its shape: a process, one of
//! `:invoke :ok :fail :info`, a function, a value. Other lines of a log are
//! skipped, unless they have such a type and still are no event: that would
//! be a damaged event, and it must not vanish.

use bytes::Bytes;

use super::edn::{Edn, Reader};
use super::history::History;
use super::jepsen_event::JepsenEvent;
use super::operation::Process;
use super::parse::{LineProblem, ParseError};

const TYPES: [&str; 4] = [":invoke", ":ok", ":fail", ":info"];

/// Reads a history from Jepsen's log lines.
///
/// # Errors
/// The first event that is malformed or cannot follow the ones before it.
pub fn parse(text: &str) -> Result<History, ParseError> {
    let mut history = History::new();
    for (index, line) in text.lines().enumerate() {
        parse_line(&mut history, line).map_err(|problem| ParseError::line(index, problem))?;
    }
    Ok(history)
}

/// Whether a line could be the first of such a log.
pub(super) fn looks_like_it(line: &str) -> bool {
    line.contains("jepsen") || line.split_whitespace().any(|word| TYPES.contains(&word))
}

fn parse_line(history: &mut History, line: &str) -> Result<(), LineProblem> {
    let mut rest = line;
    let mut before = "";
    let kind = loop {
        let trimmed = rest.trim_start();
        if trimmed.is_empty() {
            return Ok(());
        }
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        let (word, after) = trimmed.split_at(end);
        rest = after;
        if TYPES.contains(&word) {
            break word;
        }
        before = word;
    };
    if before.starts_with(':') {
        return Ok(());
    }
    let process = before.parse().map_err(|_| LineProblem::Field {
        name: "process",
        wanted: "a number before the type",
    })?;
    let mut reader = Reader::new(rest);
    let mut next = |missing| match reader.next_value() {
        Ok(Some(value)) => Ok(value),
        Ok(None) => Err(LineProblem::Missing(missing)),
        Err(error) => Err(LineProblem::Syntax(error.to_string())),
    };
    let Edn::Keyword(function) = next("function")? else {
        return Err(LineProblem::Field {
            name: "function",
            wanted: "a keyword",
        });
    };
    let value = next("value")?;
    JepsenEvent {
        process: Process::new(process),
        kind: kind.trim_start_matches(':'),
        function: &function,
        key: Bytes::new(),
        value: &value,
        has_error: false,
        time_ns: None,
    }
    .add_to(history)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operation::{Answer, Outcome};

    #[test]
    fn outcomes_are_told_apart() {
        let history = parse(
            "INFO  jepsen.core - Run starts\n\
             INFO  jepsen.util - 0\t:invoke\t:cas\t[3 0]\n\
             INFO  jepsen.util - :nemesis\t:info\t:start\tnil\n\
             INFO  jepsen.util - 0\t:fail\t:cas\t[3 0]\n\
             2018-05-31 INFO [worker 0] jepsen.util: 0 :invoke :write 4\n\
             INFO  jepsen.util - 0\t:info\t:write\t:timed-out\n\
             INFO  jepsen.util - 0\t:invoke\t:read\tnil\n\
             INFO  jepsen.util - 0\t:fail\t:read\t:timed-out\n\
             INFO  jepsen.util - 0\t:invoke\t:read\tnil\n\
             INFO  jepsen.util - 0\t:ok\t:read\tnil\n",
        )
        .expect("well formed");
        let outcomes: Vec<_> = history
            .operations()
            .iter()
            .map(|op| op.outcome.clone())
            .collect();
        assert_eq!(
            outcomes,
            [
                Outcome::Ok(Answer::Mismatch { version: None }),
                Outcome::Unknown,
                Outcome::Failed,
                Outcome::Ok(Answer::Read {
                    value: None,
                    version: None
                }),
            ]
        );
    }

    #[test]
    fn a_damaged_event_is_not_skipped() {
        for line in [
            "INFO  jepsen.util - 0\t:invoke",
            "INFO  jepsen.util - x\t:invoke\t:read\tnil",
            "INFO  jepsen.util - 0\t:invoke\t:read",
            "INFO  jepsen.util - 0\t:invoke\t:cas\t[1",
            "INFO  jepsen.util - 0\t:invoke\t:cas\t7",
            "INFO  jepsen.util - 0\t:ok\t:read\t7",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
