//! The leader's loop: hears nodes, keeps what it observed, compares, acts, pushes.
//!
//! It runs on every master and does nothing until its master leads. All that it
//! decides is decided by pure code: `control` (what to do), `push` (who is
//! owed what), `changes` (what an operator's request means). What it observed
//! begins anew with each term: a new leader takes nobody's word for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catena_proto::config::{ClusterConfig, ConfigPosition};
use catena_proto::ids::NodeId;
use catena_proto::report::{MasterFrame, NodeOpen};
use catena_proto::time::Mono;
use catena_proto::wire;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tonic::Status;

use super::changes::{self, Asked};
use super::snapshots::{Snapshots, WRITE_EVERY};
use super::subscriptions::{Heard, Outgoing, SubscriptionId};
use super::views::LeaderView;
use super::{Bootstrap, Inner, clock};
use crate::control::{self, Action, Observed, Since};
use crate::push::{Due, Pushes, everything};
use crate::state::{Applied, Change, Command, Controller, MasterState};

/// Time passes for the loop in steps of this, when nothing else happens: a tenth of the shortest time that it judges
/// by (the silence of a link).
const TICK: Duration = Duration::from_millis(40);
/// Nodes hear at least this often that the leader lives.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Frames that the loop takes before it looks at the whole again.
const HEARD_AT_ONCE: usize = 512;
/// Pushes a second, and at once: deltas are small, and a change of every chain must not become a storm (FAULTS 26).
const PUSHES_PER_SECOND: u32 = 500;
/// Nodes find a new leader within this time; until then a change is not refused for want of evidence.
const EVIDENCE_COMES_WITHIN: Duration = control::limits::GRACE;
/// A snapshot of a newer state is not written sooner than this after the last one.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(1);

/// A node that is subscribed to this leader.
struct Subscriber {
    id: SubscriptionId,
    open: NodeOpen,
    out: Outgoing,
    heard_alive: Mono,
}

/// The loop's own things, for all terms.
pub(crate) struct Leader {
    inner: Arc<Inner>,
    heard: mpsc::Receiver<Heard>,
    bootstrap: Option<Bootstrap>,
    store: Option<Snapshots>,
}

/// What one term of leadership has.
struct Term {
    inner: Arc<Inner>,
    began: Mono,
    observed: Observed,
    since: Since,
    subscribers: BTreeMap<NodeId, Subscriber>,
    pushes: Pushes,
    pace: DefaultDirectRateLimiter,
    /// What operators asked before this leader had heard from the nodes.
    postponed: Vec<Asked>,
    /// Who wants to see what the leader sees, at the end of the turn.
    viewers: Vec<oneshot::Sender<LeaderView>>,
    /// Commands that are being proposed; the loop acts again when they are applied.
    proposing: Option<JoinHandle<()>>,
}

impl Leader {
    pub(crate) const fn new(
        inner: Arc<Inner>,
        heard: mpsc::Receiver<Heard>,
        bootstrap: Option<Bootstrap>,
        store: Option<Snapshots>,
    ) -> Self {
        Self {
            inner,
            heard,
            bootstrap,
            store,
        }
    }

    /// Leads whenever this master is the leader, until it stops.
    pub(crate) async fn run(mut self) {
        let inner = Arc::clone(&self.inner);
        let stopped = inner.stopped();
        tokio::pin!(stopped);
        let mut leading = inner.raft.leadership();
        loop {
            if leading.borrow_and_update().is_some() {
                tokio::select! {
                    () = self.lead(leading.clone()) => {}
                    () = &mut stopped => return,
                }
                continue;
            }
            tokio::select! {
                changed = leading.changed() => if changed.is_err() { return },
                // Whoever reaches a master that does not lead is sent away: dropping ends the stream.
                heard = self.heard.recv() => if heard.is_none() { return },
                () = &mut stopped => return,
            }
        }
    }

    async fn lead(&mut self, mut leading: watch::Receiver<Option<crate::raft::Term>>) {
        let term = *leading.borrow();
        tracing::info!(?term, "this master leads");
        let now = clock::now();
        let mut work = Term::new(Arc::clone(&self.inner), now);
        let mut states = self.inner.raft.states();
        let snapshots = self.store.clone().map(|store| {
            AbortOnDrop(tokio::spawn(write_snapshots(
                Arc::clone(&self.inner),
                store,
            )))
        });
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while *leading.borrow() == term {
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Some(heard) => work.hear(heard),
                    None => break,
                },
                _ = states.changed() => {}
                _ = leading.changed() => continue,
                _ = tick.tick() => {}
            }
            for _ in 0..HEARD_AT_ONCE {
                let Ok(heard) = self.heard.try_recv() else {
                    break;
                };
                work.hear(heard);
            }
            let state = Arc::clone(&states.borrow_and_update());
            work.turn(&state, self.bootstrap.as_ref());
        }
        drop(snapshots);
        tracing::info!(?term, "this master leads no more");
    }
}

