//! `kv.proto`, the unary calls: requests, answers, pages.

use bytes::Bytes;

use super::{ParseError, bounded, counted, each, id_bytes, key, value};
use crate::call::{
    CloseSessionCall, Freshness, GetAnswer, GetCall, Header, OpenSessionCall, RoutesCall,
    RoutesPage, ScanCall, ScanPage, ScanRow, StaleBound, WriteAnswer, WriteCall,
};
use crate::config::KeyRange;
use crate::ids::{ClusterId, RequestNo, Seq, SessionId, ShardId, SlotNo};
use crate::op::{Expect, Outcome, RequestId, Row, WriteOp};
use crate::{limits, wire};

impl From<Header> for wire::RequestHeader {
    fn from(header: Header) -> Self {
        Self {
            cluster_id: header
                .cluster
                .map_or_else(Bytes::new, |cluster| id_bytes(cluster.to_bytes())),
            hops: header.forwarded.into(),
        }
    }
}

/// Reads the cluster id of a request; absent is allowed from clients.
///
/// # Errors
/// Bytes that are no cluster id.
pub fn cluster_id(bytes: &[u8]) -> Result<Option<ClusterId>, ParseError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(ClusterId::from_slice(bytes)?))
}

fn header(from: Option<wire::RequestHeader>) -> Result<Header, ParseError> {
    let Some(from) = from else {
        return Ok(Header::default());
    };
    if from.hops > 1 {
        return Err(ParseError::Invalid {
            field: "hops",
            why: format!("{} hops; a request is forwarded once at most", from.hops),
        });
    }
    Ok(Header {
        cluster: cluster_id(&from.cluster_id)?,
        forwarded: from.hops == 1,
    })
}

impl From<RequestId> for wire::SessionRef {
    fn from(request: RequestId) -> Self {
        Self {
            session_id: request.session.get(),
            slot: request.slot.get().into(),
            request_no: request.no.get(),
        }
    }
}

impl TryFrom<wire::SessionRef> for RequestId {
    type Error = ParseError;

    fn try_from(from: wire::SessionRef) -> Result<Self, ParseError> {
        let slot = u16::try_from(from.slot)
            .ok()
            .filter(|slot| *slot < limits::SESSION_SLOTS_MAX)
            .ok_or_else(|| ParseError::Invalid {
                field: "slot",
                why: format!("{} is outside 0..{}", from.slot, limits::SESSION_SLOTS_MAX),
            })?;
        if from.session_id == 0 || from.request_no == 0 {
            return Err(ParseError::Missing("session_id or request_no"));
        }
        Ok(Self {
            session: SessionId::new(from.session_id),
            slot: SlotNo::new(slot),
            no: RequestNo::new(from.request_no),
        })
    }
}

pub(super) fn request(from: Option<wire::SessionRef>) -> Result<Option<RequestId>, ParseError> {
    from.map(RequestId::try_from).transpose()
}

impl From<StaleBound> for wire::Stale {
    fn from(stale: StaleBound) -> Self {
        Self {
            lag_ms_max: stale.lag_ms_max.unwrap_or(0),
        }
    }
}

impl From<wire::Stale> for StaleBound {
    fn from(from: wire::Stale) -> Self {
        Self {
            lag_ms_max: (from.lag_ms_max > 0).then_some(from.lag_ms_max),
        }
    }
}

impl From<GetCall> for wire::GetRequest {
    fn from(call: GetCall) -> Self {
        Self {
            header: Some(call.header.into()),
            key: call.key,
            stale: call.stale.map(wire::Stale::from),
        }
    }
}

impl TryFrom<wire::GetRequest> for GetCall {
    type Error = ParseError;

    fn try_from(from: wire::GetRequest) -> Result<Self, ParseError> {
        Ok(Self {
            header: header(from.header)?,
            key: key(from.key)?,
            stale: from.stale.map(StaleBound::from),
        })
    }
}

impl From<GetAnswer> for wire::GetResponse {
    fn from(answer: GetAnswer) -> Self {
        let found = answer.row.is_some();
        let (value, version) = answer
            .row
            .map_or((Bytes::new(), Seq::ZERO), |row| (row.value, row.version));
        Self {
            found,
            value,
            version: version.get(),
            shard_id: answer.shard.get(),
            applied_seq: answer.freshness.applied.get(),
            lag_ms: answer.freshness.lag_ms,
        }
    }
}

