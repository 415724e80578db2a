//! Why a request was refused, with a stable reason, and how that travels.
//!
//! A unary answer carries it as gRPC status plus `google.rpc` details
//! (`ErrorInfo`, `RetryInfo`), and a wrong-chain answer also as a `PipeError` with the
//! chain and nodes that the sender lacks. On a pipe it is a `PipeError` alone.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use tonic::{Code, Status};
use tonic_types::{ErrorDetail, ErrorInfo, RetryInfo, StatusExt};

use crate::config::{ChainConfig, NodeInfo};
use crate::conversion::ParseError;
use crate::{limits, wire};

/// The `domain` of our `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "catena.v1";
const ROUTE_TYPE_URL: &str = "type.googleapis.com/catena.v1.PipeError";
const INDEFINITE: &str = "indefinite";
/// A hint beyond this is cut: nobody should be told to stay away for longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $code:ident;)*) => {
        /// Why a request was refused; the names are a public contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The `reason` of the `ErrorInfo`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The gRPC status code that clients without our details act upon.
            #[must_use]
            pub const fn code(self) -> Code {
                match self { $(Self::$name => Code::$code,)* }
            }

            /// The reason with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$name),)* _ => None }
            }

            const fn to_wire(self) -> wire::Reason {
                match self { $(Self::$name => wire::Reason::$name,)* }
            }

            fn from_wire(raw: i32) -> Option<Self> {
                match wire::Reason::try_from(raw) {
                    Ok(wire::Reason::Unspecified) | Err(_) => None,
                    $(Ok(wire::Reason::$name) => Some(Self::$name),)*
                }
            }
        }
    };
}

reasons! {
    /// This node does not hold the key in that role; the refusal says who does. Re-route.
    WrongChain, "WRONG_CHAIN", Unavailable;
    /// No lease, a barrier, a debt, or a blocked chain. Retry.
    NotReady, "NOT_READY", Unavailable;
    /// Refused early. Retry after the hint.
    Overloaded, "OVERLOADED", ResourceExhausted;
    /// Never executed under this session. Open a new one.
    UnknownSession, "UNKNOWN_SESSION", FailedPrecondition;
    /// The slot has seen a later request.
    Superseded, "SUPERSEDED", Aborted;
    /// The shard holds as many sessions as it may. Retry later.
    SessionsExhausted, "SESSIONS_EXHAUSTED", ResourceExhausted;
    /// The request breaks a limit or makes no sense. Give up.
    Invalid, "INVALID", InvalidArgument;
    /// It expired before any work was done.
    Deadline, "DEADLINE", DeadlineExceeded;
    /// It may or may not have been executed.
    Interrupted, "INTERRUPTED", Unknown;
    /// The request names another cluster. Give up.
    ForeignCluster, "FOREIGN_CLUSTER", FailedPrecondition;
    /// The disk is full, or the engine refuses. Retry later.
    ReadOnly, "READ_ONLY", ResourceExhausted;
    /// A stale read could not keep its bound. Ask another member.
    TooStale, "TOO_STALE", Unavailable;
    /// A fault of the node's own. Give up.
    Internal, "INTERNAL", Internal;
    /// The answer exceeds a frame of the pipe. Ask by `Kv`.
    UseUnary, "USE_UNARY", OutOfRange;
}

/// There is no answer to a request, and this is why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind.
    pub reason: Reason,
    /// One sentence for people: what went wrong, with what, and the mend.
    pub message: String,
    /// When to come again; in whole milliseconds.
    pub retry_after: Option<Duration>,
    /// True: a write may have taken effect, or may do so yet. False: nothing was done and nothing will be.
    pub indefinite: bool,
    /// The chain config that the sender lacks (rule C3).
    pub chain: Option<Box<ChainConfig>>,
    /// How to reach the chain's members.
    pub nodes: Vec<NodeInfo>,
}

