//! Whatever we send is read back as it was; whatever else arrives is refused, and nothing panics.

use std::time::Duration;

use bytes::Bytes;
use catena_proto::call::*;
use catena_proto::config::*;
use catena_proto::conversion::config::ParsedDelta;
use catena_proto::conversion::kv::UnaryWrite;
use catena_proto::conversion::pipe;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::*;
use catena_proto::op::*;
use catena_proto::{limits, wire};
use proptest::prelude::*;
use prost::Message;

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..=max).prop_map(Bytes::from)
}

fn key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..24).prop_map(Bytes::from)
}

fn seq() -> impl Strategy<Value = Seq> {
    any::<u64>().prop_map(Seq::new)
}

fn disk() -> impl Strategy<Value = DiskId> {
    any::<u128>().prop_map(DiskId::new)
}

fn cluster() -> impl Strategy<Value = ClusterId> {
    any::<u128>().prop_map(ClusterId::new)
}

fn chain() -> impl Strategy<Value = ChainConfig> {
    let members = prop::collection::btree_map(1..50_u64, (disk(), 1..=5_u64), 1..=7);
    let phase = prop_oneof![Just(ChainPhase::Creating), Just(ChainPhase::Serving)];
    let range = (bytes(8), any::<Option<u8>>());
    (any::<u64>(), 5..=u64::MAX, range, phase, members).prop_map(
        |(shard, epoch, (start, end), phase, members)| ChainConfig {
            shard: ShardId::new(shard),
            epoch: Epoch::new(epoch),
            range: KeyRange {
                end: end.map(|tail| [&start[..], &[tail]].concat().into()),
                start,
            },
            phase,
            recovered: Epoch::ZERO,
            members: members
                .into_iter()
                .map(|(node, (disk, joined))| Member {
                    node: NodeId::new(node),
                    disk,
                    joined_epoch: Epoch::new(joined),
                })
                .collect(),
        },
    )
}

fn node() -> impl Strategy<Value = NodeInfo> {
    let http = prop::sample::select(vec!["", "[::1]:80", "h:1"]);
    let addr = "[a-z0-9.]{1,20}:[1-9][0-9]{0,3}";
    (any::<u64>(), disk(), addr, http, ".{0,8}").prop_map(|(id, disk, addr, http, zone)| NodeInfo {
        node: NodeId::new(id),
        disk,
        addr,
        http: http.to_owned(),
        zone,
    })
}

fn learner(shard: u64) -> impl Strategy<Value = Learner> {
    (any::<u64>(), disk()).prop_map(move |(node, disk)| Learner {
        shard: ShardId::new(shard),
        node: NodeId::new(node),
        disk,
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let log = (64 << 20)..=(1_u64 << 42);
    (10..=2000_u64, 1..=5_u64, 10..=60_000_u64, log).prop_map(
        |(lease_ms, lease_round_ms, link_silence_ms, log_retained_bytes)| Settings {
            lease_ms,
            lease_round_ms,
            link_silence_ms,
            log_retained_bytes,
        },
    )
}

fn position() -> impl Strategy<Value = ConfigPosition> {
    any::<(u64, u64)>().prop_map(|(generation, version)| ConfigPosition {
        generation: Generation::new(generation),
        version: ConfigVersion::new(version),
    })
}

/// Chains that share out the key space at random cuts.
fn chains() -> impl Strategy<Value = Vec<ChainConfig>> {
    let cuts = prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..4), 0..5);
    (cuts, chain()).prop_map(|(cuts, like)| {
        let mut starts = vec![Bytes::new()];
        starts.extend(cuts.into_iter().map(Bytes::from));
        let chain = |(at, start): (usize, &Bytes)| ChainConfig {
            shard: ShardId::new(at as u64 + 1),
            range: KeyRange {
                start: start.clone(),
                end: starts.get(at + 1).cloned(),
            },
            ..like.clone()
        };
        starts.iter().enumerate().map(chain).collect()
    })
}

