//! What a program may choose; every default has its reason.

use std::time::Duration;

use catena_proto::ids::ClusterId;
use catena_proto::limits;

/// Which members of a chain answer this client's reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Any member: every one answers linearizably (CRAQ, DESIGN §3.3), so the load is spread.
    ///
    /// A client turns from one member to the next only every so many reads, so
    /// that frames stay full. A member that is not ready is left alone for a while.
    #[default]
    Any,
    /// The tail: it never has to wait for a commit. Others are asked when it cannot answer.
    Tail,
}

/// Settings of a [`Client`](crate::Client).
#[derive(Clone, Debug)]
pub struct Options {
    /// How long an operation may take in all, tries and pauses included. Default 5 s.
    pub timeout: Duration,
    /// How long the first contact may take. Default 5 s.
    pub connect_timeout: Duration,
    /// Whether writes run under a session, so that a lost answer is asked for again and the
    /// write is still executed once. Without one a write is sent once at most, and a lost
    /// answer is [`Error::Unknown`](crate::Error::Unknown): for single commands. Default true.
    pub sessions: bool,
    /// Which members answer reads. Default [`ReadFrom::Any`].
    pub read_from: ReadFrom,
    /// Connections to each node. Default 1: frames are fuller the fewer there are.
    pub connections_per_node: usize,
    /// Requests that one connection holds at once, waiting or sent; one more is
    /// [`Cause::Overloaded`](crate::Cause::Overloaded) at once. Default 4096, at most 65536.
    pub in_flight_max: usize,
    /// Bytes of requests that wait for one connection to become free. Default 32 MiB.
    pub queue_bytes_max: usize,
    /// The cluster that the endpoints must belong to. Default: whichever answers first.
    pub cluster: Option<ClusterId>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            sessions: true,
            read_from: ReadFrom::Any,
            connections_per_node: 1,
            in_flight_max: 4096,
            queue_bytes_max: 32 << 20,
            cluster: None,
        }
    }
}

impl Options {
    /// Settings for a program that writes once and leaves (the CLI's commands).
    #[must_use]
    pub fn single_command() -> Self {
        Self {
            sessions: false,
            ..Self::default()
        }
    }

    /// The settings with every number brought into its bounds.
    pub(crate) fn bounded(mut self) -> Self {
        self.connections_per_node = self.connections_per_node.clamp(1, 64);
        self.in_flight_max = self.in_flight_max.clamp(1, 1 << 16);
        self.queue_bytes_max = self.queue_bytes_max.max(limits::PIPE_FRAME_BYTES_MAX);
        self
    }
}
