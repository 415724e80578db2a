//! The node's end of the control plane: one subscription, to the leader of the masters (DESIGN §4.2, §4.3).
//!
//! Everything here may fail for ever without any effect on serving: no request,
//! lease or start waits for it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::config::{ConfigError, ConfigPosition};
use catena_proto::conversion::config::ParsedDelta;
use catena_proto::conversion::control::Pushed;
use catena_proto::errors::Refusal;
use catena_proto::report::{ItemRefused, NodeFrame, NodeOpen, PushOutcome};
use catena_proto::time::Mono;
use catena_proto::{limits, redirect, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::clock;
use super::configs::{AcceptError, Acceptor};
use super::link_out::channel;
use super::masters::Masters;
use super::report::{Reporter, cut};
use super::shared::Shared;
use super::store::SnapshotStore;
use super::switch::Mode;

/// A master says something each second; one that is silent for this long is left.
const SILENCE: Duration = Duration::from_secs(3);
/// A report is sent at least this often, changed or not.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Changes within this time share a report.
const COALESCE: Duration = Duration::from_millis(20);
/// How often the links are looked at: silence makes no event.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After an event, what follows from it (a metadata record that becomes durable) is looked for so long.
const AFTERMATH: Duration = Duration::from_millis(500);
/// Frames that wait for a master that reads slowly; further reports are left out.
const FRAMES_WAITING_MAX: usize = 8;
/// Longest answer to a fetch of the whole config.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// Largest frame of a master: a delta from nothing, or the whole state, and its envelope.
const FRAME_BYTES_MAX: usize = limits::CONFIG_BYTES_MAX + (1 << 20);

/// How this node is reached, as it tells the masters.
#[derive(Clone, Debug)]
pub(crate) struct Myself {
    pub(crate) addr: String,
    pub(crate) http: String,
    pub(crate) zone: String,
}

/// The task that keeps the subscription.
pub(crate) struct Control {
    pub(crate) shared: Arc<Shared>,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) store: Option<SnapshotStore>,
    pub(crate) masters: Masters,
    pub(crate) myself: Myself,
    pub(crate) reporter: Reporter,
}

/// Why a subscription ended.
enum Ended {
    /// It broke or fell silent: the next one.
    Lost(String),
    /// This master does not lead; the leader's address, if it knows one.
    NotLeader(Option<String>),
    /// A delta does not start where we are: the same master, with the position held.
    Missed(String),
    /// The history does not reach back to us.
    ReadSnapshot,
    /// A newer config was read elsewhere: the same master, at once.
    CaughtUp,
    /// Told when to come again.
    Later(Duration, String),
    /// It said what makes no sense here: again, but slowly.
    Senseless(String),
}

type Client = wire::control_client::ControlClient<Channel>;
/// A push that is being accepted, off the runtime: a hung disk must not stop the reports.
type Accepting = tokio::task::JoinHandle<(ParsedDelta, Result<Vec<ItemRefused>, AcceptError>)>;

impl Control {
    /// Subscribes again and again, until the node stops.
    pub(crate) async fn run(mut self) {
        // Each reason is said once, and again after a subscription was of use.
        let mut said = String::new();
        let shared = Arc::clone(&self.shared);
        self.boot().await;
        while !shared.stopping.load(Ordering::SeqCst) {
            let Some(addr) = self.masters.next() else {
                return;
            };
            let ended = tokio::select! {
                ended = self.meet(&addr) => ended,
                () = shared.closed() => return,
            };
            if shared.master_connected.swap(false, Ordering::Relaxed) {
                said.clear();
                self.masters.was_of_use();
            }
            let (pause, why) = match ended {
                Ended::NotLeader(Some(leader)) => (self.masters.follow(leader), String::new()),
                Ended::NotLeader(None) => (
                    self.masters.pause(),
                    "the masters have no leader".to_owned(),
                ),
                Ended::ReadSnapshot | Ended::CaughtUp => {
                    (self.masters.again(addr.clone()), String::new())
                }
                Ended::Missed(why) => (self.masters.retry(addr.clone()), why),
                Ended::Lost(why) => (self.masters.pause(), why),
                Ended::Later(span, why) => (self.masters.later(span), why),
                Ended::Senseless(why) => (self.masters.slowly(), why),
            };
            if !why.is_empty() && said != why {
                tracing::warn!(
                    master = addr,
                    why,
                    "no master is connected; serving goes on"
                );
                said = why;
            }
            shared.pause(pause).await;
        }
    }

    /// A node without a config reads the store before it asks a master: that costs the master nothing (DESIGN §4.2).
    async fn boot(&self) {
        let new = self.shared.config().position == ConfigPosition::default();
        let Some(store) = self.store.as_ref().filter(|_| new) else {
            return;
        };
        let reading = self.acceptor.read_store(store);
        tokio::select! {
            read = reading => if let Err(why) = read {
                tracing::warn!(why, "the first config has to come from a master");
            },
            () = self.shared.closed() => {}
        }
    }

