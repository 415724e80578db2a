//! The client's own limits and pauses, each with its reason.

use std::time::Duration;

use catena_proto::limits;

/// What the encoding of one request may add to its key and values: ids, session, lengths.
pub(crate) const REQUEST_OVERHEAD_BYTES_MAX: usize = 128;
/// A request that weighs more goes by a unary call: it would fill a frame by itself.
pub(crate) const PIPE_REQUEST_BYTES_MAX: usize = limits::PIPE_FRAME_BYTES_MAX / 2;
/// Reads that go to one member before the next one's turn: as many as a full batch of a busy client.
pub(crate) const READ_STRIDE: u32 = 64;
/// A read that is not answered in this time is asked elsewhere: a node that froze may never answer.
pub(crate) const READ_TRY: Duration = Duration::from_secs(1);
/// A write that is not answered in this time is sent again under its session, to whoever is head then.
pub(crate) const WRITE_TRY: Duration = Duration::from_secs(2);
/// Unary calls to one node at once: each may hold a few MiB; more wait for their turn.
pub(crate) const BULK_IN_FLIGHT_MAX: usize = 64;
/// How long a client that leaves waits for its sessions to be closed; they also end by themselves.
pub(crate) const CLOSE_TRY: Duration = Duration::from_millis(500);
/// First pause before a try is repeated; a chain that loses a member is back within a few of these.
pub(crate) const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause before a try is repeated: it bounds what a client adds to a fail-over.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(200);
/// First pause before a broken connection is made again.
pub(crate) const RECONNECT_MIN: Duration = Duration::from_millis(20);
/// Longest pause before a broken connection is made again.
pub(crate) const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How long a node may take to accept a connection.
pub(crate) const CONNECT_TRY: Duration = Duration::from_secs(1);
/// An idle or silent connection is probed at this pace …
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(500);
/// … and given up when a probe stays unanswered for this long: a busy machine stalls for a second now and then.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A member that was not ready is left alone for this long; then one read tries it again.
pub(crate) const AVOID: Duration = Duration::from_millis(200);
/// How long a master may take to accept a connection, or to answer a question that changes nothing; then the next one is asked.
pub(crate) const MASTER_TRY: Duration = Duration::from_secs(1);
/// Routes are asked for at most this often: a burst of failures is one question.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_millis(50);
/// How long a node may take to answer for its routes; then the next one is asked.
pub(crate) const REFRESH_TRY: Duration = Duration::from_millis(500);
/// Addresses asked for the first routes: those that were given, and those that masters name.
pub(crate) const SOURCES_MAX: usize = 64;
/// Chains asked for at once.
pub(crate) const REFRESH_CHAINS: usize = 256;
/// Keys whose routes are wanted at once; more are dropped, their owners ask again.
pub(crate) const REFRESH_KEYS_MAX: usize = 64;
/// How often requests are looked through for those past their deadline; it replaces a timer per request.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(20);
/// Repeated tries allowed per first try, in thousandths: a tenth keeps an overload from feeding itself (FAULTS 33).
pub(crate) const RETRIES_PER_MILLE: u64 = 100;
/// Repeated tries allowed each second even when hardly anything is asked.
pub(crate) const RETRIES_PER_SECOND: u64 = 20;
/// Repeated tries that may be saved up: all that one connection holds, so that a fail-over repeats them at once.
pub(crate) const RETRIES_SAVED_MAX: u64 = 4096;

const _: () = assert!(PIPE_REQUEST_BYTES_MAX < limits::PIPE_FRAME_BYTES_MAX);
const _: () = assert!(PAUSE_MIN.as_millis() < PAUSE_MAX.as_millis());
const _: () = assert!(READ_TRY.as_millis() > AVOID.as_millis());
