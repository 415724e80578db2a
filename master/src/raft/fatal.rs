//! What a master cannot go on after, and how its process hears of it.

use std::sync::Arc;

use tokio::sync::watch;

/// A master cannot go on: its process ends, and what it holds is recovered at the next start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fatal {
    /// A write or sync failed, or the disk has no room. It is not tried again: what the disk holds now is not known
    /// (FAULTS 11).
    #[error(
        "the disk failed, this master stops: {why}; free or replace the disk, then start it again"
    )]
    Disk {
        /// What failed.
        why: String,
    },
    /// Raft itself ended: a defect.
    #[error("Raft ended, this master stops: {why}; start it again, and report this")]
    Raft {
        /// Its last words.
        why: String,
    },
}

impl Fatal {
    /// The exit status of the process (INTERFACE, "Processes").
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Disk { .. } => 4,
            Self::Raft { .. } => 1,
        }
    }
}

/// Where a failure is reported; the first one counts.
#[derive(Clone, Debug)]
pub struct Alarm(Arc<watch::Sender<Option<Fatal>>>);

impl Default for Alarm {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Alarm {
    /// Reports a failure of the disk.
    pub(super) fn disk(&self, why: impl ToString) {
        self.raise(Fatal::Disk {
            why: why.to_string(),
        });
    }

    pub(super) fn raise(&self, fatal: Fatal) {
        self.0.send_if_modified(|first| {
            let fresh = first.is_none();
            if fresh {
                tracing::error!(%fatal, "a master cannot go on");
                *first = Some(fatal);
            }
            fresh
        });
    }

    /// What was reported first, if anything.
    #[must_use]
    pub fn raised(&self) -> Option<Fatal> {
        self.0.borrow().clone()
    }

    /// Resolves when something was reported; else never. Cancel-safe.
    pub async fn wait(&self) -> Fatal {
        let mut seen = self.0.subscribe();
        match seen.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(fatal)) => fatal.clone(),
            // The sender lives as long as `self`.
            _ => std::future::pending().await,
        }
    }
}