impl Term {
    fn new(inner: Arc<Inner>, now: Mono) -> Self {
        let per_second =
            std::num::NonZeroU32::new(PUSHES_PER_SECOND).unwrap_or(std::num::NonZeroU32::MIN);
        Self {
            inner,
            began: now,
            observed: Observed::new(now),
            since: Since::default(),
            subscribers: BTreeMap::new(),
            pushes: Pushes::default(),
            pace: RateLimiter::direct(Quota::per_second(per_second)),
            postponed: Vec::new(),
            viewers: Vec::new(),
            proposing: None,
        }
    }

    fn hear(&mut self, heard: Heard) {
        let now = clock::now();
        match heard {
            Heard::Opened(_, open, out) if self.is_impostor(&open, now) => {
                tracing::warn!(node = %open.node, disk = %open.disk, "a second process with this node's id is turned away");
                let why = format!(
                    "node {} is here already, with another disk: give this process a node id of its own, or stop the other one",
                    open.node
                );
                let _ = out.try_send(Err(catena_proto::redirect::change_refused(why)));
            }
            Heard::Opened(id, open, out) => {
                let node = open.node;
                tracing::info!(%node, incarnation = %open.incarnation, version = %open.position.version, "a node subscribed");
                self.observed.on_open(now, &open);
                self.pushes.opened(node, open.position);
                let subscriber = Subscriber {
                    id,
                    open,
                    out,
                    heard_alive: now,
                };
                // The one before it, if any, ends with its queue.
                self.subscribers.insert(node, subscriber);
            }
            Heard::Report(id, node, report) if self.is_present(id, node) => {
                self.observed.on_report(now, node, report);
            }
            Heard::Outcome(id, node, outcome) if self.is_present(id, node) => {
                for refused in &outcome.refused {
                    tracing::warn!(%node, item = refused.index, why = refused.reason, "a node refused an item of a push");
                }
                self.pushes.answered(node, outcome.to);
                self.observed.on_outcome(now, node, outcome);
            }
            Heard::Closed(id, node) if self.is_present(id, node) => {
                tracing::info!(%node, "a node's subscription is over");
                self.forget(now, node);
            }
            Heard::Asked(asked) => self.ask(asked),
            Heard::Viewed(answer) => self.viewers.push(answer),
            // Of a subscription that another one has replaced.
            Heard::Report(..) | Heard::Outcome(..) | Heard::Closed(..) => {}
        }
    }

    /// C4: another disk under the id of a node that is there and reports is another process, not a replaced disk.
    fn is_impostor(&self, open: &NodeOpen, now: Mono) -> bool {
        let held = self.subscribers.get(&open.node);
        held.is_some_and(|s| s.open.disk != open.disk) && self.observed.is_reporting(open.node, now)
    }

    fn is_present(&self, id: SubscriptionId, node: NodeId) -> bool {
        self.subscribers.get(&node).is_some_and(|s| s.id == id)
    }

    fn forget(&mut self, now: Mono, node: NodeId) {
        self.subscribers.remove(&node);
        self.pushes.closed(node);
        self.observed.on_closed(now, node);
    }

    /// One turn of monitor, compare, act.
    fn turn(&mut self, state: &Arc<MasterState>, bootstrap: Option<&Bootstrap>) {
        let (now, at) = (clock::now(), clock::wall());
        let found = control::compare(state, &self.observed, now);
        self.since.note(&found, now);
        if self.proposing.as_ref().is_none_or(JoinHandle::is_finished) {
            let mut commands = self.beginnings(state, bootstrap, at);
            for action in control::act(state, &self.observed, &found, &self.since, now, at) {
                match action {
                    Action::Propose(command) => commands.push(command),
                    Action::PushAgain(node) => self.pushes.again(node),
                }
            }
            self.proposing = self.propose(commands);
        }
        for asked in std::mem::take(&mut self.postponed) {
            self.ask(asked);
        }
        self.push(state, now);
        for answer in self.viewers.drain(..) {
            let _ = answer.send(LeaderView::new(state, &self.observed, &found, now));
        }
    }

    /// The cluster's creation, and registrations: what comes before any chain can be judged.
    fn beginnings(
        &self,
        state: &MasterState,
        bootstrap: Option<&Bootstrap>,
        at: crate::state::WallMs,
    ) -> Vec<Command> {
        let by_system = |cause: &str, change: Change| Command {
            at,
            by: Controller::System,
            cause: cause.to_owned(),
            change,
        };
        let Some(config) = state.config() else {
            let create = bootstrap.map(|plan| Change::CreateCluster {
                cluster: self.inner.cluster,
                split_keys: plan.split_keys.clone(),
                replicas: plan.replicas,
                settings: plan.settings.clone(),
            });
            return create
                .map(|change| by_system("the masters were started with --bootstrap", change))
                .into_iter()
                .collect();
        };
        let opens = self.subscribers.values().map(|s| &s.open);
        control::registrations(config, opens, at)
    }

