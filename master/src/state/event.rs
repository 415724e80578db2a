//! The event log: what the control plane saw and did, and why.

use catena_proto::ids::ConfigVersion;
use serde::{Deserialize, Serialize};

use super::command::{Controller, WallMs};

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
    /// What was done: `register`, `create`, `serve`, `confirm-in-sync`, `remove-member`, `append-member`, `reissue`,
    /// `recover`, `add-learner`, `drop-learner`, `settings`, `pause`, `resume`, `hold`, `alarm`, and so on.
    pub action: String,
    /// What it was done to: `shard 1 node 3`, `node 2`, `cluster`.
    pub subject: String,
    /// The state that it led to.
    pub version: ConfigVersion,
}