impl TryFrom<wire::GetResponse> for GetAnswer {
    type Error = ParseError;

    fn try_from(from: wire::GetResponse) -> Result<Self, ParseError> {
        let row = Row {
            value: value("value", from.value)?,
            version: Seq::new(from.version),
        };
        Ok(Self {
            shard: ShardId::new(from.shard_id),
            row: from.found.then_some(row),
            freshness: Freshness {
                applied: Seq::new(from.applied_seq),
                lag_ms: from.lag_ms,
            },
        })
    }
}

/// A change of one key, as the request of the call it travels by.
#[derive(Clone, Debug, PartialEq)]
pub enum UnaryWrite {
    /// For `Kv.Put`.
    Put(wire::PutRequest),
    /// For `Kv.Delete`.
    Delete(wire::DeleteRequest),
    /// For `Kv.CompareAndSwap`.
    CompareAndSwap(wire::CompareAndSwapRequest),
    /// For `Kv.Increment`.
    Increment(wire::IncrementRequest),
    /// For `Kv.Append`.
    Append(wire::AppendRequest),
}

impl From<WriteCall> for UnaryWrite {
    fn from(call: WriteCall) -> Self {
        use wire::compare_and_swap_request::Expect as Wire;
        let header = Some(call.header.into());
        let session = call.request.map(wire::SessionRef::from);
        let key = call.key;
        match call.op {
            WriteOp::Put { value } => Self::Put(wire::PutRequest {
                header,
                session,
                key,
                value,
            }),
            WriteOp::Delete => Self::Delete(wire::DeleteRequest {
                header,
                session,
                key,
            }),
            WriteOp::Cas { expect, value } => Self::CompareAndSwap(wire::CompareAndSwapRequest {
                header,
                session,
                key,
                value,
                expect: Some(match expect {
                    Expect::Version(version) => Wire::Version(version.get()),
                    Expect::Value(old) => Wire::OldValue(old),
                    Expect::Absent => Wire::Absent(true),
                }),
            }),
            WriteOp::Incr { by } => Self::Increment(wire::IncrementRequest {
                header,
                session,
                key,
                by,
            }),
            WriteOp::Append { suffix } => Self::Append(wire::AppendRequest {
                header,
                session,
                key,
                suffix,
            }),
        }
    }
}

fn write_call(
    header_part: Option<wire::RequestHeader>,
    session: Option<wire::SessionRef>,
    key_part: Bytes,
    op: WriteOp,
) -> Result<WriteCall, ParseError> {
    Ok(WriteCall {
        header: header(header_part)?,
        request: request(session)?,
        key: key(key_part)?,
        op,
    })
}

impl TryFrom<wire::PutRequest> for WriteCall {
    type Error = ParseError;

    fn try_from(from: wire::PutRequest) -> Result<Self, ParseError> {
        let value = value("value", from.value)?;
        write_call(from.header, from.session, from.key, WriteOp::Put { value })
    }
}

impl TryFrom<wire::DeleteRequest> for WriteCall {
    type Error = ParseError;

    fn try_from(from: wire::DeleteRequest) -> Result<Self, ParseError> {
        write_call(from.header, from.session, from.key, WriteOp::Delete)
    }
}

impl TryFrom<wire::CompareAndSwapRequest> for WriteCall {
    type Error = ParseError;

    fn try_from(from: wire::CompareAndSwapRequest) -> Result<Self, ParseError> {
        use wire::compare_and_swap_request::Expect as Wire;
        let op = WriteOp::Cas {
            expect: match from.expect {
                Some(Wire::Version(version)) => Expect::Version(Seq::new(version)),
                Some(Wire::OldValue(old)) => Expect::Value(value("old_value", old)?),
                Some(Wire::Absent(true)) => Expect::Absent,
                Some(Wire::Absent(false)) | None => return Err(ParseError::Missing("expect")),
            },
            value: value("value", from.value)?,
        };
        write_call(from.header, from.session, from.key, op)
    }
}

impl TryFrom<wire::IncrementRequest> for WriteCall {
    type Error = ParseError;

    fn try_from(from: wire::IncrementRequest) -> Result<Self, ParseError> {
        let op = WriteOp::Incr { by: from.by };
        write_call(from.header, from.session, from.key, op)
    }
}

