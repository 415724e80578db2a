//! The unary `Kv` service: for any language, one address is enough.
//!
//! What this node does not hold, or is not in charge of, it forwards one hop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use catena_proto::call::{
    CloseSessionCall, Freshness, GetAnswer, GetCall, OpenSessionCall, RoutesCall, RoutesPage,
    ScanCall, ScanPage, ScanRow, WriteAnswer, WriteCall,
};
use catena_proto::config::{ChainConfig, KeyRange};
use catena_proto::conversion::ParseError;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::{ClusterId, ShardId};
use catena_proto::op::{Command, Outcome, RequestId};
use catena_proto::time::Mono;
use catena_proto::{limits, wire};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::clock;
use super::forward::Forwarder;
use super::pages::key_after;
use super::pipe::{TIMEOUT_DEFAULT, TIMEOUT_MAX, not_here};
use super::prior::{prior, weight};
use super::shared::{Shard, Shared, Work};
use crate::engine::PageLimit;
use crate::replica::{Refusal as ReplicaRefusal, Request as ReplicaRequest};

/// Pages of a scan between reading and sending.
const PAGES_MAX: usize = 2;
/// Chains in one page of routes.
const ROUTES_MAX: usize = 256;
const READ_AGAIN_MAX: usize = 16;

/// The `Kv` service.
#[derive(Clone)]
pub(crate) struct KvService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) forwarder: Forwarder,
}

/// When a call is worth nothing any more.
fn deadline<T>(request: &Request<T>) -> Mono {
    let text = request
        .metadata()
        .get("grpc-timeout")
        .and_then(|v| v.to_str().ok());
    let parsed = text.and_then(|text| {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: u64 = number.parse().ok()?;
        let nanos = match unit {
            "H" => 3_600_000_000_000,
            "M" => 60_000_000_000,
            "S" => 1_000_000_000,
            "m" => 1_000_000,
            "u" => 1_000,
            "n" => 1,
            _ => return None,
        };
        Some(Duration::from_nanos(number.saturating_mul(nanos)))
    });
    clock::now().plus(parsed.unwrap_or(TIMEOUT_DEFAULT).min(TIMEOUT_MAX))
}

fn invalid(why: impl std::fmt::Display) -> Status {
    Refusal::new(Reason::Invalid, why.to_string()).to_status()
}

impl KvService {
    fn check(&self, cluster: Option<ClusterId>) -> Result<(), Status> {
        match cluster {
            Some(theirs) if theirs != self.shared.me.cluster => {
                let ours = self.shared.me.cluster;
                let why = format!("this is cluster {ours}, the request is for {theirs}");
                Err(Refusal::new(Reason::ForeignCluster, why).to_status())
            }
            _ => Ok(()),
        }
    }

    fn chain_of(&self, key: &[u8]) -> Result<ChainConfig, Status> {
        self.shared.chain_of(key).ok_or_else(|| {
            let why = "no chain holds this key yet";
            Refusal::new(Reason::NotReady, why).to_status()
        })
    }

    /// Hands a write to the driver and waits for its outcome.
    async fn execute(
        &self,
        shard: ShardId,
        id: Option<RequestId>,
        command: Command,
        deadline: Mono,
    ) -> Result<Outcome, Refusal> {
        for attempt in 0..READ_AGAIN_MAX {
            if self.shared.stopping.load(Ordering::SeqCst) {
                let why = "the node is stopping";
                return Err(self
                    .shared
                    .explain(shard, &ReplicaRefusal::NotReady { shard, why }));
            }
            let prior = prior(&self.shared, shard, &command, attempt > 0)?;
            let mut expected = self.shared.expect_unary();
            let request = ReplicaRequest {
                reply_to: expected.to,
                id,
                command: command.clone(),
                prior,
                deadline,
            };
            let weight = weight(&request);
            let work = Work::Requests {
                shard,
                requests: vec![request],
            };
            if self.shared.inbox.offer(work, weight).is_err() {
                return Err(self
                    .shared
                    .explain(shard, &ReplicaRefusal::Overloaded { shard }));
            }
            let left = clock::until(deadline);
            match tokio::time::timeout(left, &mut expected.answer).await {
                Ok(Ok(Ok(outcome))) => {
                    self.shared.metrics.writes.inc();
                    return Ok(outcome);
                }
                Ok(Ok(Err(ReplicaRefusal::ReadAgain))) => {}
                Ok(Ok(Err(refusal))) => return Err(self.shared.explain(shard, &refusal)),
                Ok(Err(_)) => return Err(Refusal::interrupted("the node is stopping")),
                Err(_) => {
                    let why = "the deadline passed while the write was under way: it may or may not take effect";
                    return Err(Refusal::interrupted(why));
                }
            }
        }
        Err(self
            .shared
            .explain(shard, &ReplicaRefusal::Overloaded { shard }))
    }

