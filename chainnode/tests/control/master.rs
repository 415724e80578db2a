//! A master that does what a test tells it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use catena_proto::config::{ClusterConfig, ConfigPosition, Delta};
use catena_proto::report::{MasterFrame, NodeFrame, NodeOpen, PushOutcome, Report};
use catena_proto::wire;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::nodes::PATIENCE;

/// How often the master says that it lives.
const ALIVE_EVERY: Duration = Duration::from_millis(500);

type Down = mpsc::Sender<Result<wire::MasterFrame, Status>>;

/// What the master answers with.
#[derive(Default)]
struct Script {
    /// Subscriptions are refused with this.
    refusal: Option<Status>,
    /// Fetches are answered with these, in turn; the last one stays.
    fetches: Vec<Result<ClusterConfig, Status>>,
    fetched: usize,
}

/// The master; it goes away when it is dropped.
pub(crate) struct Master {
    pub(crate) addr: SocketAddr,
    script: Arc<Mutex<Script>>,
    sessions: mpsc::Receiver<Session>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Master {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Master {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let script = Arc::new(Mutex::new(Script::default()));
        let (opened, sessions) = mpsc::channel(64);
        let service = wire::control_server::ControlServer::new(Service {
            script: Arc::clone(&script),
            opened,
        });
        let server = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            let mut server = tonic::transport::Server::builder();
            let served = server.add_service(service).serve_with_incoming(incoming);
            served.await.expect("served");
        });
        Self {
            addr,
            script,
            sessions,
            server,
        }
    }

    /// The next subscription that a node opens.
    pub(crate) async fn session(&mut self) -> Session {
        let opened = tokio::time::timeout(PATIENCE, self.sessions.recv()).await;
        opened.expect("a node subscribes in time").expect("served")
    }

    /// The next subscription of this node; others that come meanwhile are dropped.
    pub(crate) async fn session_of(&mut self, n: u64) -> Session {
        loop {
            let session = self.session().await;
            if session.open.node.get() == n {
                return session;
            }
        }
    }

    pub(crate) fn refuse(&self, refusal: Option<Status>) {
        self.script.lock().refusal = refusal;
    }

    pub(crate) fn answer_fetches(&self, answers: Vec<Result<ClusterConfig, Status>>) {
        let mut script = self.script.lock();
        (script.fetches, script.fetched) = (answers, 0);
    }

    pub(crate) fn fetched(&self) -> usize {
        self.script.lock().fetched
    }
}

struct Service {
    script: Arc<Mutex<Script>>,
    opened: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl wire::control_server::Control for Service {
    type SubscribeStream = ReceiverStream<Result<wire::MasterFrame, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<wire::NodeFrame>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        if let Some(refusal) = self.script.lock().refusal.clone() {
            return Err(refusal);
        }
        let mut frames = request.into_inner();
        let first = frames.message().await?.expect("an opening");
        let Ok(NodeFrame::Open(open)) = NodeFrame::try_from(first) else {
            panic!("the first frame names the node");
        };
        let (down, waiting) = mpsc::channel(16);
        let (up, heard) = mpsc::channel(1024);
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                let frame = NodeFrame::try_from(frame).expect("well formed");
                if up.send(frame).await.is_err() {
                    return;
                }
            }
        });
        // The subscription ends when the test drops its session.
        let alive = down.downgrade();
        tokio::spawn(async move {
            while let Some(down) = alive.upgrade() {
                // A node that went away hears nothing.
                let _ = down.send(Ok(MasterFrame::Alive.into())).await;
                drop(down);
                tokio::time::sleep(ALIVE_EVERY).await;
            }
        });
        let session = Session {
            open,
            down,
            heard,
            reports: 0,
        };
        // A test that ended wants no more of them.
        let _ = self.opened.send(session).await;
        Ok(Response::new(ReceiverStream::new(waiting)))
    }

    async fn fetch_config(
        &self,
        _: Request<wire::FetchConfigRequest>,
    ) -> Result<Response<wire::FetchConfigResponse>, Status> {
        let mut script = self.script.lock();
        let at = script.fetched.min(script.fetches.len().saturating_sub(1));
        script.fetched += 1;
        let answer = script.fetches.get(at).cloned();
        let config = answer.unwrap_or_else(|| Err(Status::unavailable("nothing to fetch")))?;
        Ok(Response::new(wire::FetchConfigResponse {
            config: Some((&config).into()),
        }))
    }
}

/// One node's subscription.
pub(crate) struct Session {
    pub(crate) open: NodeOpen,
    down: Down,
    heard: mpsc::Receiver<NodeFrame>,
    reports: u64,
}

impl Session {
    pub(crate) async fn send(&self, frame: wire::MasterFrame) {
        self.down.send(Ok(frame)).await.expect("the node listens");
    }

    /// Pushes, and waits for what became of it.
    pub(crate) async fn push(&mut self, delta: &Delta) -> PushOutcome {
        self.send(MasterFrame::Push(delta.clone()).into()).await;
        self.outcome().await
    }

    pub(crate) async fn push_raw(&mut self, delta: wire::Delta) -> PushOutcome {
        let frame = Some(wire::master_frame::Frame::Push(delta));
        self.send(wire::MasterFrame { frame }).await;
        self.outcome().await
    }

    pub(crate) async fn outcome(&mut self) -> PushOutcome {
        loop {
            match self.frame().await {
                NodeFrame::Outcome(outcome) => return outcome,
                NodeFrame::Report(report) => self.count(&report),
                NodeFrame::Open(_) => panic!("it opened twice"),
            }
        }
    }

    /// The next report; no push is answered before it.
    pub(crate) async fn report(&mut self) -> Report {
        let frame = self.frame().await;
        let NodeFrame::Report(report) = frame else {
            panic!("no push is to be answered: {frame:?}");
        };
        self.count(&report);
        report
    }

    /// The first report that is as wanted.
    pub(crate) async fn report_where(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        let mut last = None;
        let found = tokio::time::timeout(PATIENCE, async {
            loop {
                let report = self.report().await;
                if wanted(&report) {
                    return report;
                }
                last = Some(report);
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("no report is as wanted; the last one: {last:?}"))
    }

    pub(crate) async fn effective(&mut self, position: ConfigPosition) -> Report {
        self.report_where(|r| r.effective == position).await
    }

    /// Whether the node ended the subscription, or does within this time. What it still says is lost.
    pub(crate) async fn ends_within(&mut self, span: Duration) -> bool {
        let ended = async { while self.heard.recv().await.is_some() {} };
        tokio::time::timeout(span, ended).await.is_ok()
    }

    /// Reports are counted from the start of the incarnation, and only those that were left out are missing.
    fn count(&mut self, report: &Report) {
        assert!(
            report.no > self.reports,
            "{} after {}",
            report.no,
            self.reports
        );
        self.reports = report.no;
    }

    async fn frame(&mut self) -> NodeFrame {
        let frame = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        frame
            .expect("a frame in time")
            .expect("the node keeps the subscription")
    }
}