impl TryFrom<wire::AppendRequest> for WriteCall {
    type Error = ParseError;

    fn try_from(from: wire::AppendRequest) -> Result<Self, ParseError> {
        let suffix = value("suffix", from.suffix)?;
        write_call(
            from.header,
            from.session,
            from.key,
            WriteOp::Append { suffix },
        )
    }
}

impl From<Outcome> for wire::Outcome {
    fn from(outcome: Outcome) -> Self {
        use wire::OutcomeKind as Kind;
        let (kind, version, number) = match outcome {
            Outcome::Written { version } => (Kind::Written, version.get(), 0),
            Outcome::Deleted { version, existed } => {
                let kind = if existed {
                    Kind::Deleted
                } else {
                    Kind::NotFound
                };
                (kind, version.get(), 0)
            }
            Outcome::CasFailed { actual } => {
                (Kind::CasFailed, actual.unwrap_or(Seq::ZERO).get(), 0)
            }
            Outcome::Incremented { version, value } => (Kind::Incremented, version.get(), value),
            Outcome::NotANumber => (Kind::NotANumber, 0, 0),
            Outcome::Overflow => (Kind::Overflow, 0, 0),
            Outcome::ValueTooLarge => (Kind::ValueTooLarge, 0, 0),
            Outcome::SessionOpened { session } => (Kind::SessionOpened, session.get(), 0),
            Outcome::SessionClosed => (Kind::SessionClosed, 0, 0),
        };
        Self {
            kind: kind.into(),
            version,
            number,
        }
    }
}

impl TryFrom<wire::Outcome> for Outcome {
    type Error = ParseError;

    fn try_from(from: wire::Outcome) -> Result<Self, ParseError> {
        use wire::OutcomeKind as Kind;
        let version = Seq::new(from.version);
        Ok(match Kind::try_from(from.kind) {
            Ok(Kind::Written) => Self::Written { version },
            Ok(kind @ (Kind::Deleted | Kind::NotFound)) => Self::Deleted {
                version,
                existed: kind == Kind::Deleted,
            },
            Ok(Kind::CasFailed) => Self::CasFailed {
                actual: (version != Seq::ZERO).then_some(version),
            },
            Ok(Kind::Incremented) => Self::Incremented {
                version,
                value: from.number,
            },
            Ok(Kind::NotANumber) => Self::NotANumber,
            Ok(Kind::Overflow) => Self::Overflow,
            Ok(Kind::ValueTooLarge) => Self::ValueTooLarge,
            Ok(Kind::SessionOpened) => Self::SessionOpened {
                session: SessionId::new(from.version),
            },
            Ok(Kind::SessionClosed) => Self::SessionClosed,
            Ok(Kind::Unspecified) | Err(_) => return Err(ParseError::Missing("outcome.kind")),
        })
    }
}

impl From<WriteAnswer> for wire::WriteResponse {
    fn from(answer: WriteAnswer) -> Self {
        Self {
            shard_id: answer.shard.get(),
            outcome: Some(answer.outcome.into()),
        }
    }
}

impl TryFrom<wire::WriteResponse> for WriteAnswer {
    type Error = ParseError;

    fn try_from(from: wire::WriteResponse) -> Result<Self, ParseError> {
        Ok(Self {
            shard: ShardId::new(from.shard_id),
            outcome: from
                .outcome
                .ok_or(ParseError::Missing("outcome"))?
                .try_into()?,
        })
    }
}

impl From<ScanCall> for wire::ScanRequest {
    fn from(call: ScanCall) -> Self {
        Self {
            header: Some(call.header.into()),
            start_key: call.range.start,
            end_key: call.range.end,
            limit: call.limit.unwrap_or(0),
            reverse: call.reverse,
            stale: call.stale.map(wire::Stale::from),
        }
    }
}

impl TryFrom<wire::ScanRequest> for ScanCall {
    type Error = ParseError;

    fn try_from(from: wire::ScanRequest) -> Result<Self, ParseError> {
        Ok(Self {
            header: header(from.header)?,
            range: KeyRange {
                start: bound("start_key", from.start_key)?,
                end: from.end_key.map(|end| bound("end_key", end)).transpose()?,
            },
            limit: (from.limit > 0).then_some(from.limit),
            reverse: from.reverse,
            stale: from.stale.map(StaleBound::from),
        })
    }
}