    /// Connects to one master, subscribes, and catches up in another way if it says so.
    async fn meet(&mut self, addr: &str) -> Ended {
        let channel = match channel(addr).await {
            Ok(channel) => channel,
            Err(why) => return Ended::Lost(format!("no connection: {why}")),
        };
        let mut client = Client::new(channel)
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX);
        match self.subscribe(&mut client, addr).await {
            Ended::ReadSnapshot => self.catch_up(&mut client).await,
            ended => ended,
        }
    }

    async fn subscribe(&mut self, client: &mut Client, addr: &str) -> Ended {
        let (frames, waiting) = mpsc::channel(FRAMES_WAITING_MAX);
        let now = clock::now();
        let first = self.reporter.next(now);
        for frame in [NodeFrame::Open(self.open()), NodeFrame::Report(first)] {
            // There is room for the first two.
            let _ = frames.try_send(frame.into());
        }
        let opening = client.subscribe(ReceiverStream::new(waiting));
        match tokio::time::timeout(SILENCE, opening).await {
            Err(_) => Ended::Lost("it does not answer".to_owned()),
            Ok(Err(status)) => ended_by(&status),
            Ok(Ok(down)) => {
                let session = Session {
                    control: self,
                    addr,
                    frames,
                    down: down.into_inner(),
                    accepting: None,
                    next: None,
                    heard: now,
                    reported: now,
                    looked: now,
                    aftermath: now.plus(AFTERMATH),
                };
                session.run().await
            }
        }
    }

    fn open(&self) -> NodeOpen {
        let me = self.shared.me;
        NodeOpen {
            cluster: me.cluster,
            node: me.node,
            disk: me.disk,
            incarnation: me.incarnation,
            addr: self.myself.addr.clone(),
            http: self.myself.http.clone(),
            zone: self.myself.zone.clone(),
            position: self.shared.config().position,
            version: self.shared.version.to_owned(),
        }
    }

    /// The history does not reach back to us: the store first, which costs the master nothing, then the master.
    async fn catch_up(&self, client: &mut Client) -> Ended {
        if let Some(store) = &self.store {
            match self.acceptor.read_store(store).await {
                Ok(true) => return Ended::CaughtUp,
                Ok(false) => {
                    tracing::info!("the snapshot store holds nothing newer: asking the master");
                }
                Err(why) => tracing::warn!(why, "asking the master for the whole config"),
            }
        }
        let me = self.shared.me;
        let request = wire::FetchConfigRequest {
            cluster_id: Bytes::copy_from_slice(&me.cluster.to_bytes()),
            node_id: me.node.get(),
        };
        let fetched = tokio::time::timeout(FETCH_WITHIN, client.fetch_config(request)).await;
        let config = match fetched {
            Err(_) => return Ended::Lost("it does not hand out its config".to_owned()),
            Ok(Err(status)) => return ended_by(&status),
            Ok(Ok(answer)) => answer.into_inner().config,
        };
        let parsed = match config.map(catena_proto::config::ClusterConfig::try_from) {
            None => return Ended::Senseless("it handed out no config".to_owned()),
            Some(Err(why)) => return Ended::Senseless(format!("its config is refused: {why}")),
            Some(Ok(parsed)) => parsed,
        };
        match self.acceptor.accept_off_the_runtime(parsed, "push").await {
            Ok(true) => Ended::CaughtUp,
            // Asked again at once, it would send us in a circle.
            Ok(false) => Ended::Senseless("its whole config is no newer than ours".to_owned()),
            Err(why) => Ended::Senseless(format!("its config is refused: {why}")),
        }
    }
}

/// One subscription that was opened.
struct Session<'a> {
    control: &'a mut Control,
    addr: &'a str,
    frames: mpsc::Sender<wire::NodeFrame>,
    down: Streaming<wire::MasterFrame>,
    accepting: Option<Accepting>,
    /// A push that came before the last one was judged.
    next: Option<ParsedDelta>,
    heard: Mono,
    reported: Mono,
    looked: Mono,
    /// Replicas are looked at each time until then.
    aftermath: Mono,
}

