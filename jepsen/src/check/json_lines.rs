//! Our own history format: JSON lines, one event a line, in the order of events.
//!
//! `docs/HISTORY_FORMAT.md` is its public description; the reader and the
//! writer here are held to it by tests. In short:
//!
//! ```text
//! {"type":"note","text":"seed 7, fault: kill node 2"}
//! {"type":"invoke","process":0,"op":"put","key":"a","value":"1","time":1200}
//! {"type":"ok","process":0,"version":17,"time":2900}
//! {"type":"invoke","process":0,"op":"get","key":"a"}
//! {"type":"ok","process":0,"value":"1","version":17}
//! {"type":"invoke","process":1,"op":"cas","key":"a","expect_version":17,"value":"2"}
//! {"type":"info","process":1,"error":"deadline exceeded"}
//! ```
//!
//! The order of the lines is the order of the events; `time` (nanoseconds
//! since the start of the run) is for people. Fields that are not known are
//! ignored, so recorders can add their own.

use bytes::Bytes;
use catena_proto::ids::Seq;
use serde_json::{Map, Value, json};

use super::history::History;
use super::json_bytes::{from_json, to_json};
use super::operation::{Answer, Expect, Op, Outcome, Process};
use super::parse::{LineProblem, ParseError};

/// Reads a history in our own format.
///
/// # Errors
/// The first line that is malformed or cannot follow the ones before it.
pub fn parse(text: &str) -> Result<History, ParseError> {
    let mut history = History::new();
    for (index, line) in text.lines().enumerate() {
        if !line.trim().is_empty() {
            parse_line(&mut history, line).map_err(|problem| ParseError::line(index, problem))?;
        }
    }
    Ok(history)
}

/// The line for a call.
#[must_use]
pub fn invoke_line(process: Process, key: &[u8], op: &Op, time_ns: Option<u64>) -> String {
    let mut event = json!({
        "type": "invoke", "process": process.get(), "op": op.name(), "key": to_json(key),
    });
    match op {
        Op::Get | Op::Delete => {}
        Op::Put { value } | Op::Append { value } => event["value"] = to_json(value),
        Op::Cas { expect, value } => {
            match expect {
                Expect::Absent => event["expect_absent"] = json!(true),
                Expect::Value(old) => event["expect_value"] = to_json(old),
                Expect::Version(version) => event["expect_version"] = json!(version),
            }
            event["value"] = to_json(value);
        }
        Op::Incr { by } => event["by"] = json!(by),
    }
    finish(event, time_ns)
}

/// The line for the end of the operation that `process` has in flight.
#[must_use]
pub fn end_line(process: Process, outcome: &Outcome, time_ns: Option<u64>) -> String {
    let kind = match outcome {
        Outcome::Ok(_) => "ok",
        Outcome::Failed => "fail",
        Outcome::Unknown => "info",
    };
    let mut event = json!({ "type": kind, "process": process.get() });
    if let Outcome::Ok(answer) = outcome {
        let version = match answer {
            Answer::Read { value, version } => {
                event["value"] = value.as_ref().map_or(Value::Null, |value| to_json(value));
                version
            }
            Answer::Written { version } => version,
            Answer::Mismatch { version } => {
                event["matched"] = json!(false);
                version
            }
            Answer::Deleted { existed, version } => {
                if let Some(existed) = existed {
                    event["deleted"] = json!(existed);
                }
                version
            }
            Answer::Counted { value, version } => {
                if let Some(value) = value {
                    event["value"] = json!(value.to_string());
                }
                version
            }
        };
        if let Some(version) = version {
            event["version"] = json!(version);
        }
    }
    finish(event, time_ns)
}

/// A whole history in our own format.
#[must_use]
pub fn to_json_lines(history: &History) -> String {
    let mut events: Vec<(_, String)> = Vec::new();
    for operation in history.operations() {
        let called = invoke_line(
            operation.process,
            &operation.key,
            &operation.op,
            operation.call_time_ns,
        );
        events.push((operation.call, called));
        if let Some(end) = operation.end {
            let ended = end_line(operation.process, &operation.outcome, operation.end_time_ns);
            events.push((end, ended));
        }
    }
    events.sort_by_key(|(moment, _)| *moment);
    events.into_iter().map(|(_, line)| line + "\n").collect()
}