/// A bound of a range may be one byte longer than a key: "just after this key".
fn bound(field: &'static str, key: Bytes) -> Result<Bytes, ParseError> {
    bounded(field, key, limits::KEY_BYTES_MAX + 1)
}

impl From<ScanPage> for wire::ScanResponse {
    fn from(page: ScanPage) -> Self {
        Self {
            rows: page
                .rows
                .into_iter()
                .map(|row| wire::ScanRow {
                    key: row.key,
                    value: row.row.value,
                    version: row.row.version.get(),
                })
                .collect(),
            shard_id: page.shard.get(),
        }
    }
}

impl TryFrom<wire::ScanResponse> for ScanPage {
    type Error = ParseError;

    fn try_from(from: wire::ScanResponse) -> Result<Self, ParseError> {
        let rows = counted("rows", from.rows, limits::SCAN_PAGE_ROWS_MAX)?
            .into_iter()
            .map(|row| {
                Ok(ScanRow {
                    key: key(row.key)?,
                    row: Row {
                        value: value("value", row.value)?,
                        version: Seq::new(row.version),
                    },
                })
            })
            .collect::<Result<_, ParseError>>()?;
        Ok(Self {
            shard: ShardId::new(from.shard_id),
            rows,
        })
    }
}

impl From<OpenSessionCall> for wire::OpenSessionRequest {
    fn from(call: OpenSessionCall) -> Self {
        Self {
            header: Some(call.header.into()),
            shard_id: call.shard.get(),
        }
    }
}

impl TryFrom<wire::OpenSessionRequest> for OpenSessionCall {
    type Error = ParseError;

    fn try_from(from: wire::OpenSessionRequest) -> Result<Self, ParseError> {
        Ok(Self {
            header: header(from.header)?,
            shard: ShardId::new(from.shard_id),
        })
    }
}

impl From<CloseSessionCall> for wire::CloseSessionRequest {
    fn from(call: CloseSessionCall) -> Self {
        Self {
            header: Some(call.header.into()),
            shard_id: call.shard.get(),
            session_id: call.session.get(),
        }
    }
}

impl TryFrom<wire::CloseSessionRequest> for CloseSessionCall {
    type Error = ParseError;

    fn try_from(from: wire::CloseSessionRequest) -> Result<Self, ParseError> {
        Ok(Self {
            header: header(from.header)?,
            shard: ShardId::new(from.shard_id),
            session: SessionId::new(from.session_id),
        })
    }
}

impl From<RoutesCall> for wire::RoutesRequest {
    fn from(call: RoutesCall) -> Self {
        Self {
            header: Some(call.header.into()),
            start_key: call.start,
            chains_max: call
                .chains_max
                .map_or(0, |max| u32::try_from(max).unwrap_or(u32::MAX)),
        }
    }
}

impl TryFrom<wire::RoutesRequest> for RoutesCall {
    type Error = ParseError;

    fn try_from(from: wire::RoutesRequest) -> Result<Self, ParseError> {
        Ok(Self {
            header: header(from.header)?,
            start: bound("start_key", from.start_key)?,
            chains_max: (from.chains_max > 0)
                .then(|| usize::try_from(from.chains_max).unwrap_or(usize::MAX)),
        })
    }
}

impl From<&RoutesPage> for wire::RoutesResponse {
    fn from(page: &RoutesPage) -> Self {
        Self {
            cluster_id: id_bytes(page.cluster.to_bytes()),
            chains: page.chains.iter().map(wire::ChainConfig::from).collect(),
            nodes: page.nodes.iter().map(wire::NodeInfo::from).collect(),
            next_key: page.next.clone(),
        }
    }
}

impl TryFrom<wire::RoutesResponse> for RoutesPage {
    type Error = ParseError;

    fn try_from(from: wire::RoutesResponse) -> Result<Self, ParseError> {
        let nodes_max = limits::ROUTES_PAGE_CHAINS_MAX * limits::CHAIN_MEMBERS_MAX;
        Ok(Self {
            cluster: ClusterId::from_slice(&from.cluster_id)?,
            chains: each(counted(
                "chains",
                from.chains,
                limits::ROUTES_PAGE_CHAINS_MAX,
            )?)?,
            nodes: each(counted("nodes", from.nodes, nodes_max)?)?,
            next: from
                .next_key
                .map(|next| bound("next_key", next))
                .transpose()?,
        })
    }
}