fn cluster_config() -> impl Strategy<Value = ClusterConfig> {
    let nodes = prop::collection::vec(node(), 0..5);
    let learners = prop::collection::vec(learner(1), 0..3);
    (cluster(), position(), nodes, chains(), settings(), learners).prop_map(
        |(cluster, position, nodes, chains, settings, learners)| ClusterConfig {
            cluster,
            position,
            nodes: nodes.into_iter().map(|n| (n.node, n)).collect(),
            chains: chains.into_iter().map(|c| (c.shard, c)).collect(),
            learners,
            settings,
        },
    )
}

fn delta_item() -> impl Strategy<Value = DeltaItem> {
    prop_oneof![
        chain().prop_map(DeltaItem::Chain),
        node().prop_map(DeltaItem::Node),
        any::<u64>().prop_map(|n| DeltaItem::NodeForgotten(NodeId::new(n))),
        prop::collection::vec(learner(7), 0..3)
            .prop_map(|set| DeltaItem::Learners(ShardId::new(7), set)),
        settings().prop_map(DeltaItem::Settings),
    ]
}

fn expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        seq().prop_map(Expect::Version),
        bytes(16).prop_map(Expect::Value),
        Just(Expect::Absent)
    ]
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        bytes(32).prop_map(|value| WriteOp::Put { value }),
        Just(WriteOp::Delete),
        (expect(), bytes(32)).prop_map(|(expect, value)| WriteOp::Cas { expect, value }),
        any::<i64>().prop_map(|by| WriteOp::Incr { by }),
        bytes(32).prop_map(|suffix| WriteOp::Append { suffix }),
    ]
}

fn request_id() -> impl Strategy<Value = Option<RequestId>> {
    let slot = 0..limits::SESSION_SLOTS_MAX;
    let id = (1..=u64::MAX, slot, 1..=u64::MAX).prop_map(|(session, slot, no)| RequestId {
        session: SessionId::new(session),
        slot: SlotNo::new(slot),
        no: RequestNo::new(no),
    });
    prop::option::of(id)
}

fn stale() -> impl Strategy<Value = Option<StaleBound>> {
    prop::option::of(prop::option::of(1..u64::MAX).prop_map(|lag_ms_max| StaleBound { lag_ms_max }))
}