fn finish(mut event: Value, time_ns: Option<u64>) -> String {
    if let Some(time_ns) = time_ns {
        event["time"] = json!(time_ns);
    }
    event.to_string()
}

fn parse_line(history: &mut History, line: &str) -> Result<(), LineProblem> {
    let event: Map<String, Value> =
        serde_json::from_str(line).map_err(|error| LineProblem::Syntax(error.to_string()))?;
    let fields = Fields(&event);
    let kind = fields.text("type")?;
    if kind == "note" {
        return Ok(());
    }
    let process = Process::new(
        fields
            .count("process")?
            .ok_or(LineProblem::Missing("process"))?,
    );
    let time_ns = fields.count("time")?;
    match kind {
        "invoke" if matches!(fields.text("op")?, "scan" | "watch") => {
            history.note_read_not_checked();
            Ok(())
        }
        "ok" | "fail" | "info" if matches!(fields.text("op"), Ok("scan" | "watch")) => Ok(()),
        "invoke" => Ok(history.invoke(process, fields.key()?, fields.op()?, time_ns)?),
        "ok" => {
            let op = match history.in_flight(process) {
                Some(operation) => operation.op.clone(),
                None => return Err(super::history::HistoryError::NotOpen(process.get()).into()),
            };
            let answer = fields.answer(&op)?;
            Ok(history.complete(process, Outcome::Ok(answer), time_ns)?)
        }
        "fail" => Ok(history.complete(process, Outcome::Failed, time_ns)?),
        "info" => Ok(history.complete(process, Outcome::Unknown, time_ns)?),
        other => Err(LineProblem::Unsupported {
            what: "type",
            found: other.to_owned(),
        }),
    }
}

struct Fields<'a>(&'a Map<String, Value>);

