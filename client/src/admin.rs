//! What operators ask: a process about itself, and the masters for changes.
//!
//! A change is sent to a master once. One that is not the leader says so before
//! it looks at the change, so going on to the leader does nothing twice; when the
//! answer to a change is lost, its outcome is unknown and nobody asks again.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: bounds its waits, pauses between tries"
)]

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::limits::CONFIG_BYTES_MAX;
use catena_proto::wire::admin_client::AdminClient;
use catena_proto::{redirect, wire};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use crate::limits::{MASTER_TRY, PAUSE_MAX};
use crate::node::endpoint;
use crate::{Cause, Error};

/// Who answers at an address, and what it says about itself.
#[derive(Clone, Debug)]
pub enum Told {
    /// A storage node.
    Node(Box<wire::NodeStatusResponse>),
    /// A master.
    Master(Box<wire::MasterStatusResponse>),
}

/// Asks whoever listens at `addr` (`host:port`), node or master, about itself.
///
/// # Errors
/// [`Cause::Unreachable`] when nothing of ours answers there within `timeout`.
pub async fn status_at(addr: &str, timeout: Duration) -> Result<Told, Error> {
    let mut admin = admin(endpoint(addr)?.connect_lazy());
    let asked = async {
        match admin.node_status(wire::NodeStatusRequest::default()).await {
            Ok(answer) => Ok(Told::Node(Box::new(answer.into_inner()))),
            // A master says so; whatever else does not know the question will not know the next one either.
            Err(status) if status.code() == Code::Unimplemented => {
                let answer = admin
                    .master_status(wire::MasterStatusRequest::default())
                    .await;
                answer.map(|answer| Told::Master(Box::new(answer.into_inner())))
            }
            Err(status) => Err(status),
        }
    };
    match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(status)) => Err(unreachable_at(addr, &words(&status))),
        Err(_) => Err(unreachable_at(
            addr,
            &format!("no answer within {timeout:?}"),
        )),
    }
}

/// The masters of a cluster, as far as somebody knows their addresses.
#[derive(Clone, Debug)]
pub struct Masters {
    /// `host:port` each; where the leader is thought to be comes first.
    addrs: Vec<String>,
    cluster: Bytes,
}

/// What the control plane saw and did, as the leader tells it.
#[derive(Debug)]
pub struct Events {
    stream: Streaming<wire::ControlEvent>,
    addr: String,
}

impl Events {
    /// The next event; `None` after the last one that was asked for.
    ///
    /// # Errors
    /// The stream broke: ask again, after the number of the last event.
    pub async fn next(&mut self) -> Result<Option<wire::ControlEvent>, Error> {
        let next = self.stream.message().await;
        next.map_err(|status| unreachable_at(&self.addr, &words(&status)))
    }
}

/// How one master took a question.
enum Taken<T> {
    Answered(T),
    /// It did not look at it; it may know who will.
    Elsewhere(Option<String>, String),
    Ended(Error),
}

impl Masters {
    /// The masters at `addrs`, in the order in which they are to be asked, of one cluster.
    #[must_use]
    pub fn new(addrs: Vec<String>, cluster: catena_proto::ids::ClusterId) -> Self {
        Self {
            addrs,
            cluster: Bytes::copy_from_slice(&cluster.to_bytes()),
        }
    }

    /// Changes a chain, or with `dry_run` asks what would change.
    ///
    /// # Errors
    /// [`Cause::Refused`] when a rule or the state forbids it, [`Cause::NoSuch`] when there is no such chain or node,
    /// [`Cause::NoLeader`] when no leader answers; [`Error::Unknown`] when the answer to a change is lost.
    pub async fn change_chain(
        &self,
        request: wire::ChangeChainRequest,
        timeout: Duration,
    ) -> Result<wire::ChangeChainResponse, Error> {
        let request = wire::ChangeChainRequest {
            cluster_id: self.cluster.clone(),
            ..request
        };
        let changes = !request.dry_run;
        self.of_leader(timeout, changes, async |mut admin| {
            admin.change_chain(request.clone()).await
        })
        .await
        .map(|(answer, _)| answer.into_inner())
    }

    /// Switches an automatic loop off and on.
    ///
    /// # Errors
    /// As [`Masters::change_chain`].
    pub async fn switch_controller(
        &self,
        name: &str,
        paused: bool,
        timeout: Duration,
    ) -> Result<(), Error> {
        let request = wire::SwitchControllerRequest {
            cluster_id: self.cluster.clone(),
            name: name.to_owned(),
            paused,
        };
        // Switching twice is switching once: its loss need not be unknown, it may be asked again.
        self.of_leader(timeout, false, async |mut admin| {
            admin.switch_controller(request.clone()).await
        })
        .await
        .map(|_| ())
    }

