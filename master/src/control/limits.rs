//! The loop's constants, each with its reason (DESIGN §4.5).

use std::time::Duration;

use catena_proto::limits::{LEASE_MAX, LINK_SILENCE_MS_DEFAULT};

/// A node that is connected and has not reported for this long seems dead: it is stopped, or hangs (FAULTS 15).
/// A report comes each second; half of one more is what a busy machine may be late by.
pub const SILENT_AFTER: Duration = Duration::from_millis(1_500);
/// A new leader judges no death before every registered node has subscribed, or this has passed: nodes look for the
/// new leader at their own, jittered pace, and whoever is late is not dead.
pub const GRACE: Duration = Duration::from_secs(3);
/// A hold or an alarm is written down once its reason has lasted this long. A death needs a link's silence to be
/// witnessed; until then it is no hold, only news on its way.
pub const NOTED_AFTER: Duration = Duration::from_millis(1_500);
/// A link between two nodes that both report counts as cut after this long: a restart breaks a link for less.
pub const LINK_BROKEN_AFTER: Duration = Duration::from_secs(2);
/// A node that is behind is pushed to again after this long, and each time that it passes again. Accepting a config
/// is one sync of a small file; this is many of them, on a bad disk.
pub const PUSH_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A connected node that stays behind this long, or refuses, is excluded: two more pushes had their chance.
pub const STALE_EXCLUDED_AFTER: Duration = Duration::from_secs(6);
/// Exclusions: one at once, then one node each time that this has passed (DESIGN §4.5). An exclusion that has healed
/// (its chains have their wanted length again, all of it in sync) does not hold up the next.
pub const EXCLUSION_EVERY: Duration = Duration::from_secs(10);
/// A chain is reissued at most this often for a stale last member: the loop's own work stays bounded.
pub const REISSUE_EVERY: Duration = Duration::from_secs(10);
/// Exclusions of a node within this time count as flapping (FAULTS 21).
pub const FLAP_WINDOW: Duration = Duration::from_secs(5 * 60);
/// So many of them within the window are flapping: two are an upgrade that was done again.
pub const FLAPS_MIN: u32 = 3;
/// What a flapping node waits first, from its last exclusion; doubled with each further one.
pub const FLAP_WAIT_FIRST: Duration = Duration::from_secs(10);
/// The longest such wait; within the window, so that a node that behaves again always comes back.
pub const FLAP_WAIT_MAX: Duration = Duration::from_secs(160);
/// A chain that lost a member waits this long for it before it copies everything to a spare: a restart is shorter,
/// and its log is close. It does not wait when only one in-sync member is left.
pub const SPARE_AFTER: Duration = Duration::from_secs(10);
/// A learner whose node is gone this long is dropped: its source keeps log for it, and its place is wanted.
pub const LEARNER_GONE_AFTER: Duration = Duration::from_secs(10);
/// A learner this close, in records, has caught up: what is left is less than one group (M4).
pub const LEARNER_LAG_RECORDS_MAX: u64 = 1_000;
/// Or this close in time at the present rate of writes: what writes pause for when it becomes the tail is a part of it.
pub const LEARNER_LAG_TIME_MAX: Duration = Duration::from_secs(1);
/// Chains that one node follows as a learner at once: copying must not overload it (FAULTS 31).
pub const LEARNERS_PER_NODE_MAX: usize = 16;
/// Reports closer together than this say nothing about a rate.
pub const RATE_SPAN_MIN: Duration = Duration::from_millis(250);

const _: () = assert!(SILENT_AFTER.as_millis() > 1_000 + LINK_SILENCE_MS_DEFAULT as u128);
const _: () = assert!(NOTED_AFTER.as_millis() > 2 * LINK_SILENCE_MS_DEFAULT as u128);
const _: () = assert!(STALE_EXCLUDED_AFTER.as_secs() >= 3 * PUSH_AGAIN_AFTER.as_secs());
// A restarted node owes `L_max` (R4), copies its lag, and is back before a spare is looked for.
const _: () = assert!(SPARE_AFTER.as_millis() > 2 * LEASE_MAX.as_millis());
const _: () = assert!(FLAP_WAIT_MAX.as_secs() < FLAP_WINDOW.as_secs());

/// Most nodes of `registered` (of the cluster, or of a zone) that the loop leaves out of service at once: half of
/// them, and one in any case, or a cluster of one node a zone could never lose one. Three nodes: one; four: two.
#[must_use]
pub const fn out_max(registered: usize) -> usize {
    if registered < 4 { 1 } else { registered / 2 }
}
