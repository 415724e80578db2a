//! The links with the fellows of this node's chains: who they are, and when each was last heard.
//!
//! A fellow is every other member, and every learner, of a chain that this node
//! is in or follows. Lease rounds and commits pass only between neighbours, and
//! stop when a member is away; so each node sends every fellow an empty frame
//! while it has nothing else for it, four times within the silence that counts
//! as broken. A link is then judged by itself, whatever the rest of its chain does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use catena_proto::config::{ChainConfig, ClusterConfig, Learner};
use catena_proto::ids::{DiskId, NodeId};
use catena_proto::report::LinkReport;
use catena_proto::time::Mono;
use parking_lot::{Mutex, RwLock};

/// An idle link carries this many frames within the silence that counts as broken, so that most may be late.
const BEATS_IN_SILENCE: u64 = 4;
/// A frame a link more often than this would be work without use.
const BEAT_EVERY_MIN: Duration = Duration::from_millis(10);

/// How often this process notes that it runs, and the gap after which it was not running.
pub(crate) const TICK_EVERY: Duration = Duration::from_millis(50);
const STALL: Duration = Duration::from_millis(200);
/// What waited in the sockets meanwhile is read within this.
const SOCKETS_READ_WITHIN: Duration = Duration::from_millis(100);

/// What is known of one link.
#[derive(Debug, Default)]
pub(crate) struct LinkHealth {
    /// When the last frame came, in nanoseconds of the node's clock; 0 before the first.
    heard: AtomicU64,
    /// A stream broke, either way, and nothing was heard since.
    broken: AtomicBool,
}

impl LinkHealth {
    /// A frame came. True if the link had been broken, or this is the first.
    pub(crate) fn hear(&self, now: Mono) -> bool {
        let before = self.heard.swap(now.as_nanos(), Ordering::Relaxed);
        self.broken.swap(false, Ordering::Relaxed) || before == 0
    }

    fn report(&self, fellow: NodeId, now: Mono, silence: Duration, sleep: Sleep) -> LinkReport {
        let heard = Mono::from_nanos(self.heard.load(Ordering::Relaxed));
        let silent = (heard > Mono::ZERO).then(|| now.since(heard));
        // Just awake, this process takes a link for what it was before.
        let just_awake = now.since(sleep.awake) <= SOCKETS_READ_WITHIN;
        let recent = silent.is_some_and(|silent| {
            silent <= silence || (just_awake && sleep.began.since(heard) <= silence)
        });
        LinkReport {
            fellow,
            alive: recent && !self.broken.load(Ordering::Relaxed),
            silent,
        }
    }
}

/// The node's fellows and their links.
#[derive(Debug, Default)]
pub(crate) struct Fellows {
    present: RwLock<Arc<BTreeSet<NodeId>>>,
    /// Of every node that ever opened a stream; only registered ones may, so there are few.
    links: Mutex<BTreeMap<NodeId, Arc<LinkHealth>>>,
    sleep: Mutex<Sleep>,
}

/// When this process last found that it had not been running.
#[derive(Clone, Copy, Debug, Default)]
struct Sleep {
    /// When it last knew that it runs.
    looked: Mono,
    /// When it last knew that, before it stood still.
    began: Mono,
    /// When it found out.
    awake: Mono,
}

impl Fellows {
    /// Learns who the fellows are.
    pub(crate) fn renew(&self, fellows: BTreeSet<NodeId>) {
        if **self.present.read() != fellows {
            *self.present.write() = Arc::new(fellows);
        }
    }

    /// Whether this node is a fellow: only such a link is kept busy.
    pub(crate) fn contains(&self, node: NodeId) -> bool {
        self.present.read().contains(&node)
    }

    /// The link with this node.
    pub(crate) fn link(&self, node: NodeId) -> Arc<LinkHealth> {
        Arc::clone(self.links.lock().entry(node).or_default())
    }

    /// A stream from or to this node broke. True if that is news.
    pub(crate) fn lose(&self, node: NodeId) -> bool {
        let link = self.links.lock().get(&node).cloned();
        link.is_some_and(|link| !link.broken.swap(true, Ordering::Relaxed)) && self.contains(node)
    }

