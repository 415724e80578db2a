//! The front door for histories: which format a text is in, and what can be wrong with it.

use super::edn_history;
use super::history::{History, HistoryError};
use super::jepsen_log;
use super::json_lines;

/// A format of recorded histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Our own: JSON lines, see [`super::json_lines`].
    JsonLines,
    /// EDN maps, see [`super::edn_history`].
    Edn,
    /// The log lines that Jepsen prints, see [`super::jepsen_log`].
    JepsenLog,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// It is not of the format's syntax.
    #[error("it does not read as an event: {0}")]
    Syntax(String),
    /// A field that it needs is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A field is there and has another type.
    #[error("`{name}` wants {wanted}")]
    Field {
        /// The field.
        name: &'static str,
        /// What it wants.
        wanted: &'static str,
    },
    /// A word that no checker knows; skipping it could hide a write.
    #[error("{what} `{found}` is not one that the checkers know (see docs/HISTORY_FORMAT.md)")]
    Unsupported {
        /// Which field.
        what: &'static str,
        /// Its content.
        found: String,
    },
    /// The event cannot follow the ones before it.
    #[error(transparent)]
    Order(#[from] HistoryError),
}

/// Why a text could not be read as a history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A line is wrong.
    #[error("line {line}: {problem}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong.
        problem: LineProblem,
    },
    /// The first line is of no known format.
    #[error(
        "the format is not known: the first line should be a JSON object, an EDN map, or a line such as `INFO jepsen.util - 0 :invoke :read nil`"
    )]
    UnknownFormat,
}

impl ParseError {
    pub(super) const fn line(index: usize, problem: LineProblem) -> Self {
        Self::Line {
            line: index + 1,
            problem,
        }
    }
}

/// Tells the format by the first line that is not blank; an empty text is our own format without events.
///
/// # Errors
/// [`ParseError::UnknownFormat`].
pub fn detect(text: &str) -> Result<Format, ParseError> {
    let Some(line) = text
        .lines()
        .map(str::trim_start)
        .find(|line| !line.is_empty())
    else {
        return Ok(Format::JsonLines);
    };
    if let Some(inside) = line.strip_prefix('{') {
        let json = inside.trim_start().starts_with(['"', '}']);
        return Ok(if json { Format::JsonLines } else { Format::Edn });
    }
    if line.starts_with(['#', '[', ';']) {
        return Ok(Format::Edn);
    }
    if jepsen_log::looks_like_it(line) {
        return Ok(Format::JepsenLog);
    }
    Err(ParseError::UnknownFormat)
}

/// Reads a history in the format given, or in the one that its first line shows.
///
/// # Errors
/// The first line that is malformed or cannot follow the ones before it.
pub fn parse(text: &str, format: Option<Format>) -> Result<History, ParseError> {
    let format = match format {
        Some(format) => format,
        None => detect(text)?,
    };
    match format {
        Format::JsonLines => json_lines::parse(text),
        Format::Edn => edn_history::parse(text),
        Format::JepsenLog => jepsen_log::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_the_format() {
        assert_eq!(detect("\n{\"type\":\"note\"}"), Ok(Format::JsonLines));
        assert_eq!(detect(""), Ok(Format::JsonLines));
        assert_eq!(detect("{:process 0, :type :invoke}"), Ok(Format::Edn));
        assert_eq!(detect("#jepsen.history.Op{:index 0}"), Ok(Format::Edn));
        assert_eq!(
            detect("INFO  jepsen.util - 0\t:invoke\t:read\tnil"),
            Ok(Format::JepsenLog)
        );
        assert_eq!(detect("hello"), Err(ParseError::UnknownFormat));
    }
}
