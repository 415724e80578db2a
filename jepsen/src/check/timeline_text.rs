//! A violation as a small table: one operation a line, with its span drawn to scale of events.
//!
//! ```text
//! key "x": these 3 of 85 operations contradict each other, whatever the others did
//!
//!   p3  put "1"  ok   ├─┤
//!   p1  put "2"  ok       ├─┤
//!   p0  get      "1"          ├─┤  <- cannot be explained: the key could only hold "2"
//! ```

use super::operation::{Operation, Outcome, Shown};
use super::report::{Role, Violation, outcome_text};

/// Widest drawing of the spans, in characters.
const SPAN_CHARS_MAX: usize = 60;

/// Most operations that are listed: the last ones, since the earlier ones only say where the key stood.
const ROWS_SHOWN_MAX: usize = 40;

/// Most contents that are listed as possible.
const HELD_SHOWN_MAX: usize = 6;

/// The violation as text, ending with a line break.
pub(super) fn violation(violation: &Violation) -> String {
    let needed = violation
        .rows
        .iter()
        .filter(|row| row.role != Role::Optional)
        .count();
    let mut text = format!("key {}: ", Shown(&violation.key));
    if needed == 0 {
        return text + "no order of its operations explains all answers\n";
    }
    text += &format!(
        "these {needed} of {} operations contradict each other, whatever the others did\n\n",
        violation.operations
    );
    let hidden = violation.rows.len().saturating_sub(ROWS_SHOWN_MAX);
    if hidden > 0 {
        text += &format!("  {hidden} earlier operations, then\n");
    }
    let rows = &violation.rows[hidden..];
    let operations: Vec<&Operation> = rows.iter().map(|row| &row.operation).collect();
    let scale = Scale::new(&operations);
    let cells: Vec<[String; 4]> = operations
        .iter()
        .map(|operation| {
            [
                operation.process.to_string(),
                operation.op.to_string(),
                outcome_text(&operation.outcome),
                scale.draw(operation),
            ]
        })
        .collect();
    let widths = [0, 1, 2, 3].map(|column| {
        cells
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    for (cells, row) in cells.iter().zip(rows) {
        let mut line = String::from(" ");
        for (cell, width) in cells.iter().zip(widths) {
            line += &format!(" {cell:<width$} ");
        }
        line += &match row.role {
            Role::Needed => String::new(),
            Role::Unexplained => format!(" <- cannot be explained{}", held(violation)),
            Role::Optional => " (does not help, even later or never)".to_owned(),
        };
        text += line.trim_end();
        text += "\n";
    }
    if violation.optional_more > 0 {
        text += &format!(
            "  and {} earlier writes that do not help\n",
            violation.optional_more
        );
    }
    if !violation.is_least {
        text += "  (there may be a smaller contradiction: the search for it ran out of steps)\n";
    }
    text
}

fn held(violation: &Violation) -> String {
    let Some(held) = &violation.could_hold else {
        return String::new();
    };
    let mut values: Vec<String> = held
        .iter()
        .map(|value| match value {
            Some(value) => Shown(value).to_string(),
            None => "nothing".to_owned(),
        })
        .collect();
    values.sort();
    let more = values.len().saturating_sub(HELD_SHOWN_MAX);
    values.truncate(HELD_SHOWN_MAX);
    match (values.is_empty(), more) {
        (true, _) => ": already the operations before it contradict each other".to_owned(),
        (false, 0) => format!(": the key could only hold {}", values.join(" or ")),
        (false, more) => {
            format!(
                ": the key could only hold {} or {more} other values",
                values.join(" or ")
            )
        }
    }
}

/// Places events on a line: the events shown, evenly spaced, and squeezed if they are many.
struct Scale {
    moments: Vec<u32>,
}

impl Scale {
    fn new(operations: &[&Operation]) -> Self {
        let mut moments: Vec<u32> = operations
            .iter()
            .flat_map(|operation| [Some(operation.call), end(operation)])
            .flatten()
            .map(super::operation::Moment::get)
            .collect();
        moments.sort_unstable();
        Self { moments }
    }

    fn column(&self, moment: u32) -> usize {
        let place = self.moments.partition_point(|other| *other < moment);
        let last = self.moments.len().saturating_sub(1).max(1);
        if last * 2 < SPAN_CHARS_MAX {
            place * 2
        } else {
            place * (SPAN_CHARS_MAX - 1) / last
        }
    }

    fn draw(&self, operation: &Operation) -> String {
        let start = self.column(operation.call.get());
        let blank = " ".repeat(start);
        match end(operation) {
            Some(end) => {
                let width = self.column(end.get()).saturating_sub(start + 1);
                format!("{blank}├{}┤", "─".repeat(width))
            }
            None => {
                let last = self.moments.last().map_or(start, |last| self.column(*last));
                format!("{blank}├{}╌>", "╌".repeat(last.saturating_sub(start + 1)))
            }
        }
    }
}

/// An unknown outcome may take effect after its end, so its span has none.
fn end(operation: &Operation) -> Option<super::operation::Moment> {
    match operation.outcome {
        Outcome::Ok(_) | Outcome::Failed => operation.end,
        Outcome::Unknown => None,
    }
}
