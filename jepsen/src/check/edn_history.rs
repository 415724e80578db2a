//! Histories as EDN maps: `{:process 0, :type :invoke, :f :append, :key "0", :value "x"}`.
//!
//! One map after the other, or one vector of them; Jepsen's `history.edn` is
//! of this form. Other keys are ignored.

use bytes::Bytes;

use super::edn::{Edn, Reader};
use super::history::History;
use super::jepsen_event::{JepsenEvent, scalar};
use super::operation::Process;
use super::parse::{LineProblem, ParseError};

/// Reads a history of EDN maps.
///
/// # Errors
/// The first map that is malformed or cannot follow the ones before it.
pub fn parse(text: &str) -> Result<History, ParseError> {
    let mut history = History::new();
    let mut reader = Reader::new(text);
    // Line numbers are counted forwards with the reader, so a long text is walked once.
    let (mut line, mut counted) = (0, 0);
    loop {
        let at = reader.position();
        line += text[counted..at].matches('\n').count();
        counted = at;
        let value = reader
            .next_value()
            .map_err(|error| ParseError::line(line, LineProblem::Syntax(error.to_string())))?;
        let result = match value {
            None => return Ok(history),
            Some(Edn::Vector(events)) => {
                events.iter().try_for_each(|event| add(&mut history, event))
            }
            Some(event) => add(&mut history, &event),
        };
        result.map_err(|problem| ParseError::line(line, problem))?;
    }
}

fn add(history: &mut History, event: &Edn) -> Result<(), LineProblem> {
    if !matches!(event, Edn::Map(_)) {
        return Err(LineProblem::Syntax("an event is a map".to_owned()));
    }
    let process = match event.get("process") {
        Some(Edn::Int(number)) => u64::try_from(*number).map_err(|_| LineProblem::Field {
            name: ":process",
            wanted: "a number from 0",
        })?,
        Some(Edn::Keyword(_)) => return Ok(()),
        Some(_) => {
            return Err(LineProblem::Field {
                name: ":process",
                wanted: "a number",
            });
        }
        None => return Err(LineProblem::Missing(":process")),
    };
    let key = match event.get("key") {
        None => Bytes::new(),
        Some(key) => scalar(key).flatten().ok_or(LineProblem::Field {
            name: ":key",
            wanted: "a string or a number",
        })?,
    };
    let time_ns = match event.get("time") {
        Some(Edn::Int(time)) => u64::try_from(*time).ok(),
        _ => None,
    };
    JepsenEvent {
        process: Process::new(process),
        kind: keyword(event, "type", ":type")?,
        function: keyword(event, "f", ":f")?,
        key,
        value: event.get("value").unwrap_or(&Edn::Nil),
        has_error: event.get("error").is_some_and(|error| *error != Edn::Nil),
        time_ns,
    }
    .add_to(history)
}

fn keyword<'a>(event: &'a Edn, name: &str, shown: &'static str) -> Result<&'a str, LineProblem> {
    match event.get(name) {
        Some(Edn::Keyword(word)) => Ok(word),
        Some(_) => Err(LineProblem::Field {
            name: shown,
            wanted: "a keyword",
        }),
        None => Err(LineProblem::Missing(shown)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operation::{Answer, Op, Outcome};

    #[test]
    fn appends_and_gets_keep_their_keys_and_answers() {
        let history = parse(
            r#"{:process 0, :type :invoke, :f :append, :key "7", :value "x"}
               {:process :nemesis, :type :info, :f :start}
               {:process 0, :type :ok, :f :append, :key "7", :value "x"}
               {:process 0, :type :invoke, :f :get, :key "7", :value nil, :time 12}
               {:process 0, :type :ok, :f :get, :key "7", :value "x", :time 15}"#,
        )
        .expect("well formed");
        let [append, get] = history.operations() else {
            panic!("two operations")
        };
        assert_eq!(
            append.op,
            Op::Append {
                value: Bytes::from_static(b"x")
            }
        );
        assert_eq!(get.key, Bytes::from_static(b"7"));
        assert_eq!(get.end_time_ns, Some(15));
        let read = Answer::Read {
            value: Some(Bytes::from_static(b"x")),
            version: None,
        };
        assert_eq!(get.outcome, Outcome::Ok(read));
    }

    #[test]
    fn a_wrong_map_is_named_by_its_line() {
        for (text, part) in [
            ("{:process 0, :type :invoke, :f :mystery}", "mystery"),
            ("{:process 0, :f :read}", ":type"),
            ("{:type :ok, :f :read}", ":process"),
            ("{:process 0, :type :ok, :f :read}", "did not call"),
            ("7", "a map"),
        ] {
            let error = parse(&format!("\n{text}")).expect_err(text).to_string();
            assert!(
                error.starts_with("line 2: ") && error.contains(part),
                "{error}"
            );
        }
    }
}
