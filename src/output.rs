//! What goes to stdout and stderr: JSON lines or aligned tables, and errors in one form.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: writes to the process's own streams"
)]

use std::io::{self, IsTerminal, Write};

use base64::Engine as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// How results and errors are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: JSON lines.
    Json,
}

/// The process's stdout in the chosen format.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    out: io::BufWriter<io::Stdout>,
}

impl Output {
    /// Writes in `format`.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            out: io::BufWriter::new(io::stdout()),
        }
    }

    /// Whether results are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Writes one JSON line.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_vec(value).map_err(|why| Self::broken(&why))?;
        self.line(&line)
    }

    /// Writes one line as it is.
    pub(crate) fn line(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self
            .out
            .write_all(bytes)
            .and_then(|()| self.out.write_all(b"\n"));
        Self::settle(written)
    }

    /// Writes rows under their headings, aligned.
    pub(crate) fn table(&mut self, heads: &[&str], rows: Vec<Vec<String>>) -> Result<(), Failure> {
        let text = table(heads, rows);
        self.line(text.as_bytes())
    }

    /// Hands everything written so far to whoever reads.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        Self::settle(flushed)
    }

    fn settle(written: io::Result<()>) -> Result<(), Failure> {
        written.map_err(|why| match why.kind() {
            io::ErrorKind::BrokenPipe => Failure::reader_left(),
            _ => Self::broken(&why),
        })
    }

    fn broken(why: &dyn std::fmt::Display) -> Failure {
        Failure::local(
            "writing the result",
            why,
            "check where stdout leads, and whether that disk is full",
        )
    }
}

/// Rows under their headings, aligned, without borders: easy on the eye and for `awk`.
pub(crate) fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(heads.iter().map(|head| head.to_uppercase()));
    // Only a terminal has a width worth fitting; a file or a pipe keeps whole lines.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// A key or value in JSON: a string, or `{"base64": …}` where it is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum JsonBytes {
    /// UTF-8.
    Text(String),
    /// Anything else.
    Binary {
        /// Standard alphabet, padded.
        base64: String,
    },
}

impl From<&[u8]> for JsonBytes {
    fn from(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary {
                base64: base64::engine::general_purpose::STANDARD.encode(bytes),
            },
        }
    }
}

/// A key or a bound of a range for a table or a message: UTF-8 as it is, other bytes and control characters escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    error: ErrorBody<'a>,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    code: &'static str,
    message: String,
    help: &'a str,
    retryable: bool,
}

/// Tells stderr why the command did not end with status 0.
pub(crate) fn report(format: Format, failure: &Failure) {
    if failure.status == 0 {
        return;
    }
    let text = match format {
        Format::Table if failure.help.is_empty() => {
            format!("error: {}: {}\n", failure.what, failure.why)
        }
        Format::Table => format!(
            "error: {}: {}\nhelp: {}\n",
            failure.what, failure.why, failure.help
        ),
        Format::Json => {
            let error = ErrorLine {
                error: ErrorBody {
                    code: failure.code,
                    message: format!("{}: {}", failure.what, failure.why),
                    help: &failure.help,
                    retryable: failure.retryable,
                },
            };
            let error = serde_json::to_string(&error).unwrap_or_default();
            format!("{error}\n")
        }
    };
    note(&text);
}

/// Writes to stderr. A closed stderr leaves nobody to tell; the exit status still speaks.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_become_base64() {
        let json = |bytes: &[u8]| serde_json::to_string(&JsonBytes::from(bytes)).expect("json");
        assert_eq!(json("käse".as_bytes()), "\"käse\"");
        assert_eq!(json(&[0xff, 0x00]), r#"{"base64":"/wA="}"#);
    }

    #[test]
    fn tables_and_messages_never_carry_control_characters() {
        assert_eq!(printable(b"a\n\x1b\xffb"), "a\\n\\u{1b}\\xffb");
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let rows = vec![
            vec!["1".into(), "up".into()],
            vec!["200".into(), "down".into()],
        ];
        assert_eq!(
            table(&["id", "state"], rows),
            "ID   STATE\n1    up\n200  down"
        );
    }
}
