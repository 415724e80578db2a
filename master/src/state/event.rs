//! The event log: what the control plane saw and did, and why.

use std::collections::VecDeque;

use catena_proto::ids::ConfigVersion;
use serde::{Deserialize, Serialize};

use super::command::{Command, Controller, WallMs};

/// Lines that the log keeps; older ones go. A hundred changes a day fill it in a quarter of a year.
pub const EVENTS_MAX: usize = 10_000;
/// A longer cause or subject is cut: causes may quote what a node reported.
pub const EVENT_TEXT_BYTES_MAX: usize = 1_024;

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts all events of the cluster from 1.
    pub no: u64,
    /// When the leader proposed it.
    pub at: WallMs,
    /// Who wanted it.
    pub by: Controller,
    /// Why, in words.
    pub cause: String,
    /// What was done: `create-cluster`, `register`, `readdress`, `new-disk`, `create-chains`, `serve`,
    /// `confirm-in-sync`, `lose-sync`, `remove-member`, `append-member`, `reissue`, `recover`, `add-learner`,
    /// `drop-learner`, `want-member`, `unwant-member`, `settings`, `pause`, `resume`; and the words of notes, such as
    /// `hold`, `hold-over`, `alarm`, `alarm-over`.
    pub action: String,
    /// What it was done to: `shard 1 node 3`, `node 2`, `cluster`.
    pub subject: String,
    /// The state that it led to.
    pub version: ConfigVersion,
}

/// The newest events, oldest first, their numbers dense.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventLog {
    lines: VecDeque<Event>,
    /// The number of the newest event; events before the oldest kept one are forgotten.
    newest: u64,
}

impl EventLog {
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.lines.iter()
    }

    pub(super) fn write(
        &mut self,
        command: &Command,
        action: &str,
        subject: &str,
        version: ConfigVersion,
    ) {
        self.newest += 1;
        self.lines.push_back(Event {
            no: self.newest,
            at: command.at,
            by: command.by.clone(),
            cause: cut(&command.cause).to_owned(),
            action: cut(action).to_owned(),
            subject: cut(subject).to_owned(),
            version,
        });
        while self.lines.len() > EVENTS_MAX {
            self.lines.pop_front();
        }
    }

    /// Whether the newest event about `subject` says exactly this: then saying it again tells nobody anything.
    pub(super) fn says(&self, action: &str, subject: &str, cause: &str) -> bool {
        self.lines
            .iter()
            .rev()
            .find(|event| event.subject == cut(subject))
            .is_some_and(|event| event.action == cut(action) && event.cause == cut(cause))
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.lines.len() <= EVENTS_MAX, "the event log is bounded");
        let last = self.lines.back().map_or(0, |event| event.no);
        assert_eq!(last, self.newest, "the newest event has the newest number");
        let first = self.lines.front().map_or(1, |event| event.no);
        assert_eq!(
            self.newest + 1 - first,
            self.lines.len() as u64,
            "event numbers are dense"
        );
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(EVENT_TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::super::command::Change;
    use super::*;

    #[test]
    fn the_log_forgets_the_oldest_and_cuts_long_words() {
        let mut log = EventLog::default();
        let command = Command {
            at: WallMs(1),
            by: Controller::Membership,
            cause: "ü".repeat(EVENT_TEXT_BYTES_MAX),
            change: Change::Note {
                subject: String::new(),
                what: String::new(),
            },
        };
        for _ in 0..EVENTS_MAX + 3 {
            log.write(&command, "hold", "node 1", ConfigVersion::new(4));
            assert!(log.says("hold", "node 1", &command.cause));
        }
        log.check_invariants();
        let first = log.lines().next().expect("lines");
        assert_eq!(first.no, 4);
        assert_eq!(first.cause.len(), EVENT_TEXT_BYTES_MAX);
        assert!(!log.says("hold", "node 2", &command.cause));
    }
}