    /// Says that this process runs. One that was stopped finds every fellow silent when it goes on, while what they
    /// sent meanwhile waits in its sockets: it blames nobody before it has read that.
    pub(crate) fn tick(&self, now: Mono) {
        let mut sleep = self.sleep.lock();
        if now.since(sleep.looked) >= STALL {
            (sleep.began, sleep.awake) = (sleep.looked, now);
        }
        sleep.looked = sleep.looked.max(now);
    }

    /// The links with all fellows, by node.
    pub(crate) fn report(&self, now: Mono, silence: Duration) -> Vec<LinkReport> {
        let present = Arc::clone(&self.present.read());
        let links = self.links.lock();
        let never = LinkHealth::default();
        let sleep = *self.sleep.lock();
        let of = |node: &NodeId| links.get(node).map_or(&never, |link| &**link);
        present
            .iter()
            .map(|node| of(node).report(*node, now, silence, sleep))
            .collect()
    }
}

/// How often an idle link to a fellow carries an empty frame.
pub(crate) fn beat_every(config: &ClusterConfig) -> Duration {
    Duration::from_millis(config.settings.link_silence_ms / BEATS_IN_SILENCE).max(BEAT_EVERY_MIN)
}

/// Adds the fellows that a node has in one chain.
pub(crate) fn of_chain(
    into: &mut BTreeSet<NodeId>,
    chain: &ChainConfig,
    learners: &[Learner],
    me: NodeId,
    disk: DiskId,
) {
    let of_shard = || learners.iter().filter(|l| l.shard == chain.shard);
    let member = chain.member(me, disk).is_some();
    let learns = of_shard().any(|l| l.node == me && l.disk == disk);
    if member || learns {
        into.extend(chain.members.iter().map(|m| m.node));
    }
    if member {
        into.extend(of_shard().map(|l| l.node));
    }
    into.remove(&me);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NodeId = NodeId::new(2);
    const SILENCE: Duration = Duration::from_millis(400);

    fn fellows() -> Fellows {
        let fellows = Fellows::default();
        fellows.renew(BTreeSet::from([TWO]));
        fellows
    }

    fn alive(fellows: &Fellows, now: Mono) -> bool {
        fellows.report(now, SILENCE)[0].alive
    }

    #[test]
    fn a_link_lives_while_it_is_heard_and_not_before() {
        let fellows = fellows();
        let now = Mono::from_millis(1000);
        assert_eq!(fellows.report(now, SILENCE)[0].silent, None);
        assert!(!alive(&fellows, now));
        assert!(fellows.link(TWO).hear(now), "the first frame is news");
        assert!(alive(&fellows, now.plus(SILENCE)));
        assert!(!alive(&fellows, now.plus(SILENCE * 2)));
        assert!(!fellows.link(TWO).hear(now.plus(SILENCE * 2)));
        assert!(alive(&fellows, now.plus(SILENCE * 2)));
    }

    #[test]
    fn a_process_that_was_stopped_blames_no_fellow_when_it_goes_on() {
        let fellows = fellows();
        let now = Mono::from_millis(1000);
        fellows.tick(now);
        fellows.link(TWO).hear(now);
        let resumed = now.plus(SILENCE * 10);
        assert!(!alive(&fellows, resumed));
        fellows.tick(resumed);
        assert!(alive(&fellows, resumed));
        // Nothing had come, it turns out; and the next stall does not make up for it.
        let later = resumed.plus(SOCKETS_READ_WITHIN * 2);
        assert!(!alive(&fellows, later));
        fellows.tick(later);
        fellows.tick(later.plus(STALL));
        assert!(!alive(&fellows, later.plus(STALL)));
    }

    #[test]
    fn a_stream_that_breaks_is_told_at_once_and_a_frame_mends_it() {
        let fellows = fellows();
        let now = Mono::from_millis(1000);
        fellows.link(TWO).hear(now);
        assert!(fellows.lose(TWO));
        assert!(!fellows.lose(TWO), "said once");
        assert!(!alive(&fellows, now));
        assert!(fellows.link(TWO).hear(now));
        assert!(alive(&fellows, now));
    }
}