fn call_body() -> impl Strategy<Value = CallBody> {
    let plain = |command| CallBody::Command {
        request: None,
        command,
    };
    let write = (request_id(), key(), write_op()).prop_map(|(request, key, op)| {
        let command = Command::Write { key, op };
        CallBody::Command { request, command }
    });
    prop_oneof![
        (key(), stale()).prop_map(|(key, stale)| CallBody::Get { key, stale }),
        write,
        Just(plain(Command::OpenSession)),
        any::<u64>().prop_map(move |id| plain(Command::CloseSession(SessionId::new(id)))),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    let epoch = prop::option::of(1..u64::MAX);
    let timeout = prop::option::of(1..=u32::MAX);
    (any::<u64>(), any::<u64>(), epoch, timeout, call_body()).prop_map(
        |(id, shard, epoch, timeout, body)| Call {
            id: CallId::new(id),
            shard: ShardId::new(shard),
            epoch: epoch.map(Epoch::new),
            timeout: timeout.map(|ms| Duration::from_millis(ms.into())),
            body,
        },
    )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let actual = prop::option::of((1..u64::MAX).prop_map(Seq::new));
    prop_oneof![
        seq().prop_map(|version| Outcome::Written { version }),
        (seq(), any::<bool>()).prop_map(|(version, existed)| Outcome::Deleted { version, existed }),
        actual.prop_map(|actual| Outcome::CasFailed { actual }),
        (seq(), any::<i64>()).prop_map(|(version, value)| Outcome::Incremented { version, value }),
        Just(Outcome::NotANumber),
        Just(Outcome::Overflow),
        Just(Outcome::ValueTooLarge),
        any::<u64>().prop_map(|id| Outcome::SessionOpened {
            session: SessionId::new(id)
        }),
        Just(Outcome::SessionClosed),
    ]
}

fn freshness() -> impl Strategy<Value = Freshness> {
    (seq(), any::<u64>()).prop_map(|(applied, lag_ms)| Freshness { applied, lag_ms })
}

fn row() -> impl Strategy<Value = Row> {
    (bytes(32), seq()).prop_map(|(value, version)| Row { value, version })
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let reason = prop::sample::select(Reason::ALL);
    let pause = prop::option::of(1..60_000_u64);
    let route = prop::option::of((chain(), prop::collection::vec(node(), 0..=7)));
    (reason, ".{0,40}", pause, any::<bool>(), route).prop_map(
        |(reason, message, pause, indefinite, route)| {
            let mut refusal = Refusal::new(reason, message);
            refusal.indefinite |= indefinite;
            if let Some(ms) = pause {
                refusal = refusal.retry_after(Duration::from_millis(ms));
            }
            match route {
                Some((chain, nodes)) => refusal.route(chain, nodes),
                None => refusal,
            }
        },
    )
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        (row(), freshness()).prop_map(|(row, freshness)| Answer::Row { row, freshness }),
        freshness().prop_map(|freshness| Answer::Absent { freshness }),
        outcome().prop_map(Answer::Outcome),
        refusal().prop_map(Answer::Refused),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (prop::option::of(cluster()), any::<bool>())
        .prop_map(|(cluster, forwarded)| Header { cluster, forwarded })
}

/// Over the wire: encoded and decoded.
fn travel<W: Message + Default>(wire: W) -> W {
    W::decode(&wire.encode_to_vec()[..]).expect("our own encoding")
}

proptest! {
    #[test]
    fn configurations_travel_unchanged(config in cluster_config()) {
        prop_assume!(config.check().is_ok());
        let wire = travel(wire::ClusterConfig::from(&config));
        prop_assert_eq!(ClusterConfig::try_from(wire), Ok(config));
    }

    #[test]
    fn deltas_travel_unchanged(
        cluster in cluster(),
        base in position(),
        to in position(),
        items in prop::collection::vec(delta_item(), 0..6),
    ) {
        let delta = Delta { cluster, base, to, items };
        let parsed = ParsedDelta::try_from(travel(wire::Delta::from(&delta)));
        prop_assert_eq!(parsed, Ok(ParsedDelta { delta, refused: Vec::new() }));
    }

    #[test]
    fn calls_travel_unchanged(call in call()) {
        let wire = travel(wire::Request::from(call.clone()));
        prop_assert_eq!(Call::try_from(wire), Ok(call));
    }

    #[test]
    fn answers_travel_unchanged(id in any::<u64>(), answer in answer()) {
        let wire = travel(pipe::response(CallId::new(id), answer.clone()));
        prop_assert_eq!(wire.id, id);
        prop_assert_eq!(pipe::answer(wire.result), Ok(answer));
    }

    #[test]
    fn unary_reads_travel_unchanged(
        header in header(),
        key in key(),
        stale in stale(),
        range in (bytes(8), prop::option::of(bytes(8))),
        limit in prop::option::of(1..u64::MAX),
        reverse in any::<bool>(),
    ) {
        let get = GetCall { header, key, stale };
        prop_assert_eq!(GetCall::try_from(travel(wire::GetRequest::from(get.clone()))), Ok(get));
        let range = KeyRange { start: range.0, end: range.1 };
        let scan = ScanCall { header, range, limit, reverse, stale };
        prop_assert_eq!(ScanCall::try_from(travel(wire::ScanRequest::from(scan.clone()))), Ok(scan));
    }

    #[test]
    fn unary_writes_travel_unchanged(header in header(), request in request_id(), key in key(), op in write_op()) {
        let write = WriteCall { header, request, key, op };
        let parsed = match UnaryWrite::from(write.clone()) {
            UnaryWrite::Put(w) => WriteCall::try_from(travel(w)),
            UnaryWrite::Delete(w) => WriteCall::try_from(travel(w)),
            UnaryWrite::CompareAndSwap(w) => WriteCall::try_from(travel(w)),
            UnaryWrite::Increment(w) => WriteCall::try_from(travel(w)),
            UnaryWrite::Append(w) => WriteCall::try_from(travel(w)),
        };
        prop_assert_eq!(parsed, Ok(write));
    }

    #[test]
    fn unary_answers_travel_unchanged(
        shard in any::<u64>(),
        row in prop::option::of(row()),
        freshness in freshness(),
        outcome in outcome(),
        rows in prop::collection::vec((key(), row()), 0..5),
    ) {
        let shard = ShardId::new(shard);
        let get = GetAnswer { shard, row, freshness };
        prop_assert_eq!(GetAnswer::try_from(travel(wire::GetResponse::from(get.clone()))), Ok(get));
        let write = WriteAnswer { shard, outcome };
        prop_assert_eq!(WriteAnswer::try_from(travel(wire::WriteResponse::from(write))), Ok(write));
        let rows = rows.into_iter().map(|(key, row)| ScanRow { key, row }).collect();
        let page = ScanPage { shard, rows };
        prop_assert_eq!(ScanPage::try_from(travel(wire::ScanResponse::from(page.clone()))), Ok(page));
    }

    #[test]
    fn routes_travel_unchanged(
        cluster in cluster(),
        chains in chains(),
        nodes in prop::collection::vec(node(), 0..4),
        next in prop::option::of(bytes(8)),
    ) {
        let routes = RoutesPage { cluster, chains, nodes, next };
        let wire = travel(wire::RoutesResponse::from(&routes));
        prop_assert_eq!(RoutesPage::try_from(wire), Ok(routes));
    }

    #[test]
    fn refusals_travel_unchanged_both_ways(refusal in refusal()) {
        prop_assert_eq!(Refusal::from_status(&refusal.to_status()), refusal.clone());
        prop_assert_eq!(Refusal::from(travel(wire::PipeError::from(&refusal))), refusal);
    }

    #[test]
    fn random_details_of_a_status_never_panic(code in 0..17_i32, details in bytes(64)) {
        let status = tonic::Status::with_details(code.into(), "x", details);
        let _ = Refusal::from_status(&status);
    }

    #[test]
    fn random_bytes_are_refused_or_parsed_but_never_panic(raw in bytes(200)) {
        parse_everything(&raw);
    }

    #[test]
    fn damaged_messages_are_refused_or_parsed_but_never_panic(
        config in cluster_config(),
        call in call(),
        answer in answer(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut raw in [
            wire::ClusterConfig::from(&config).encode_to_vec(),
            wire::Request::from(call).encode_to_vec(),
            pipe::response(CallId::new(1), answer).encode_to_vec(),
        ] {
            for (at, byte) in &flips {
                let at = at.index(raw.len());
                raw[at] = *byte;
            }
            parse_everything(&raw);
        }
    }
}

fn parse_everything(raw: &[u8]) {
    fn parse<W: Message + Default, D: TryFrom<W>>(raw: &[u8]) {
        if let Ok(wire) = W::decode(raw) {
            drop(D::try_from(wire));
        }
    }
    parse::<wire::ClusterConfig, ClusterConfig>(raw);
    parse::<wire::ChainConfig, ChainConfig>(raw);
    parse::<wire::NodeInfo, NodeInfo>(raw);
    parse::<wire::Settings, Settings>(raw);
    parse::<wire::Delta, ParsedDelta>(raw);
    parse::<wire::Request, Call>(raw);
    parse::<wire::GetRequest, GetCall>(raw);
    parse::<wire::PutRequest, WriteCall>(raw);
    parse::<wire::CompareAndSwapRequest, WriteCall>(raw);
    parse::<wire::ScanRequest, ScanCall>(raw);
    parse::<wire::ScanResponse, ScanPage>(raw);
    parse::<wire::RoutesRequest, RoutesCall>(raw);
    parse::<wire::RoutesResponse, RoutesPage>(raw);
    parse::<wire::GetResponse, GetAnswer>(raw);
    parse::<wire::WriteResponse, WriteAnswer>(raw);
    parse::<wire::PipeError, Refusal>(raw);
    if let Ok(response) = wire::Response::decode(raw) {
        drop(pipe::answer(response.result));
    }
}