    /// What the control loop saw and did after event `after_no`, the newest `limit` of it (0: all that is kept);
    /// with `follow`, also what is to come.
    ///
    /// # Errors
    /// [`Cause::NoLeader`] when no leader answers in `timeout`.
    pub async fn events(
        &self,
        follow: bool,
        after_no: u64,
        limit: u32,
        timeout: Duration,
    ) -> Result<Events, Error> {
        let request = wire::EventsRequest {
            cluster_id: self.cluster.clone(),
            follow,
            after_no,
            limit,
        };
        let asked = self.of_leader(timeout, false, async |mut admin| {
            admin.events(request.clone()).await
        });
        let (answer, addr) = asked.await?;
        Ok(Events {
            stream: answer.into_inner(),
            addr,
        })
    }

    /// Asks one master after the other, and whom they name, until one takes it as leader or the time is up.
    async fn of_leader<T>(
        &self,
        timeout: Duration,
        changes: bool,
        ask: impl AsyncFn(AdminClient<Channel>) -> Result<T, Status>,
    ) -> Result<(T, String), Error> {
        let deadline = Instant::now() + timeout;
        if self.addrs.is_empty() {
            let why = "nobody who answers names one; a cluster without masters changes nothing";
            return Err(Error::Failed(Cause::NoLeader(why.into())));
        }
        let mut last = String::from("no master was asked");
        loop {
            let mut next: VecDeque<String> = self.addrs.iter().cloned().collect();
            // A hint that leads in a circle ends with the round: each master is asked once for itself, and once by hint.
            let mut hints = self.addrs.len();
            while let Some(addr) = next.pop_front() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(Error::Failed(Cause::TimedOut {
                        after: timeout,
                        last: Some(last),
                    }));
                }
                match one(&addr, left, changes, &ask).await {
                    Taken::Answered(answer) => return Ok((answer, addr)),
                    Taken::Ended(error) => return Err(error),
                    Taken::Elsewhere(hint, words) => {
                        last = format!("{addr}: {words}");
                        if let Some(hint) = hint.filter(|hint| *hint != addr && hints > 0) {
                            hints -= 1;
                            next.retain(|other| *other != hint);
                            next.push_front(hint);
                        }
                    }
                }
            }
            // An election takes a moment; then there is a leader to ask.
            if Instant::now() + PAUSE_MAX >= deadline {
                return Err(Error::Failed(Cause::NoLeader(format!(
                    "none answers as leader ({last})"
                ))));
            }
            tokio::time::sleep(PAUSE_MAX).await;
        }
    }
}

async fn one<T>(
    addr: &str,
    left: Duration,
    changes: bool,
    ask: &impl AsyncFn(AdminClient<Channel>) -> Result<T, Status>,
) -> Taken<T> {
    let endpoint = match endpoint(addr) {
        Ok(endpoint) => endpoint,
        Err(error) => return Taken::Elsewhere(None, error.to_string()),
    };
    // Before the question: a master that cannot be reached has certainly not seen it.
    let connected = tokio::time::timeout(left.min(MASTER_TRY), endpoint.connect()).await;
    let channel = match connected {
        Ok(Ok(channel)) => channel,
        Ok(Err(why)) => return Taken::Elsewhere(None, crate::pipe::root(&why)),
        Err(_) => return Taken::Elsewhere(None, "it does not answer".to_owned()),
    };
    // A read goes on to the next master when this one is silent; a change is this one's until the end.
    let patience = if changes { left } else { left.min(MASTER_TRY) };
    let status = match tokio::time::timeout(patience, ask(admin(channel))).await {
        Ok(Ok(answer)) => return Taken::Answered(answer),
        Ok(Err(status)) => status,
        Err(_) => Status::deadline_exceeded(format!("no answer within {patience:?}")),
    };
    if let Some(hint) = redirect::leader_of(&status) {
        return Taken::Elsewhere(hint, status.message().to_owned());
    }
    let message = status.message().to_owned();
    match redirect::reason_of(&status).as_deref() {
        Some(redirect::CHANGE_REFUSED) => {
            return Taken::Ended(Error::Failed(Cause::Refused(message)));
        }
        Some(redirect::NO_SUCH) => return Taken::Ended(Error::Failed(Cause::NoSuch(message))),
        _ => {}
    }
    match status.code() {
        // It was never looked at: a node, or a master of another age.
        Code::Unimplemented => Taken::Elsewhere(None, words(&status)),
        Code::InvalidArgument => Taken::Ended(Error::Failed(Cause::Invalid(message))),
        Code::NotFound => Taken::Ended(Error::Failed(Cause::NoSuch(message))),
        Code::FailedPrecondition => Taken::Ended(Error::Failed(Cause::Refused(message))),
        _ if changes => Taken::Ended(Error::Unknown(Cause::Interrupted(format!(
            "{addr}: {}",
            words(&status)
        )))),
        _ => Taken::Elsewhere(None, words(&status)),
    }
}

fn admin(channel: Channel) -> AdminClient<Channel> {
    AdminClient::new(channel).max_decoding_message_size(CONFIG_BYTES_MAX)
}

/// What went wrong, without the layers that only say "transport error".
fn words(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => crate::pipe::root(source),
        None => status.message().to_owned(),
    }
}

fn unreachable_at(addr: &str, words: &str) -> Error {
    Error::Failed(Cause::Unreachable(format!("{addr}: {words}")))
}