impl Fields<'_> {
    fn text(&self, name: &'static str) -> Result<&str, LineProblem> {
        match self.0.get(name) {
            None => Err(LineProblem::Missing(name)),
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(LineProblem::Field {
                name,
                wanted: "a string",
            }),
        }
    }

    fn count(&self, name: &'static str) -> Result<Option<u64>, LineProblem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_u64() {
                Some(count) => Ok(Some(count)),
                None => Err(LineProblem::Field {
                    name,
                    wanted: "a whole number from 0",
                }),
            },
        }
    }

    fn flag(&self, name: &'static str) -> Result<Option<bool>, LineProblem> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(_) => Err(LineProblem::Field {
                name,
                wanted: "true or false",
            }),
        }
    }

    /// A signed number, which may be written as a string (as the CLI prints the result of `incr`).
    fn signed(&self, name: &'static str) -> Result<Option<i64>, LineProblem> {
        let number = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.parse().ok(),
            Some(value) => value.as_i64(),
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(LineProblem::Field {
                name,
                wanted: "a 64-bit whole number",
            }),
        }
    }

    fn bytes(&self, name: &'static str) -> Result<Bytes, LineProblem> {
        let value = self.0.get(name).ok_or(LineProblem::Missing(name))?;
        from_json(value).ok_or(LineProblem::Field {
            name,
            wanted: "a string or {\"base64\":\"…\"}",
        })
    }

    fn key(&self) -> Result<Bytes, LineProblem> {
        self.bytes("key")
    }

    fn version(&self) -> Result<Option<Seq>, LineProblem> {
        Ok(self.count("version")?.map(Seq::new))
    }

    fn op(&self) -> Result<Op, LineProblem> {
        Ok(match self.text("op")? {
            "get" => Op::Get,
            "delete" => Op::Delete,
            "put" => Op::Put {
                value: self.bytes("value")?,
            },
            "append" => Op::Append {
                value: self.bytes("value")?,
            },
            "incr" => Op::Incr {
                by: self.signed("by")?.unwrap_or(1),
            },
            "cas" => Op::Cas {
                expect: self.expect()?,
                value: self.bytes("value")?,
            },
            other => {
                return Err(LineProblem::Unsupported {
                    what: "op",
                    found: other.to_owned(),
                });
            }
        })
    }

    fn expect(&self) -> Result<Expect, LineProblem> {
        let absent = self.flag("expect_absent")? == Some(true);
        let version = self.count("expect_version")?;
        match (absent, version, self.0.contains_key("expect_value")) {
            (true, None, false) => Ok(Expect::Absent),
            (false, Some(version), false) => Ok(Expect::Version(Seq::new(version))),
            (false, None, true) => Ok(Expect::Value(self.bytes("expect_value")?)),
            _ => Err(LineProblem::Field {
                name: "expect_…",
                wanted: "exactly one of expect_absent (true), expect_version, expect_value",
            }),
        }
    }

    fn answer(&self, op: &Op) -> Result<Answer, LineProblem> {
        let version = self.version()?;
        Ok(match op {
            // "Absent" must be said: a lost field is not an answer.
            Op::Get => match self.0.get("value") {
                Some(Value::Null) => Answer::Read {
                    value: None,
                    version,
                },
                _ => Answer::Read {
                    value: Some(self.bytes("value")?),
                    version,
                },
            },
            Op::Put { .. } | Op::Append { .. } => Answer::Written { version },
            Op::Delete => Answer::Deleted {
                existed: self.flag("deleted")?,
                version,
            },
            Op::Cas { .. } if self.flag("matched")? == Some(false) => Answer::Mismatch { version },
            Op::Cas { .. } => Answer::Written { version },
            Op::Incr { .. } => Answer::Counted {
                value: self.signed("value")?,
                version,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"
{"type":"note","text":"seed 7"}
{"type":"invoke","process":0,"op":"put","key":"a","value":"1","time":5}
{"type":"invoke","process":1,"op":"cas","key":"a","expect_version":17,"value":{"base64":"/w=="}}
{"type":"ok","process":0,"version":17,"time":9,"node":2}
{"type":"invoke","process":0,"op":"get","key":"a"}
{"type":"ok","process":0,"value":null}
{"type":"info","process":1,"error":"deadline exceeded"}
{"type":"invoke","process":1,"op":"cas","key":"a","expect_absent":true,"value":"x"}
{"type":"ok","process":1,"matched":false,"version":17}
{"type":"invoke","process":1,"op":"incr","key":"n","by":-2}
{"type":"ok","process":1,"value":"-2"}
{"type":"invoke","process":1,"op":"delete","key":"n"}
{"type":"ok","process":1,"deleted":true}
{"type":"invoke","process":1,"op":"append","key":"n","value":"z"}
{"type":"fail","process":1}
{"type":"invoke","process":1,"op":"scan","prefix":"a"}
{"type":"ok","process":1,"op":"scan","count":3}
{"type":"invoke","process":2,"op":"cas","key":"a","expect_value":"x","value":"y"}
"#;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let history = parse(EXAMPLE).expect("the example is well formed");
        assert_eq!(history.operations().len(), 8);
        assert_eq!(history.reads_not_checked(), 1);
        let again = parse(&to_json_lines(&history)).expect("our own lines are well formed");
        assert_eq!(again.operations(), history.operations());
    }

    #[test]
    fn malformed_lines_are_named_by_number_and_cause() {
        let open = r#"{"type":"invoke","process":0,"op":"get","key":"a"}"#;
        for (line, part) in [
            ("nonsense", "expected"),
            (r#"{"process":0}"#, "`type`"),
            (
                r#"{"type":"invoke","process":-1,"op":"get","key":"a"}"#,
                "`process`",
            ),
            (
                r#"{"type":"invoke","process":1,"op":"batch","key":"a"}"#,
                "batch",
            ),
            (
                r#"{"type":"invoke","process":1,"op":"cas","key":"a","value":"x"}"#,
                "exactly one of",
            ),
            (
                r#"{"type":"invoke","process":0,"op":"get","key":"a"}"#,
                "open",
            ),
            (r#"{"type":"ok","process":0}"#, "`value`"),
            (r#"{"type":"ok","process":9}"#, "did not call"),
            (r#"{"type":"maybe","process":0}"#, "maybe"),
        ] {
            let error = parse(&format!("{open}\n{line}\n"))
                .expect_err(line)
                .to_string();
            assert!(
                error.starts_with("line 2: ") && error.contains(part),
                "{error}"
            );
        }
    }
}
