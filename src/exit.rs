//! How a command ends: the exit status that scripts rely on, and the words that go with it.
//!
//! The numbers are a public contract. An outcome is done, failed or unknown, and
//! nothing here turns one into another.

use std::process::ExitCode;

/// Exit status of every command except the daemons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Failed; nothing was changed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// No such key, chain or node.
    NotFound = 3,
    /// The condition of a `cas` did not hold.
    ConditionFailed = 4,
    /// Unavailable: definitely not done; also every read that got no answer.
    Unavailable = 5,
    /// A write that may or may not have happened.
    Unknown = 6,
}

/// Exit status of a daemon; 0 is "asked to stop".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DaemonExit {
    /// Something that has no status of its own.
    Failed = 1,
    /// Bad config.
    BadConfig = 2,
    /// Wrong cluster, id or disk.
    WrongIdentity = 3,
    /// The disk failed; an `fsync` error is never retried.
    DiskFailed = 4,
    /// A copy of this node is running.
    AlreadyRunning = 5,
}

/// Why a command did not end with status 0.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Exit status of the process.
    pub(crate) status: u8,
    /// A stable word for scripts.
    pub(crate) code: &'static str,
    /// What was tried.
    pub(crate) what: String,
    /// Why it did not happen.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) help: String,
    /// Whether asking again later can succeed and cannot do the work twice.
    pub(crate) retryable: bool,
}

impl Failure {
    /// A failure that a retry does not mend.
    pub(crate) fn new(
        exit: Exit,
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            status: exit as u8,
            code,
            what: what.into(),
            why: why.into(),
            help: help.into(),
            retryable: false,
        }
    }

    /// Wrong usage: status 2.
    pub(crate) fn usage(
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Usage, "usage", what, why, help)
    }

    /// Something outside the cluster failed (a file, a pipe, a child process): status 1.
    pub(crate) fn local(
        what: impl Into<String>,
        why: impl std::fmt::Display,
        help: impl Into<String>,
    ) -> Self {
        Self::new(Exit::Failed, "local", what, why.to_string(), help)
    }

    /// Whoever read our result has seen enough (`catena scan | head`): the command ends early, and well.
    pub(crate) fn reader_left() -> Self {
        Self {
            status: 0,
            ..Self::new(
                Exit::Failed,
                "reader_left",
                "writing the result",
                "stdout is closed",
                "",
            )
        }
    }

    /// A daemon cannot start, or had to stop.
    pub(crate) fn daemon(
        exit: DaemonExit,
        code: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            status: exit as u8,
            ..Self::new(Exit::Failed, code, what, why, help)
        }
    }

    /// An operation of the SDK that read and changed nothing: no answer is always status 5.
    pub(crate) fn read(what: impl Into<String>, error: &catena_client::Error) -> Self {
        let mut failure = Self::write(what, error);
        if matches!(error.cause(), catena_client::Cause::Internal(_)) {
            failure.status = Exit::Unavailable as u8;
        }
        failure
    }

    /// An operation of the SDK that writes.
    pub(crate) fn write(what: impl Into<String>, error: &catena_client::Error) -> Self {
        let exit = if error.is_unknown() {
            Exit::Unknown
        } else if matches!(error.cause(), catena_client::Cause::NoSuch(_)) {
            Exit::NotFound
        } else if error.is_unavailable() {
            Exit::Unavailable
        } else {
            Exit::Failed
        };
        Self {
            retryable: error.is_retryable(),
            ..Self::new(exit, error.code(), what, error.to_string(), error.help())
        }
    }

    /// The status as the process returns it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.status)
    }
}

#[cfg(test)]
mod tests {
    use catena_client::{Cause, Error};

    use super::*;

    #[test]
    fn each_outcome_has_its_status_and_none_becomes_another() {
        let cases = [
            (Error::Unknown(Cause::Interrupted("x".into())), 6, false),
            (Error::Failed(Cause::Unreachable("x".into())), 5, true),
            (Error::Failed(Cause::NotReady("x".into())), 5, true),
            (Error::Failed(Cause::Invalid("x".into())), 1, false),
            (Error::Failed(Cause::NotANumber), 1, false),
            (Error::Failed(Cause::Refused("x".into())), 1, false),
            (Error::Failed(Cause::NoSuch("x".into())), 3, false),
            (Error::Failed(Cause::Internal("x".into())), 1, false),
        ];
        for (error, status, retryable) in cases {
            let failure = Failure::write("put k", &error);
            assert_eq!(
                (failure.status, failure.retryable),
                (status, retryable),
                "{error:?}"
            );
        }
        let internal = Error::Failed(Cause::Internal("x".into()));
        assert_eq!(Failure::read("get k", &internal).status, 5);
    }
}
