//! What is beyond a limit is refused at the edge and by name, and a refusal keeps its meaning on the way.

use bytes::Bytes;
use catena_proto::call::Call;
use catena_proto::config::*;
use catena_proto::conversion::config::ParsedDelta;
use catena_proto::conversion::{ParseError, pipe};
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::*;
use catena_proto::{limits, wire};

fn refused_call(change: impl FnOnce(&mut wire::Request)) -> ParseError {
    let mut request = wire::Request {
        id: 1,
        shard_id: 1,
        key: Bytes::from_static(b"k"),
        op: Some(wire::request::Op::Put(Bytes::from_static(b"v"))),
        ..wire::Request::default()
    };
    assert!(Call::try_from(request.clone()).is_ok());
    change(&mut request);
    Call::try_from(request).expect_err("it breaks a limit")
}

#[test]
fn keys_values_and_slots_beyond_their_limits_are_refused_by_name() {
    let long = Bytes::from(vec![0; limits::KEY_BYTES_MAX + 1]);
    let error = refused_call(|r| r.key = long);
    assert_eq!(
        error.to_string(),
        "`key` takes 4097 bytes; at most 4096 are allowed"
    );
    refused_call(|r| r.key = Bytes::new());
    refused_call(|r| r.op = None);
    let big = Bytes::from(vec![0; limits::VALUE_BYTES_MAX + 1]);
    refused_call(|r| r.op = Some(wire::request::Op::Put(big.clone())));
    refused_call(|r| r.op = Some(wire::request::Op::Append(big)));
    refused_call(|r| r.op = Some(wire::request::Op::Cas(wire::PipeCas::default())));
    for (session_id, slot, request_no) in [(0, 0, 1), (1, 0, 0), (1, 1024, 1), (1, u32::MAX, 1)] {
        let session = wire::SessionRef {
            session_id,
            slot,
            request_no,
        };
        refused_call(|r| r.session = Some(session));
    }
}

#[test]
fn a_frame_with_too_many_requests_is_refused_before_they_are_read() {
    let mut frame = wire::PipeRequest {
        cluster_id: Bytes::new(),
        requests: vec![wire::Request::default(); limits::PIPE_FRAME_REQUESTS_MAX],
    };
    assert_eq!(pipe::check_frame(&frame), Ok(()));
    frame.requests.push(wire::Request::default());
    assert!(pipe::check_frame(&frame).is_err());
}

#[test]
fn a_bad_item_of_a_delta_holds_back_nothing_else() {
    let good = DeltaItem::NodeForgotten(NodeId::new(4));
    let delta = Delta {
        cluster: ClusterId::new(1),
        base: ConfigPosition::default(),
        to: ConfigPosition::default(),
        items: vec![good.clone(), good.clone()],
    };
    let mut wire = wire::Delta::from(&delta);
    wire.items.insert(1, wire::DeltaItem { item: None });
    let parsed = ParsedDelta::try_from(wire).expect("the delta itself is whole");
    assert_eq!(parsed.delta.items, [good.clone(), good]);
    assert_eq!(parsed.refused, [(1, ParseError::Missing("item"))]);
}

#[test]
fn a_wrong_chain_status_sheds_the_route_before_it_outgrows_the_headers() {
    let fat = |byte: u8| Bytes::from(vec![byte; limits::KEY_BYTES_MAX]);
    let member = Member {
        node: NodeId::new(1),
        disk: DiskId::new(1),
        joined_epoch: Epoch::new(1),
    };
    let chain = ChainConfig {
        shard: ShardId::new(1),
        epoch: Epoch::new(1),
        range: KeyRange {
            start: fat(1),
            end: Some(fat(2)),
        },
        phase: ChainPhase::Serving,
        recovered: Epoch::ZERO,
        members: vec![member],
    };
    let refusal = Refusal::new(Reason::WrongChain, "ask node 1").route(chain, Vec::new());
    let status = refusal.to_status();
    assert!(status.details().len() <= limits::STATUS_DETAILS_BYTES_MAX);
    let parsed = Refusal::from_status(&status);
    assert_eq!(parsed.reason, Reason::WrongChain);
    assert_eq!(parsed.chain, None);
}

#[test]
fn a_status_without_our_details_is_definite_only_if_the_call_was_never_looked_at() {
    use tonic::Code;
    let of = |code| Refusal::from_status(&tonic::Status::new(code, "x"));
    for code in [
        Code::Unavailable,
        Code::Unknown,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Internal,
        Code::ResourceExhausted,
    ] {
        assert!(of(code).indefinite, "{code:?}");
    }
    for code in [Code::Unimplemented, Code::InvalidArgument, Code::OutOfRange] {
        assert!(!of(code).indefinite, "{code:?}");
    }
}

#[test]
fn an_interrupted_write_is_never_definite() {
    let mut error = wire::PipeError::from(&Refusal::interrupted("the node stops"));
    error.indefinite = false;
    assert!(Refusal::from(error).indefinite);
}

#[test]
fn a_reason_of_a_newer_version_counts_as_internal() {
    let mut unheard_of = wire::PipeError::from(&Refusal::new(Reason::NotReady, "x"));
    unheard_of.reason = 999;
    assert_eq!(Refusal::from(unheard_of).reason, Reason::Internal);
}

#[test]
fn a_long_message_is_cut_between_two_characters() {
    let refusal = Refusal::new(
        Reason::Internal,
        "é".repeat(limits::REFUSAL_MESSAGE_BYTES_MAX),
    );
    assert_eq!(refusal.message.len(), limits::REFUSAL_MESSAGE_BYTES_MAX);
    let odd = format!("x{}", "é".repeat(limits::REFUSAL_MESSAGE_BYTES_MAX));
    let refusal = Refusal::new(Reason::Internal, odd);
    assert_eq!(refusal.message.len(), limits::REFUSAL_MESSAGE_BYTES_MAX - 1);
}

#[test]
fn addresses_without_host_or_port_are_refused() {
    for addr in ["", "host", ":1", "host:", "host:0", "host:99999", "ho st:1"] {
        let info = wire::NodeInfo {
            node_id: 1,
            disk_id: Bytes::from(vec![0; 16]),
            addr: addr.into(),
            ..wire::NodeInfo::default()
        };
        assert!(NodeInfo::try_from(info).is_err(), "{addr}");
    }
}