    async fn write(
        &self,
        call: WriteCall,
        deadline: Mono,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.check(call.header.cluster)?;
        let chain = self.chain_of(&call.key)?;
        let head = chain.head().map(|m| m.node);
        if head != Some(self.shared.me.node) {
            return match head.filter(|_| !call.header.forwarded) {
                Some(head) => self
                    .forwarder
                    .write(head, call, deadline)
                    .await
                    .map(Response::new),
                None => Err(not_here(&self.shared, chain.shard).to_status()),
            };
        }
        let command = Command::Write {
            key: call.key,
            op: call.op,
        };
        let outcome = self
            .execute(chain.shard, call.request, command, deadline)
            .await
            .map_err(|r| r.to_status())?;
        let answer = WriteAnswer {
            shard: chain.shard,
            outcome,
        };
        Ok(Response::new(answer.into()))
    }

    /// A write as it comes in: parsed and bounded, then done here or at the head.
    async fn parsed_write<T>(
        &self,
        request: Request<T>,
    ) -> Result<Response<wire::WriteResponse>, Status>
    where
        WriteCall: TryFrom<T, Error = ParseError>,
    {
        let deadline = deadline(&request);
        let call = WriteCall::try_from(request.into_inner()).map_err(invalid)?;
        self.write(call, deadline).await
    }

    /// The shard, if this node is a member of its chain.
    fn local(&self, chain: &ChainConfig) -> Option<Arc<Shard>> {
        let me = self.shared.me;
        chain.member(me.node, me.disk)?;
        self.shared.shard(chain.shard)
    }

    /// A member that may answer a read in this node's place: the tail, or its neighbour.
    fn reader(&self, chain: &ChainConfig) -> Option<catena_proto::ids::NodeId> {
        chain
            .members
            .iter()
            .rev()
            .map(|m| m.node)
            .find(|n| *n != self.shared.me.node)
    }

    async fn get_one(&self, call: GetCall, deadline: Mono) -> Result<GetAnswer, Status> {
        self.check(call.header.cluster)?;
        let chain = self.chain_of(&call.key)?;
        let refused = match self.local(&chain) {
            None => not_here(&self.shared, chain.shard),
            Some(shard) => {
                let answer = match call.stale {
                    Some(bound) => {
                        self.shared
                            .get_stale(&shard, &call.key)
                            .and_then(|(row, fresh)| {
                                if bound.lag_ms_max.is_some_and(|max| fresh.lag_ms > max) {
                                    let why = format!("the replica is {} ms behind", fresh.lag_ms);
                                    return Err(Refusal::new(Reason::TooStale, why));
                                }
                                Ok((row, fresh))
                            })
                    }
                    None => {
                        let row = self.shared.get(&shard, &call.key, deadline).await;
                        row.map(|row| (row, Freshness::default()))
                    }
                };
                match answer {
                    Ok((row, freshness)) => {
                        return Ok(GetAnswer {
                            shard: chain.shard,
                            row,
                            freshness,
                        });
                    }
                    Err(refusal) => refusal,
                }
            }
        };
        let elsewhere = matches!(
            refused.reason,
            Reason::WrongChain | Reason::NotReady | Reason::TooStale
        );
        match self
            .reader(&chain)
            .filter(|_| elsewhere && !call.header.forwarded)
        {
            Some(node) => self.forwarder.get(node, call, deadline).await,
            None => Err(refused.to_status()),
        }
    }

