//! Holds and alarms: what the loop sees and does not act on, said once when it begins and once when it is over.

use std::collections::BTreeMap;

use super::history::History;
use crate::state::Change;

/// What kind of note.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Word {
    /// The loop would act, and must not (`SUSPICION_HOLD`).
    Hold,
    /// Somebody should look.
    Alarm,
}

impl Word {
    const fn begins(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Alarm => "alarm",
        }
    }

    const fn over(self) -> &'static str {
        match self {
            Self::Hold => "hold-over",
            Self::Alarm => "alarm-over",
        }
    }

    /// The word of an event's action, and whether it begins there or is over.
    pub(super) fn parse(action: &str) -> Option<(Self, bool)> {
        [Self::Hold, Self::Alarm].into_iter().find_map(|word| {
            let begins = action == word.begins();
            (begins || action == word.over()).then_some((word, begins))
        })
    }
}

/// The notes that this turn finds true, each with its cause. One a subject and word: what changes while it lasts is
/// in the discrepancies, not in the log.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    wanted: BTreeMap<(Word, String), String>,
}

impl Notes {
    pub(super) fn hold(&mut self, subject: String, cause: String) {
        self.wanted.entry((Word::Hold, subject)).or_insert(cause);
    }

    pub(super) fn alarm(&mut self, subject: String, cause: String) {
        self.wanted.entry((Word::Alarm, subject)).or_insert(cause);
    }

    /// What is to be written: what began, then what is over. Each with its cause.
    pub(super) fn settle(self, history: &History) -> Vec<(String, Change)> {
        let over: Vec<(Word, String)> = history
            .open
            .iter()
            .filter(|note| !self.wanted.contains_key(*note))
            .cloned()
            .collect();
        let begun = self
            .wanted
            .into_iter()
            .filter(|(note, _)| !history.open.contains(note));
        let note = |subject: String, what: &str| Change::Note {
            subject,
            what: what.to_owned(),
        };
        let begun = begun.map(|((word, subject), cause)| (cause, note(subject, word.begins())));
        let over = over.into_iter().map(|(word, subject)| {
            let cause = "what it was about is not so any more".to_owned();
            (cause, note(subject, word.over()))
        });
        begun.chain(over).collect()
    }
}
