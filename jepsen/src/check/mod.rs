//! Checkers for recorded histories: was everything that clients saw possible?
//!
//! [`run_file`] is what `catena jepsen check` calls, [`check_history`] what
//! the simulation calls with a history that it built in memory. Everything
//! here is pure: no clock, no files, no randomness; a check is bounded by
//! steps and bytes, and one that runs out says *undecided*, never "passed".
//!
//! - Words: [`operation`], [`history`].
//! - Formats: [`json_lines`] (our own), [`edn_history`], [`jepsen_log`];
//!   [`parse`] tells them apart.
//! - Specification: [`model`].
//! - Search: `linear`, with `lineage`, `timeline`, `foresight`, `visited`; `window`
//!   shrinks what it refuses.
//! - Verdicts for people and programs: [`report`].
//! - Properties that need no search: [`exactly_once`].

mod chains;
mod content;
mod edn;
pub mod edn_history;
pub mod exactly_once;
mod foresight;
#[cfg(test)]
mod generate;
pub mod history;
mod jepsen_event;
pub mod jepsen_log;
mod json_bytes;
pub mod json_lines;
mod key_state;
mod lineage;
mod linear;
pub mod model;
pub mod operation;
pub mod parse;
#[cfg(test)]
mod properties;
pub mod report;
mod timeline;
mod timeline_text;
mod visited;
mod window;
mod word_hash;

use bytes::Bytes;

use self::history::History;
pub use self::linear::{Exhausted, Limits};
use self::linear::{Found, decide};
use self::model::{KeyHistory, Model, ModelError};
use self::operation::{Operation, Outcome};
use self::parse::{Format, ParseError};
use self::report::{Report, UndecidedKey, Violation};

/// How a check is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the search of the whole history may cost.
    pub limits: Limits,
    /// Steps that may be spent on making each violation small.
    pub shrink_steps_max: u64,
    /// How many violated keys are shrunk and shown; others are only counted.
    pub violations_shown_max: usize,
    /// The history's format; `None` tells it by the first line.
    pub format: Option<Format>,
}

impl Default for Options {
    /// About a minute at most, and 1 GiB.
    fn default() -> Self {
        Self {
            limits: Limits {
                steps_max: 300_000_000,
                memory_bytes_max: 1 << 30,
            },
            shrink_steps_max: 40_000_000,
            violations_shown_max: 3,
            format: None,
        }
    }
}

/// Steps that each key gets in the first round, so that one hard key cannot hide a violation in an easy one.
const FIRST_ROUND_STEPS_MAX: u64 = 1_000_000;

/// Why a history could not be checked at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It could not be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// It has operations that the model does not know.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Checks the text of a history file.
///
/// # Errors
/// When the text is no history, or has operations that the model does not know.
pub fn run_file(text: &str, model: Model, options: &Options) -> Result<Report, CheckError> {
    Ok(check_history(
        &parse::parse(text, options.format)?,
        model,
        options,
    )?)
}

/// Checks that each key of a history is linearizable.
///
/// # Errors
/// When it has operations that the model does not know.
pub fn check_history(
    history: &History,
    model: Model,
    options: &Options,
) -> Result<Report, ModelError> {
    let mut report = Report::new(model, history);
    let mut keys = Vec::new();
    for (key, operations) in history.by_key() {
        let ready = KeyHistory::new(model, &operations)?;
        keys.push(KeyCheck {
            key,
            operations,
            ready,
        });
    }
    let mut hard = Vec::new();
    for key in keys {
        hard.extend(key.check(FIRST_ROUND_STEPS_MAX, options, &mut report));
    }
    for (key, exhausted) in hard {
        let left = options.limits.steps_max.saturating_sub(report.steps);
        let give_up = !report.violations.is_empty() || left <= FIRST_ROUND_STEPS_MAX;
        let undecided = if give_up {
            Some((key, exhausted))
        } else {
            key.check(left, options, &mut report)
        };
        if let Some((key, exhausted)) = undecided {
            report.undecided.push(UndecidedKey {
                key: key.key.clone(),
                exhausted,
            });
        }
    }
    Ok(report)
}

struct KeyCheck<'a> {
    key: &'a Bytes,
    operations: Vec<&'a Operation>,
    ready: KeyHistory,
}

impl KeyCheck<'_> {
    /// Notes a violation in the report; gives the key back when it could not be decided.
    fn check(
        mut self,
        steps_max: u64,
        options: &Options,
        report: &mut Report,
    ) -> Option<(Self, Exhausted)> {
        let left = options.limits.steps_max.saturating_sub(report.steps);
        let limits = Limits {
            steps_max: steps_max.min(left),
            ..options.limits
        };
        let KeyHistory {
            contents,
            ops,
            initial,
        } = &mut self.ready;
        let before = report.steps;
        match decide(ops, *initial, contents, limits, &mut report.steps) {
            Found::Linearizable => None,
            Found::Undecided(exhausted) => Some((self, exhausted)),
            Found::NotLinearizable => {
                if report.violations.len() < options.violations_shown_max.max(1) {
                    let limits = Limits {
                        steps_max: options.shrink_steps_max,
                        ..options.limits
                    };
                    let cost = report.steps - before;
                    let window = window::shrink(&mut self.ready, limits, cost);
                    let contents = &mut self.ready.contents;
                    let violation = Violation::new(self.key, &self.operations, window, contents);
                    report.violations.push(violation);
                } else {
                    report.violations_not_shown += 1;
                }
                None
            }
        }
    }
}

/// How many operations ended in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutcomeCounts {
    /// Executed.
    pub ok: u64,
    /// Not executed.
    pub failed: u64,
    /// Perhaps executed.
    pub unknown: u64,
}

impl OutcomeCounts {
    fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for operation in history.operations() {
            match operation.outcome {
                Outcome::Ok(_) => counts.ok += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Unknown => counts.unknown += 1,
            }
        }
        counts
    }
}