    /// One chain's part of a scan, page by page; `rest` is what is left to do. False if the client has gone.
    async fn scan_chain(
        &self,
        call: &ScanCall,
        chain: &ChainConfig,
        rest: &mut Rest,
        deadline: Mono,
        pages: &mpsc::Sender<Result<wire::ScanResponse, Status>>,
    ) -> Result<bool, Status> {
        let linearizable = call.stale.is_none();
        loop {
            let Some(shard) = self.local(chain) else {
                return Err(not_here(&self.shared, chain.shard).to_status());
            };
            let rows = usize::try_from(rest.rows).unwrap_or(usize::MAX);
            let limit = PageLimit {
                rows: rows.min(limits::SCAN_PAGE_ROWS_MAX),
                bytes: limits::SCAN_PAGE_BYTES_MAX,
            };
            let read = self.shared.page(
                &shard,
                &rest.range,
                limit,
                call.reverse,
                linearizable,
                deadline,
            );
            let page = read.await.map_err(|r| r.to_status())?;
            rest.rows -= page.rows.len() as u64;
            if !page.rows.is_empty() {
                let rows = page.rows.into_iter().map(|(key, row)| ScanRow { key, row });
                let page = ScanPage {
                    shard: chain.shard,
                    rows: rows.collect(),
                };
                if pages.send(Ok(page.into())).await.is_err() {
                    return Ok(false);
                }
            }
            match page.resume.filter(|_| rest.rows > 0) {
                Some(last) if call.reverse => rest.range.end = Some(last),
                Some(last) => rest.range.start = key_after(&last),
                None => return Ok(true),
            }
        }
    }

    async fn scan_all(
        self,
        call: ScanCall,
        deadline: Mono,
        pages: mpsc::Sender<Result<wire::ScanResponse, Status>>,
    ) {
        let config = self.shared.config();
        let mut chains: Vec<ChainConfig> = config
            .chains
            .values()
            .filter(|c| overlap(&c.range, &call.range).is_some())
            .map(|c| self.shared.newest(c.clone()))
            .collect();
        chains.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        if call.reverse {
            chains.reverse();
        }
        let mut left = call.limit.unwrap_or(u64::MAX);
        for chain in chains {
            let Some(range) = overlap(&chain.range, &call.range).filter(|_| left > 0) else {
                continue;
            };
            let mut rest = Rest { range, rows: left };
            let mut result = self
                .scan_chain(&call, &chain, &mut rest, deadline, &pages)
                .await;
            left = rest.rows;
            if result.is_err()
                && !call.header.forwarded
                && let Some(node) = self.reader(&chain)
            {
                // Another member goes on where this one stopped.
                let part = ScanCall {
                    range: rest.range,
                    limit: Some(left),
                    ..call.clone()
                };
                let sent = self.forwarder.scan(node, part, deadline, &pages).await;
                left = left.saturating_sub(sent.as_ref().ok().copied().flatten().unwrap_or(0));
                result = sent.map(|sent| sent.is_some());
            }
            match result {
                Ok(true) => {}
                Ok(false) => return,
                Err(status) => {
                    // The client may have gone as well.
                    let _ = pages.send(Err(status)).await;
                    return;
                }
            }
        }
    }

    async fn session(
        &self,
        shard: ShardId,
        forwarded: bool,
        command: Command,
        deadline: Mono,
    ) -> Result<Result<Outcome, catena_proto::ids::NodeId>, Status> {
        let Some(chain) = self.shared.config().chains.get(&shard).cloned() else {
            let why = format!("there is no shard {shard}");
            return Err(Refusal::new(Reason::WrongChain, why).to_status());
        };
        let chain = self.shared.newest(chain);
        let head = chain.head().map(|m| m.node);
        if head != Some(self.shared.me.node) {
            return match head.filter(|_| !forwarded) {
                Some(head) => Ok(Err(head)),
                None => Err(not_here(&self.shared, shard).to_status()),
            };
        }
        let done = self.execute(shard, None, command, deadline).await;
        done.map(Ok).map_err(|r| r.to_status())
    }
}

/// What is left of one chain's part of a scan.
struct Rest {
    range: KeyRange,
    rows: u64,
}

/// The keys that two ranges share.
fn overlap(a: &KeyRange, b: &KeyRange) -> Option<KeyRange> {
    let start = a.start.clone().max(b.start.clone());
    let end = match (&a.end, &b.end) {
        (Some(x), Some(y)) => Some(x.min(y).clone()),
        (x, y) => x.clone().or(y.clone()),
    };
    let shared = KeyRange { start, end };
    (!shared.is_empty()).then_some(shared)
}