    fn propose(&self, commands: Vec<Command>) -> Option<JoinHandle<()>> {
        if commands.is_empty() {
            return None;
        }
        let inner = Arc::clone(&self.inner);
        Some(tokio::spawn(async move {
            for command in commands {
                let cause = command.cause.clone();
                let change = format!("{:?}", command.change);
                match inner.raft.propose(command).await {
                    Ok(Applied::Refused(why)) => {
                        tracing::debug!(%why, cause, change, "a command was refused");
                    }
                    Ok(Applied::Changed(_)) => tracing::info!(cause, change, "done"),
                    Ok(Applied::Kept) => tracing::debug!(cause, change, "kept"),
                    Err(why) => {
                        tracing::warn!(%why, cause, change, "a command was not proposed");
                        return;
                    }
                }
            }
        }))
    }

    fn ask(&mut self, asked: Asked) {
        let (state, now) = (self.inner.state(), clock::now());
        let planned = changes::plan(&state, &self.observed, &asked.request, now, clock::wall());
        let plan = match planned {
            Ok(plan) if asked.request.dry_run => {
                let _ = asked.answer.send(Ok(plan.response));
                return;
            }
            Ok(plan) => plan,
            // A new leader has no evidence yet (M2): it hears from the nodes first.
            Err(_) if now.since(self.began) < EVIDENCE_COMES_WITHIN => {
                self.postponed.push(asked);
                return;
            }
            Err(why) => {
                let _ = asked.answer.send(Err(why));
                return;
            }
        };
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let _ = asked.answer.send(carry_out(&inner, plan).await);
        });
    }

    /// Sends what is due, as far as the pace allows; what is left is due again in the next turn.
    fn push(&mut self, state: &MasterState, now: Mono) {
        let Some(config) = state.config() else {
            return;
        };
        let newest = state.position();
        for (node, due) in self.pushes.due(newest) {
            if self.pace.check().is_err() {
                break;
            }
            let frame = match due {
                Due::Since(held) => match state.delta_since(held) {
                    Some(delta) => MasterFrame::Push(delta),
                    None => MasterFrame::ReadSnapshot(newest),
                },
                Due::Anew(held) => MasterFrame::Push(everything(config, held)),
            };
            let ends = matches!(frame, MasterFrame::ReadSnapshot(_));
            self.send(node, frame, now);
            if ends {
                // It comes back with what it has read.
                self.forget(now, node);
                continue;
            }
            self.pushes.sent(node, newest);
            self.observed.on_pushed(now, node, newest);
        }
        let quiet: Vec<NodeId> = self
            .subscribers
            .iter()
            .filter(|(_, s)| now.since(s.heard_alive) >= ALIVE_EVERY)
            .map(|(node, _)| *node)
            .collect();
        for node in quiet {
            self.send(node, MasterFrame::Alive, now);
        }
    }

    /// A node whose queue is full does not read: its subscription is over.
    fn send(&mut self, node: NodeId, frame: MasterFrame, now: Mono) {
        let Some(subscriber) = self.subscribers.get_mut(&node) else {
            return;
        };
        subscriber.heard_alive = now;
        let frame: Result<wire::MasterFrame, Status> = Ok(frame.into());
        if subscriber.out.try_send(frame).is_err() {
            self.forget(now, node);
        }
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        let led = clock::now().since(self.began);
        tracing::debug!(?led, nodes = self.subscribers.len(), "a term ends");
    }
}

async fn carry_out(
    inner: &Inner,
    plan: changes::Plan,
) -> Result<wire::ChangeChainResponse, Status> {
    for command in plan.commands {
        match inner.raft.propose(command).await {
            Ok(Applied::Refused(why)) => {
                return Err(catena_proto::redirect::change_refused(why.to_string()));
            }
            Ok(_) => {}
            Err(why) => return Err(inner.unproposed(&why)),
        }
    }
    let mut response = plan.response;
    response.position = Some(inner.state().position().into());
    Ok(response)
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes the whole state at a fixed pace; a newer one sooner, so that the store is never far behind a quiet cluster.
async fn write_snapshots(inner: Arc<Inner>, store: Snapshots) {
    let mut stored = ConfigPosition::default();
    let mut written: Option<Mono> = None;
    let mut said = false;
    loop {
        let state = inner.state();
        let due = written.is_none_or(|at| clock::now().since(at) >= WRITE_EVERY);
        if let Some(config) = state.config()
            && (due || config.position > stored)
        {
            let done = store.write(config).await;
            written = Some(clock::now());
            match done {
                Ok(()) => {
                    if said {
                        tracing::info!("the snapshot store is written again");
                        said = false;
                    }
                    note_stored(&inner, config, &mut stored).await;
                }
                Err(why) if !said => {
                    said = true;
                    tracing::warn!(%why, "no snapshot was written");
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(SNAPSHOT_PAUSE).await;
    }
}

/// Tells the state how far a snapshot reaches, once for each position: its history may be trimmed up to there.
async fn note_stored(inner: &Inner, config: &ClusterConfig, stored: &mut ConfigPosition) {
    if config.position <= *stored {
        return;
    }
    let command = Command {
        at: clock::wall(),
        by: Controller::System,
        cause: "a snapshot was written".to_owned(),
        change: Change::SnapshotStored(config.position),
    };
    // Another leader says it as well; until then the history is longer.
    if inner.raft.propose(command).await.is_ok() {
        *stored = config.position;
    }
}
