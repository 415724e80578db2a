//! Every limit and timeout that both planes or both ends of a wire must agree on, each with its reason.
//!
//! The relations between them are asserted at compile time: an inner limit is
//! never smaller than the outer one that feeds it (DESIGN §3.6).

use std::time::Duration;

/// Longest key, in bytes. Keys are held in memory by overlays and indexes; etcd and TiKV users stay far below.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// Longest value, in bytes. A larger one would hold up a chain's frames for too long; bulk belongs in an object store.
pub const VALUE_BYTES_MAX: usize = 4 << 20;
/// Largest atomic batch, in bytes of keys and values together.
pub const BATCH_BYTES_MAX: usize = 8 << 20;
/// What the encoding of one record may add to its keys and values: headers, lengths, a session's result.
pub const RECORD_OVERHEAD_BYTES_MAX: usize = 64 << 10;
/// Largest encoded record; any batch fits into one.
pub const RECORD_BYTES_MAX: usize = BATCH_BYTES_MAX + RECORD_OVERHEAD_BYTES_MAX;
/// A head closes a group at this size; one larger record makes a group of its own.
/// 1 MiB is where a sync's cost turns from latency to bandwidth (DESIGN §6).
pub const GROUP_BYTES_TARGET: usize = 1 << 20;
/// Largest group that a member accepts: a full target plus one largest record.
pub const GROUP_BYTES_MAX: usize = GROUP_BYTES_TARGET + RECORD_BYTES_MAX;
/// A frame between nodes is closed at this size; it always takes at least one group.
pub const LINK_FRAME_BYTES_TARGET: usize = 1 << 20;
/// Largest frame between nodes that is decoded at all.
pub const LINK_FRAME_BYTES_MAX: usize = LINK_FRAME_BYTES_TARGET + GROUP_BYTES_MAX + (64 << 10);
/// Largest frame of a client's pipe: small, so that one client's bulk never holds up another's reads; larger values go by the unary calls.
pub const PIPE_FRAME_BYTES_MAX: usize = 256 << 10;
/// Largest unary request or response: one batch and its envelope.
pub const UNARY_BYTES_MAX: usize = RECORD_BYTES_MAX + (64 << 10);
/// Largest page of a scan, in bytes of keys and values; the page that holds the first row may exceed it by that row.
pub const SCAN_PAGE_BYTES_MAX: usize = 1 << 20;
/// Most rows in a page of a scan.
pub const SCAN_PAGE_ROWS_MAX: usize = 10_000;
/// Largest result that a session's slot keeps (DESIGN §3.4).
pub const RESULT_BYTES_MAX: usize = 64;

/// Most requests in one frame of a client's pipe: an empty request takes two bytes on the wire and a hundred times that once decoded.
pub const PIPE_FRAME_REQUESTS_MAX: usize = 8192;
/// Most chains in one page of routes; a client never needs the whole map (INTERFACE, Protocol).
pub const ROUTES_PAGE_CHAINS_MAX: usize = 1000;
/// Longest address: the longest name in the DNS (253), a colon and a port.
pub const ADDR_BYTES_MAX: usize = 259;
/// Longest name of a failure domain.
pub const ZONE_BYTES_MAX: usize = 64;
/// Longest message that a refusal carries; a longer one is cut.
pub const REFUSAL_MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Largest encoded details of a gRPC status: in base64 they stay below the 16 KiB that HTTP/2 peers accept as headers.
pub const STATUS_DETAILS_BYTES_MAX: usize = 8 << 10;

/// Slots of one session: as many requests can one SDK client have under way per shard.
pub const SESSION_SLOTS_MAX: u16 = 1024;
/// Sessions of one shard; an opener beyond it is refused.
pub const SESSIONS_PER_SHARD_MAX: usize = 10_000;
/// Slots in use of all sessions of one shard; a request that needs one more is refused. At 64 bytes each they, and a
/// page of rows, fit one frame of a link: a learner gets them together, of one moment (M4).
pub const SLOTS_PER_SHARD_MAX: usize = 65_536;
/// A session that made no request for this much log time is closed by a logged record.
pub const SESSION_IDLE_LOG_MS: u64 = 10 * 60 * 1000;