#[tonic::async_trait]
impl wire::kv_server::Kv for KvService {
    type ScanStream = ReceiverStream<Result<wire::ScanResponse, Status>>;

    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        let deadline = deadline(&request);
        let call = GetCall::try_from(request.into_inner()).map_err(invalid)?;
        Ok(Response::new(self.get_one(call, deadline).await?.into()))
    }

    async fn put(
        &self,
        request: Request<wire::PutRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.parsed_write(request).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.parsed_write(request).await
    }

    async fn compare_and_swap(
        &self,
        request: Request<wire::CompareAndSwapRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.parsed_write(request).await
    }

    async fn increment(
        &self,
        request: Request<wire::IncrementRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.parsed_write(request).await
    }

    async fn append(
        &self,
        request: Request<wire::AppendRequest>,
    ) -> Result<Response<wire::WriteResponse>, Status> {
        self.parsed_write(request).await
    }

    async fn scan(
        &self,
        request: Request<wire::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        let deadline = deadline(&request);
        let call = ScanCall::try_from(request.into_inner()).map_err(invalid)?;
        self.check(call.header.cluster)?;
        let (pages, stream) = mpsc::channel(PAGES_MAX);
        tokio::spawn(self.clone().scan_all(call, deadline, pages));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn open_session(
        &self,
        request: Request<wire::OpenSessionRequest>,
    ) -> Result<Response<wire::OpenSessionResponse>, Status> {
        let deadline = deadline(&request);
        let call = OpenSessionCall::try_from(request.into_inner()).map_err(invalid)?;
        self.check(call.header.cluster)?;
        let (shard, forwarded) = (call.shard, call.header.forwarded);
        match self
            .session(shard, forwarded, Command::OpenSession, deadline)
            .await?
        {
            Ok(Outcome::SessionOpened { session }) => {
                Ok(Response::new(wire::OpenSessionResponse {
                    shard_id: shard.get(),
                    session_id: session.get(),
                }))
            }
            Ok(_) => Err(Status::internal(
                "a session was asked for and something else was decided",
            )),
            Err(head) => self
                .forwarder
                .open_session(head, call, deadline)
                .await
                .map(Response::new),
        }
    }

    async fn close_session(
        &self,
        request: Request<wire::CloseSessionRequest>,
    ) -> Result<Response<wire::CloseSessionResponse>, Status> {
        let deadline = deadline(&request);
        let call = CloseSessionCall::try_from(request.into_inner()).map_err(invalid)?;
        self.check(call.header.cluster)?;
        let (shard, forwarded) = (call.shard, call.header.forwarded);
        let command = Command::CloseSession(call.session);
        match self.session(shard, forwarded, command, deadline).await? {
            Ok(_) => Ok(Response::new(wire::CloseSessionResponse {})),
            Err(head) => self
                .forwarder
                .close_session(head, call, deadline)
                .await
                .map(Response::new),
        }
    }

    async fn routes(
        &self,
        request: Request<wire::RoutesRequest>,
    ) -> Result<Response<wire::RoutesResponse>, Status> {
        let call = RoutesCall::try_from(request.into_inner()).map_err(invalid)?;
        self.check(call.header.cluster)?;
        let config = self.shared.config();
        let mut chains: Vec<&ChainConfig> = config
            .chains
            .values()
            .filter(|c| c.range.end.as_ref().is_none_or(|end| *end > call.start))
            .collect();
        chains.sort_by(|a, b| a.range.start.cmp(&b.range.start));
        let most = call.chains_max.unwrap_or(ROUTES_MAX).clamp(1, ROUTES_MAX);
        let next: Option<Bytes> = chains.get(most).map(|c| c.range.start.clone());
        chains.truncate(most);
        let chains: Vec<ChainConfig> = chains
            .into_iter()
            .map(|c| self.shared.newest(c.clone()))
            .collect();
        let mut nodes: Vec<_> = chains
            .iter()
            .flat_map(|c| self.shared.nodes_of(c))
            .collect();
        nodes.sort_by_key(|n| n.node);
        nodes.dedup_by_key(|n| n.node);
        let page = RoutesPage {
            cluster: self.shared.me.cluster,
            chains,
            nodes,
            next,
        };
        Ok(Response::new((&page).into()))
    }
}