impl Refusal {
    /// A definite refusal: nothing was done and nothing will be. ([`Reason::Interrupted`] is never definite.)
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: cut(message.into()),
            retry_after: None,
            indefinite: matches!(reason, Reason::Interrupted),
            chain: None,
            nodes: Vec::new(),
        }
    }

    /// The write was in hand and its fate is not known.
    #[must_use]
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self::new(Reason::Interrupted, message)
    }

    /// With a hint when to come again, at most a minute.
    #[must_use]
    pub fn retry_after(mut self, pause: Duration) -> Self {
        let ms = pause.min(RETRY_AFTER_MAX).as_millis();
        self.retry_after = u64::try_from(ms)
            .ok()
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis);
        self
    }

    /// With the chain that the sender should have asked.
    #[must_use]
    pub fn route(mut self, chain: ChainConfig, mut nodes: Vec<NodeInfo>) -> Self {
        nodes.truncate(limits::CHAIN_MEMBERS_MAX);
        self.chain = Some(Box::new(chain));
        self.nodes = nodes;
        self
    }

    /// The refusal as a gRPC status with details.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let mut metadata = HashMap::default();
        metadata.insert(INDEFINITE.to_owned(), self.indefinite.to_string());
        let mut details = vec![ErrorDetail::ErrorInfo(ErrorInfo::new(
            self.reason.as_str(),
            ERROR_DOMAIN,
            metadata,
        ))];
        if let Some(pause) = self.retry_after {
            details.push(RetryInfo::new(Some(pause)).into());
        }
        let code = self.reason.code();
        let status = Status::with_error_details_vec(code, self.message.clone(), details);
        match &self.chain {
            Some(chain) => self.with_route(status, chain),
            None => status,
        }
    }

    /// Adds the route, as far as it fits into headers; a client can ask for what is left out.
    fn with_route(&self, status: Status, chain: &ChainConfig) -> Status {
        let nodes = self.nodes.iter().map(wire::NodeInfo::from).collect();
        for nodes in [nodes, Vec::new()] {
            let route = wire::PipeError {
                reason: self.reason.to_wire().into(),
                chain: Some(chain.into()),
                nodes,
                ..wire::PipeError::default()
            };
            let Ok(mut details) = tonic_types::Status::decode(status.details()) else {
                return status;
            };
            details.details.push(prost_types::Any {
                type_url: ROUTE_TYPE_URL.to_owned(),
                value: route.encode_to_vec(),
            });
            if details.encoded_len() <= limits::STATUS_DETAILS_BYTES_MAX {
                return Status::with_details(
                    status.code(),
                    status.message(),
                    details.encode_to_vec().into(),
                );
            }
        }
        status
    }

    /// Reads a gRPC status, whoever made it.
    ///
    /// One without our details comes from a proxy, the transport or a foreign server.
    /// Only codes that say "never looked at" make it definite.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let message = status.message().to_owned();
        let info = status
            .get_details_error_info()
            .filter(|info| info.domain == ERROR_DOMAIN);
        let Some(info) = info else {
            return Self::from_bare_code(status.code(), message);
        };
        let Some(reason) = Reason::from_name(&info.reason) else {
            // A newer node's reason: its code and its word on definiteness still count.
            let mut refusal = Self::from_bare_code(status.code(), message);
            refusal.indefinite = info.metadata.get(INDEFINITE).is_none_or(|v| v != "false");
            return refusal;
        };
        let mut refusal = Self::new(reason, message);
        refusal.indefinite |= info.metadata.get(INDEFINITE).is_none_or(|v| v != "false");
        let pause = status
            .get_details_retry_info()
            .and_then(|info| info.retry_delay);
        if let Some(pause) = pause {
            refusal = refusal.retry_after(pause);
        }
        let route = tonic_types::Status::decode(status.details())
            .ok()
            .and_then(|details| {
                let any = details
                    .details
                    .into_iter()
                    .find(|any| any.type_url == ROUTE_TYPE_URL)?;
                wire::PipeError::decode(&any.value[..]).ok()
            });
        if let Some(route) = route {
            refusal = refusal.with_parsed_route(route.chain, route.nodes);
        }
        refusal
    }

    fn from_bare_code(code: Code, message: String) -> Self {
        let reason = match code {
            Code::InvalidArgument | Code::OutOfRange => Reason::Invalid,
            Code::ResourceExhausted => Reason::Overloaded,
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
                Reason::Internal
            }
            _ => Reason::Interrupted,
        };
        Self {
            // A proxy may be overloaded on the way back.
            indefinite: matches!(reason, Reason::Interrupted | Reason::Overloaded),
            ..Self::new(reason, format!("{message} (gRPC {code:?})"))
        }
    }

    /// A route that cannot be read is left out: the refusal holds without it.
    fn with_parsed_route(
        mut self,
        chain: Option<wire::ChainConfig>,
        nodes: Vec<wire::NodeInfo>,
    ) -> Self {
        if let Some(Ok(chain)) = chain.map(ChainConfig::try_from) {
            let nodes = nodes
                .into_iter()
                .take(limits::CHAIN_MEMBERS_MAX)
                .filter_map(|info| NodeInfo::try_from(info).ok())
                .collect();
            self = self.route(chain, nodes);
        }
        self
    }
}

impl From<&Refusal> for wire::PipeError {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason.to_wire().into(),
            message: refusal.message.clone(),
            retry_after_ms: refusal
                .retry_after
                .map_or(0, |p| u32::try_from(p.as_millis()).unwrap_or(u32::MAX)),
            indefinite: refusal.indefinite,
            chain: refusal.chain.as_deref().map(wire::ChainConfig::from),
            nodes: refusal.nodes.iter().map(wire::NodeInfo::from).collect(),
        }
    }
}

impl From<wire::PipeError> for Refusal {
    /// An unknown reason (of a newer node) counts as internal, and as indefinite unless it says otherwise.
    fn from(from: wire::PipeError) -> Self {
        let reason = Reason::from_wire(from.reason).unwrap_or(Reason::Internal);
        let mut refusal = Self::new(reason, from.message);
        refusal.indefinite |= from.indefinite;
        if from.retry_after_ms > 0 {
            refusal = refusal.retry_after(Duration::from_millis(from.retry_after_ms.into()));
        }
        refusal.with_parsed_route(from.chain, from.nodes)
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Self::new(Reason::Invalid, error.to_string())
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.to_status()
    }
}

/// Cuts a message at its limit, between two characters.
fn cut(mut message: String) -> String {
    if message.len() > limits::REFUSAL_MESSAGE_BYTES_MAX {
        let mut end = limits::REFUSAL_MESSAGE_BYTES_MAX;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    message
}