impl Session<'_> {
    async fn run(mut self) -> Ended {
        let shared = Arc::clone(&self.control.shared);
        let mut look_at = self.looked.plus(LOOK_EVERY);
        loop {
            tokio::select! {
                frame = self.down.message() => {
                    let ended = match frame {
                        Ok(Some(frame)) => self.on_frame(frame),
                        Ok(None) => Some(Ended::Lost("it ended the subscription".to_owned())),
                        Err(status) => Some(ended_by(&status)),
                    };
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
                accepted = accepted(&mut self.accepting) => {
                    self.accepting = None;
                    let ended = match accepted {
                        Ok((pushed, verdict)) => self.on_accepted(&pushed, verdict).await,
                        Err(panicked) => Some(Ended::Senseless(panicked.to_string())),
                    };
                    if let Some(ended) = ended {
                        return ended;
                    }
                    if let Some(next) = self.next.take() {
                        self.accept(next);
                    }
                }
                () = shared.changed.notified() => {
                    self.aftermath = clock::now().plus(AFTERMATH);
                    look_at = look_at.min(self.looked.plus(COALESCE));
                }
                () = shared.resubscribe.notified() => {
                    return Ended::CaughtUp;
                }
                () = tokio::time::sleep(clock::until(look_at)) => {
                    let now = clock::now();
                    if now.since(self.heard) >= SILENCE {
                        return Ended::Lost("it is silent".to_owned());
                    }
                    self.look(now);
                    look_at = now.plus(LOOK_EVERY);
                }
            }
        }
    }

    /// Reports if there is news, or once a second.
    fn look(&mut self, now: Mono) {
        self.looked = now;
        self.control.shared.fellows.tick(now);
        let reporter = &mut self.control.reporter;
        let due = now.since(self.reported) >= REPORT_EVERY;
        let report = match due {
            true => Some(reporter.next(now)),
            false => reporter.news(now, now < self.aftermath),
        };
        if let Some(report) = report {
            self.reported = now;
            // A master that does not read gets the next one.
            let _ = self.frames.try_send(NodeFrame::Report(report).into());
        }
    }

    fn on_frame(&mut self, frame: wire::MasterFrame) -> Option<Ended> {
        let pushed = match Pushed::try_from(frame) {
            Ok(pushed) => pushed,
            Err(why) => return Some(Ended::Senseless(format!("a frame is refused: {why}"))),
        };
        self.heard = clock::now();
        let shared = &self.control.shared;
        if !shared.master_connected.swap(true, Ordering::Relaxed) {
            tracing::info!(master = self.addr, "a master is connected");
        }
        match pushed {
            Pushed::Alive => None,
            Pushed::ReadSnapshot(_) => Some(Ended::ReadSnapshot),
            Pushed::Delta(_) if shared.switch.mode() == Mode::Silent => None,
            Pushed::Delta(pushed) if self.accepting.is_some() => {
                // The master lost patience; the newest push is the one that it waits for.
                self.next = Some(pushed);
                None
            }
            Pushed::Delta(pushed) => {
                self.accept(pushed);
                None
            }
        }
    }

    fn accept(&mut self, pushed: ParsedDelta) {
        let acceptor = Arc::clone(&self.control.acceptor);
        self.accepting = Some(tokio::task::spawn_blocking(move || {
            let verdict = acceptor.accept_delta(&pushed);
            (pushed, verdict)
        }));
    }

    /// Answers a push, or leaves when there is nothing to answer it with.
    async fn on_accepted(
        &mut self,
        pushed: &ParsedDelta,
        verdict: Result<Vec<ItemRefused>, AcceptError>,
    ) -> Option<Ended> {
        let refused = match verdict {
            Ok(refused) => refused,
            Err(AcceptError::Config(ConfigError::WrongBase { base, ours })) => {
                return Some(Ended::Missed(format!(
                    "a push starts at version {base}, this node is at {ours}: something was missed"
                )));
            }
            Err(why @ AcceptError::Config(ConfigError::ForeignCluster { .. })) => {
                return Some(Ended::Senseless(why.to_string()));
            }
            // Nothing of it was taken: each item is refused, with the same reason.
            Err(why) => {
                tracing::warn!(%why, "a push is refused");
                let items = pushed.delta.items.len() + pushed.refused.len();
                let reason = cut(why.to_string());
                let of = |index| ItemRefused {
                    index,
                    reason: reason.clone(),
                };
                (0..items).map(of).collect()
            }
        };
        let outcome = NodeFrame::Outcome(PushOutcome {
            to: pushed.delta.to,
            refused,
        });
        let sending = self.frames.send(outcome.into());
        match tokio::time::timeout(SILENCE, sending).await {
            Ok(Ok(())) => None,
            Ok(Err(_)) => Some(Ended::Lost("it ended the subscription".to_owned())),
            Err(_) => Some(Ended::Lost("it does not read".to_owned())),
        }
    }
}

/// Resolves when the push under way was judged; never without one.
async fn accepted(
    accepting: &mut Option<Accepting>,
) -> Result<(ParsedDelta, Result<Vec<ItemRefused>, AcceptError>), tokio::task::JoinError> {
    match accepting {
        Some(accepting) => accepting.await,
        None => std::future::pending().await,
    }
}

/// What a master's refusal asks for.
fn ended_by(status: &Status) -> Ended {
    if let Some(leader) = redirect::leader_of(status) {
        return Ended::NotLeader(leader.filter(|addr| !addr.is_empty()));
    }
    let refusal = Refusal::from_status(status);
    let why = status.message().to_owned();
    match (refusal.retry_after, status.code()) {
        (Some(span), _) => Ended::Later(span, why),
        (
            None,
            tonic::Code::Unavailable
            | tonic::Code::Unknown
            | tonic::Code::Cancelled
            | tonic::Code::DeadlineExceeded
            | tonic::Code::Aborted,
        ) => Ended::Lost(why),
        _ => Ended::Senseless(why),
    }
}
