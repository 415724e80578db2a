//! How fast Raft is, and how much log it keeps: each figure with its reason.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

use super::types::SNAPSHOT_CHUNK_BYTES;

/// The leader is heard this often; also how long it waits for one answer.
const HEARTBEAT: Duration = Duration::from_millis(50);
/// openraft waits for a leader's lease, which is `ELECTION_MAX`, and then for a time between the two, drawn once by
/// each master: a lost leader is missed after 450 to 600 ms, and replaced within a second.
const ELECTION_MIN: Duration = Duration::from_millis(150);
const ELECTION_MAX: Duration = Duration::from_millis(300);
/// A leader that no majority answered for this long leads nobody any more: another one may.
pub(super) const QUORUM_SILENCE_MAX: Duration = Duration::from_millis(1_000);
/// A barrier that failed is tried again after this.
pub(super) const BARRIER_RETRY: Duration = Duration::from_millis(50);
/// A command that no majority took for this long has an unknown fate.
pub(super) const PROPOSE_WITHIN: Duration = Duration::from_secs(3);
/// Commands that are proposed at once; more of them wait.
pub(super) const PROPOSALS_MAX: usize = 256;
/// How long one piece of a snapshot may take; the last one is stored, with a sync.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(5);
/// A master that could not be reached is tried again after this: sooner than an election.
pub(super) const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);
/// Entries after which the state is stored, and entries that are kept for masters that are a little behind: a start
/// replays at most their sum, and memory holds no more (see `log_store`).
const SNAPSHOT_EVERY: u64 = 2_000;
const ENTRIES_KEPT: u64 = 500;
/// Entries in one message; they are small (see `COMMAND_BYTES_MAX`), and one that gets too large is halved.
const ENTRIES_PER_MESSAGE: u64 = 64;

const _: () = assert!(HEARTBEAT.as_millis() * 2 < ELECTION_MIN.as_millis());
const _: () = assert!(2 * ELECTION_MAX.as_millis() < QUORUM_SILENCE_MAX.as_millis());

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings.
pub(super) fn config(cluster_name: String) -> Config {
    Config {
        cluster_name,
        heartbeat_interval: ms(HEARTBEAT),
        election_timeout_min: ms(ELECTION_MIN),
        election_timeout_max: ms(ELECTION_MAX),
        install_snapshot_timeout: ms(SNAPSHOT_WITHIN),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES as u64,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_EVERY),
        max_in_snapshot_log_to_keep: ENTRIES_KEPT,
        replication_lag_threshold: SNAPSHOT_EVERY,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        ..Config::default()
    }
}