/// Longest chain; seven copies outlive any credible double failure, and each hop costs latency.
pub const CHAIN_MEMBERS_MAX: usize = 7;
/// Most shards in a cluster configuration.
pub const SHARDS_MAX: usize = 100_000;
/// Most nodes in a cluster configuration.
pub const NODES_MAX: usize = 10_000;
/// Most items of one delta: every chain with its learners, every node, and the settings.
pub const DELTA_ITEMS_MAX: usize = 2 * SHARDS_MAX + 2 * NODES_MAX + 1;
/// Most alarms in one report; more say nothing more.
pub const REPORT_ALARMS_MAX: usize = 64;

/// Bytes of records that a head lets wait for commit before it refuses writes early with a retry hint.
pub const PENDING_BYTES_MAX: usize = 64 << 20;
/// Records that a head lets wait for commit.
pub const PENDING_RECORDS_MAX: usize = 200_000;
/// Bytes of groups that a predecessor sends ahead of what its successor has said it received.
pub const FORWARD_WINDOW_BYTES_MAX: usize = 32 << 20;

/// Clock-rate error bound ρ of rule R2, in parts per million: the kernel disciplines `CLOCK_BOOTTIME` within 500 ppm.
pub const CLOCK_RATE_ERROR_PPM: u64 = 1_000;
/// `L_max` of rule R4: a constant of the protocol; the setting `lease_ms` can only be shorter.
pub const LEASE_MAX: Duration = Duration::from_millis(2_000);
/// Default of the setting `lease_ms` (L).
pub const LEASE_MS_DEFAULT: u64 = 500;
/// Default of the setting `lease_round_ms`: five rounds fit into a lease, so that four may be lost.
pub const LEASE_ROUND_MS_DEFAULT: u64 = 100;
/// A link on which nothing came for this long counts as broken.
pub const LINK_SILENCE_MS_DEFAULT: u64 = 400;
/// Handshakes, announcements and follow requests are repeated at this pace until answered.
pub const RETRY_EVERY: Duration = Duration::from_millis(100);
/// Bytes of log that a node retains for members and learners that were away.
pub const LOG_RETAINED_BYTES_DEFAULT: u64 = 1 << 30;
/// Configs that a node keeps on disk besides the newest.
pub const CONFIGS_KEPT: usize = 5;
/// Largest encoded cluster configuration (a snapshot object).
pub const CONFIG_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(RECORD_BYTES_MAX > KEY_BYTES_MAX + VALUE_BYTES_MAX);
const _: () = assert!(GROUP_BYTES_MAX > RECORD_BYTES_MAX);
const _: () = assert!(LINK_FRAME_BYTES_MAX > GROUP_BYTES_MAX);
const _: () = assert!(UNARY_BYTES_MAX > BATCH_BYTES_MAX);
const _: () = assert!(FORWARD_WINDOW_BYTES_MAX > GROUP_BYTES_MAX);
const _: () = assert!(PENDING_BYTES_MAX > GROUP_BYTES_MAX);
const _: () = assert!(LEASE_MS_DEFAULT as u128 <= LEASE_MAX.as_millis());
const _: () = assert!(4 * LEASE_ROUND_MS_DEFAULT < LEASE_MS_DEFAULT);

/// `span` stretched by the clock-rate bound: how long a promise must last on the promiser's own clock (R1).
#[must_use]
pub fn stretched(span: Duration) -> Duration {
    span + rate_error(span)
}

/// `span` shortened by the clock-rate bound: how long a lease may be used on the holder's own clock (R2).
#[must_use]
pub fn shortened(span: Duration) -> Duration {
    span.saturating_sub(rate_error(span))
}

fn rate_error(span: Duration) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    // Rounded up: both directions must be on the safe side.
    Duration::from_nanos((nanos / 1_000_000 + 1).saturating_mul(CLOCK_RATE_ERROR_PPM))
}

const _: () = assert!(
    SLOTS_PER_SHARD_MAX * 64 + SESSIONS_PER_SHARD_MAX * 32 + SCAN_PAGE_BYTES_MAX + VALUE_BYTES_MAX
        < LINK_FRAME_BYTES_MAX,
    "the first page of a scan fits one frame of a link"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_the_promise_that_backs_it() {
        let l = Duration::from_millis(500);
        assert_eq!(stretched(l), Duration::from_nanos(500_501_000));
        assert!(shortened(l) < l && l < stretched(l));
    }
}
