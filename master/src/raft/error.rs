//! Why a master does not start, and why a command was not taken.

use std::path::{Path, PathBuf};

use catena_proto::ids::{ClusterId, MasterId};

use super::types::COMMAND_BYTES_MAX;

/// Why a master's Raft does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder holds nothing, and nothing says that the cluster is new.
    #[error(
        "{dir} is empty: start with --bootstrap if the cluster is new; if this master had another folder, point it there, since one that forgot its votes must not vote again"
    )]
    EmptyFolder {
        /// The folder.
        dir: PathBuf,
    },
    /// It belongs to another master or cluster.
    #[error(
        "{dir} belongs to master {master} of cluster {cluster}: point this master at its own folder"
    )]
    NotOurs {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        master: MasterId,
        /// Of which cluster.
        cluster: ClusterId,
    },
    /// Another process uses it.
    #[error("{dir} is in use by another process: a copy of this master is running")]
    InUse {
        /// The folder.
        dir: PathBuf,
    },
    /// Something that this master promised or agreed to is lost. It is never taken for an empty folder.
    #[error(
        "{what} is damaged: {why}; restore this master's folder, or leave it stopped while a majority of the others runs"
    )]
    Damaged {
        /// The file or folder.
        what: PathBuf,
        /// What was found.
        why: String,
    },
    /// The system refused.
    #[error("{what} cannot be used: {why}; free or replace the disk")]
    Disk {
        /// The file or folder.
        what: PathBuf,
        /// The system's own words.
        why: String,
    },
    /// This master is not among those that were listed.
    #[error("master {me} is not in the list of masters: list every master, with its own number")]
    NotListed {
        /// This master.
        me: MasterId,
    },
    /// Raft did not begin: a defect.
    #[error("Raft does not start: {0}; report this")]
    Raft(String),
}

impl StartError {
    /// The exit status of the process (INTERFACE, "Processes").
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        match self {
            Self::Raft(_) => 1,
            Self::EmptyFolder { .. } | Self::NotListed { .. } => 2,
            Self::NotOurs { .. } => 3,
            Self::Damaged { .. } | Self::Disk { .. } => 4,
            Self::InUse { .. } => 5,
        }
    }

    pub(super) fn damaged(what: &Path, why: &dyn ToString) -> Self {
        Self::Damaged {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }

    pub(super) fn disk(what: &Path, why: &dyn ToString) -> Self {
        Self::Disk {
            what: what.to_owned(),
            why: why.to_string(),
        }
    }
}

/// Why a command was not applied, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This master does not lead: nothing was done and nothing will be. Ask the leader.
    #[error("this master is not the leader{}", at(leader.as_ref()))]
    NotLeader {
        /// The leader and its gRPC address, if known.
        leader: Option<(MasterId, String)>,
    },
    /// Too many commands are under way: nothing was done and nothing will be. Try again.
    #[error("too many commands wait for the masters: try again")]
    Busy,
    /// It is larger than a command may be: nothing was done and nothing will be. Give up.
    #[error("the command has {bytes} bytes, at most {COMMAND_BYTES_MAX} are allowed: split it")]
    TooLarge {
        /// Its size as JSON.
        bytes: usize,
    },
    /// No majority answered in time, or this master stops: the command may have been applied, or may be yet.
    /// Look at the state before trying again.
    #[error("no majority of the masters answered: the change may or may not be made; {why}")]
    Unavailable {
        /// What happened.
        why: String,
    },
}

fn at(leader: Option<&(MasterId, String)>) -> String {
    leader.map_or_else(
        || ", and none is known: try again".to_owned(),
        |(id, addr)| format!(": ask master {id} at {addr}"),
    )
}
