//! What every clone of a client shares, and how an operation goes on after a try without an answer.

#![allow(clippy::disallowed_methods, reason = "runtime: pauses between tries")]

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::Bytes;
use catena_proto::call::Header;
use catena_proto::errors::Reason;
use catena_proto::ids::NodeId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Error;
use crate::limits::{PAUSE_MAX, PAUSE_MIN, READ_TRY, WRITE_TRY};
use crate::plan::budget::Budget;
use crate::plan::retry::{Kind, Moment, Next, Tries, Trouble};
use crate::refresh::Refresher;
use crate::topology::{Lane, Topology};

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) topology: Topology,
    pub(crate) refresher: Refresher,
    started: Instant,
    budget: Mutex<Budget>,
}

type Pauses = <ExponentialBuilder as BackoffBuilder>::Backoff;

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Op {
    kind: Kind,
    began: Instant,
    timeout: Duration,
    tries: Tries,
    /// Made when it is first needed: most operations never are.
    pauses: Option<Box<Pauses>>,
}

/// What a try was about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) key: &'a Bytes,
    pub(crate) lane: Option<&'a Lane>,
    pub(crate) node: Option<NodeId>,
}

/// How an operation goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Another try.
    Again,
    /// Another try, under another session.
    NewSession,
    /// Another try, by a unary call to the same node.
    Unary,
}

impl Op {
    /// The time that its next try may take until.
    pub(crate) fn try_until(&self, now: Instant) -> Instant {
        let deadline = self.deadline();
        match self.kind {
            Kind::Repeatable => deadline.min(now + READ_TRY),
            Kind::Session => deadline.min(now + WRITE_TRY),
            Kind::Once => deadline,
        }
    }

    /// The time by which it has ended.
    pub(crate) fn deadline(&self) -> Instant {
        self.began + self.timeout
    }

    /// Tries that have ended.
    pub(crate) const fn tries(&self) -> usize {
        self.tries.count()
    }
}

impl Shared {
    pub(crate) fn new(topology: Topology, refresher: Refresher) -> Self {
        Self {
            topology,
            refresher,
            started: Instant::now(),
            budget: Mutex::new(Budget::new()),
        }
    }

    /// Begins an operation.
    pub(crate) fn begin(&self, kind: Kind) -> Op {
        self.begin_within(kind, Instant::now(), self.topology.ground().options.timeout)
    }

    /// Begins an operation that is part of another.
    pub(crate) fn begin_part(&self, kind: Kind, of: &Op) -> Op {
        self.begin_within(kind, of.began, of.timeout)
    }

    fn begin_within(&self, kind: Kind, began: Instant, timeout: Duration) -> Op {
        Op {
            kind,
            began,
            timeout,
            tries: Tries::new(kind),
            pauses: None,
        }
    }

    /// Milliseconds since the client's start.
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX)
    }

    /// What every unary request carries.
    pub(crate) fn header(&self) -> Header {
        Header {
            cluster: Some(self.topology.ground().cluster),
            forwarded: false,
        }
    }

    /// Learns from `trouble`, then waits as long as it takes before the next try.
    ///
    /// # Errors
    /// The operation gives up.
    pub(crate) async fn recover(
        &self,
        op: &mut Op,
        trouble: Trouble,
        target: Target<'_>,
    ) -> Result<Step, Error> {
        let learned = self.learn(&trouble, target);
        let seeds = &self.topology.ground().seeds;
        let pause = op
            .pauses
            .get_or_insert_with(|| Box::new(pauses(seeds.next())))
            .next()
            .unwrap_or(PAUSE_MAX);
        let moment = Moment {
            elapsed: op.began.elapsed(),
            timeout: op.timeout,
            pause,
            candidates: target.lane.map_or(1, Lane::readers),
            learned,
        };
        let next = op.tries.decide(&trouble, &moment);
        let give_up = |op: &Op| Err(op.tries.error(op.tries.verdict(), &trouble, &moment));
        let step = match next {
            Next::GiveUp(verdict) => return Err(op.tries.error(verdict, &trouble, &moment)),
            Next::Unary => return Ok(Step::Unary),
            Next::NewSession => Step::NewSession,
            Next::Retry { after } => {
                tokio::time::sleep(after).await;
                Step::Again
            }
            Next::Reroute { after } => {
                if !learned {
                    self.refresher.want(target.key);
                }
                self.wait_for_change(after).await;
                Step::Again
            }
        };
        if trouble.was_sent() {
            while let Err(wait) = self.take_token() {
                if Instant::now() + wait >= op.deadline() {
                    return give_up(op);
                }
                tokio::time::sleep(wait).await;
            }
        }
        Ok(step)
    }

    /// Takes in what a refusal says about routes, and which member to leave alone.
    fn learn(&self, trouble: &Trouble, target: Target<'_>) -> bool {
        let unwell = match trouble {
            Trouble::Silent => true,
            Trouble::Refused(refusal) => {
                matches!(refusal.reason, Reason::NotReady | Reason::TooStale)
            }
            _ => false,
        };
        if unwell && let (Some(lane), Some(node)) = (target.lane, target.node) {
            lane.avoid(node, self.millis(Instant::now()));
        }
        match trouble {
            Trouble::Refused(refusal) => refusal.chain.as_deref().is_some_and(|chain| {
                self.topology
                    .learn(std::slice::from_ref(chain), &refusal.nodes)
            }),
            _ => false,
        }
    }

    /// Waits until routes or connections have changed, for `longest` at most.
    async fn wait_for_change(&self, longest: Duration) {
        if longest.is_zero() {
            return;
        }
        let mut changed = self.topology.ground().changed.subscribe();
        // The sender lives as long as we do: this ends with a change or with the time.
        drop(tokio::time::timeout(longest, changed.changed()).await);
    }

    fn take_token(&self) -> Result<(), Duration> {
        let asked = self.topology.asked();
        self.budget.lock().take(self.started.elapsed(), asked)
    }
}

fn pauses(seed: u64) -> Pauses {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE_MIN)
        .with_max_delay(PAUSE_MAX)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(seed)
        .build()
}
