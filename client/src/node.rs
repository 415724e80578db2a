//! A node as this client reaches it: its pipes, and a second connection for what is too big for them.

#![allow(
    clippy::disallowed_methods,
    reason = "runtime: starts the task of each connection"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use catena_proto::config::NodeInfo;
use catena_proto::ids::{ClusterId, NodeId};
use catena_proto::limits::UNARY_BYTES_MAX;
use catena_proto::wire::kv_client::KvClient;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::limits::{BULK_IN_FLIGHT_MAX, CONNECT_TRY, PROBE_EVERY, PROBE_TIMEOUT, READ_STRIDE};
use crate::pipe::{Dial, Pipe, keep_connected};
use crate::{Cause, Error, Options};

/// A task that ends with its owner.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    pub(crate) fn spawn(on: &Handle, work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(on.spawn(work))
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What every node's connections share.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) options: Options,
    pub(crate) cluster: ClusterId,
    pub(crate) runtime: Handle,
    pub(crate) changed: Arc<watch::Sender<u64>>,
    pub(crate) seeds: Seeds,
}

/// Different numbers from one random one: SplitMix64, for jitter.
#[derive(Debug)]
pub(crate) struct Seeds(std::sync::atomic::AtomicU64);

impl Seeds {
    pub(crate) const fn new(first: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(first))
    }

    pub(crate) fn next(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self
            .0
            .fetch_add(GOLDEN, Ordering::Relaxed)
            .wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) info: NodeInfo,
    lines: Vec<Line>,
    turn: AtomicU32,
    bulk: Channel,
    /// Unary calls under way; more wait in their callers.
    pub(crate) bulk_permits: Semaphore,
}

/// A pipe and the task that keeps it connected, from its first use on.
#[derive(Debug)]
struct Line {
    pipe: Arc<Pipe>,
    dial: Dial,
    task: Mutex<Option<Task>>,
}

impl Node {
    /// Nothing is dialled before it is needed.
    pub(crate) fn new(info: NodeInfo, ground: &Ground) -> Result<Self, Error> {
        let endpoint = endpoint(&info.addr)?;
        let line = |_| Line {
            pipe: Arc::new(Pipe::new(&ground.options)),
            dial: Dial {
                endpoint: endpoint.clone(),
                cluster: ground.cluster,
                changed: Arc::clone(&ground.changed),
                seed: ground.seeds.next(),
            },
            task: Mutex::new(None),
        };
        let lines = (0..ground.options.connections_per_node).map(line).collect();
        Ok(Self {
            info,
            lines,
            turn: AtomicU32::new(0),
            bulk: endpoint.connect_lazy(),
            bulk_permits: Semaphore::new(BULK_IN_FLIGHT_MAX),
        })
    }

    /// The node's name.
    pub(crate) const fn id(&self) -> NodeId {
        self.info.node
    }

    /// A pipe to it, connected or about to be.
    pub(crate) fn pipe(&self, runtime: &Handle) -> &Pipe {
        let line = match self.lines.len() {
            1 => &self.lines[0],
            len => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) / READ_STRIDE;
                &self.lines[turn as usize % len]
            }
        };
        if !line.pipe.is_started() {
            let mut task = line.task.lock();
            if task.is_none() {
                let work = keep_connected(Arc::clone(&line.pipe), line.dial.clone());
                *task = Some(Task::spawn(runtime, work));
                line.pipe.set_started();
            }
        }
        &line.pipe
    }

    /// Whether no connection to it works, as far as is known.
    pub(crate) fn is_down(&self) -> bool {
        self.lines.iter().all(|line| line.pipe.is_down())
    }

    /// Whether a connection to it is known to work.
    pub(crate) fn is_up(&self) -> bool {
        self.lines
            .iter()
            .any(|line| line.pipe.is_started() && !line.pipe.is_down())
    }

    /// Says that its connections are worth being made again.
    pub(crate) fn want(&self) {
        self.lines.iter().for_each(|line| line.pipe.want());
    }

    /// Every pipe, for looking through them.
    pub(crate) fn pipes(&self) -> impl Iterator<Item = &Pipe> {
        self.lines.iter().map(|line| &*line.pipe)
    }

    /// For unary calls.
    pub(crate) fn kv(&self) -> KvClient<Channel> {
        kv(self.bulk.clone())
    }

    /// The channel of unary calls.
    pub(crate) fn channel(&self) -> Channel {
        self.bulk.clone()
    }
}

/// A unary client with our limits.
pub(crate) fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel)
        .max_decoding_message_size(UNARY_BYTES_MAX)
        .max_encoding_message_size(UNARY_BYTES_MAX)
}

/// How to dial `host:port`.
pub(crate) fn endpoint(addr: &str) -> Result<Endpoint, Error> {
    let bare = addr.strip_prefix("http://").unwrap_or(addr);
    let named_port = bare.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && port.trim_end_matches('/').parse::<u16>().is_ok()
    });
    let endpoint = Endpoint::from_shared(format!("http://{bare}"))
        .ok()
        .filter(|_| named_port)
        .ok_or_else(|| Error::Failed(Cause::Invalid(format!("`{addr}` is not `host:port`"))))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TRY)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .http2_keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_TIMEOUT)
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(8 << 20))
}
