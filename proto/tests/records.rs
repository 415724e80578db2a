//! Records and groups: what is encoded comes back, what is not a record is refused, and parts of groups fit together.
#![allow(missing_docs, reason = "a test")]

use bytes::Bytes;
use catena_proto::ids::{
    Epoch, Incarnation, LogTime, Origin, RequestNo, Seq, SessionId, ShardId, SlotNo,
};
use catena_proto::op::{Outcome, RequestId};
use catena_proto::record::{Effect, Group, GroupBuilder, Record, SessionChange};
use proptest::prelude::*;

fn outcome() -> impl Strategy<Value = Outcome> {
    let seq = || (1..u64::MAX).prop_map(Seq::new);
    prop_oneof![
        seq().prop_map(|version| Outcome::Written { version }),
        (seq(), any::<bool>()).prop_map(|(version, existed)| Outcome::Deleted { version, existed }),
        prop::option::of(seq()).prop_map(|actual| Outcome::CasFailed { actual }),
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

fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn record() -> impl Strategy<Value = Record> {
    let request =
        (any::<u64>(), any::<u16>(), any::<u64>()).prop_map(|(session, slot, no)| RequestId {
            session: SessionId::new(session),
            slot: SlotNo::new(slot),
            no: RequestNo::new(no),
        });
    let effect = (
        bytes(40),
        prop::option::of(bytes(200)),
        prop::option::of(any::<u64>()),
    )
        .prop_map(|(key, value, at)| Effect {
            key,
            value,
            expires: at.map(LogTime::new),
        });
    let session = prop_oneof![
        Just(SessionChange::None),
        Just(SessionChange::Open),
        any::<u64>().prop_map(|id| SessionChange::Close(SessionId::new(id))),
    ];
    let effects = prop::collection::vec(effect, 0..4);
    (
        any::<u64>(),
        prop::option::of(request),
        outcome(),
        effects,
        session,
    )
        .prop_map(|(at, request, outcome, effects, session)| Record {
            at: LogTime::new(at),
            request,
            outcome,
            effects,
            session,
        })
}

const ORIGIN: Origin = Origin {
    epoch: Epoch::new(3),
    incarnation: Incarnation::new(4),
};

fn group(records: &[Record]) -> Group {
    let mut builder = GroupBuilder::new(ORIGIN, Seq::new(10));
    for record in records {
        builder.push(record);
    }
    builder.take().expect("some records")
}

proptest! {
    #[test]
    fn a_group_comes_back_as_it_was(records in prop::collection::vec(record(), 1..8)) {
        let decoded = group(&records).decode().expect("whole");
        let seqs: Vec<u64> = decoded.iter().map(|(seq, _)| seq.get()).collect();
        prop_assert_eq!(seqs, (10..10 + records.len() as u64).collect::<Vec<_>>());
        let back: Vec<Record> = decoded.into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(back, records);
    }

    #[test]
    fn the_two_parts_of_a_group_are_the_whole(
        records in prop::collection::vec(record(), 1..8),
        at in 8..20_u64,
    ) {
        let whole = group(&records);
        let (head, tail) = (whole.prefix_to(Seq::new(at)), whole.suffix_after(Seq::new(at)));
        let mut joined = Vec::new();
        for part in [head.expect("whole"), tail.expect("whole")].into_iter().flatten() {
            joined.extend(part.decode().expect("whole"));
        }
        prop_assert_eq!(joined, whole.decode().expect("whole"));
    }

    #[test]
    fn random_bytes_are_refused_or_decoded_and_never_panic(
        records in bytes(300),
        first in any::<u64>(),
        last in any::<u64>(),
        cut in any::<u64>(),
    ) {
        let group = Group { origin: ORIGIN, first: Seq::new(first), last: Seq::new(last), records };
        let _ = group.decode();
        let _ = group.prefix_to(Seq::new(cut));
        let _ = group.suffix_after(Seq::new(cut));
    }

    #[test]
    fn a_checksum_binds_bytes_and_place(records in prop::collection::vec(record(), 1..4), byte in any::<prop::sample::Index>()) {
        let whole = group(&records);
        let sum = whole.checksum(ShardId::new(1));
        prop_assert_ne!(sum, whole.checksum(ShardId::new(2)));
        let moved = Group { first: whole.first.next(), last: whole.last.next(), ..whole.clone() };
        prop_assert_ne!(sum, moved.checksum(ShardId::new(1)));
        let mut bytes = whole.records.to_vec();
        let at = byte.index(bytes.len());
        bytes[at] ^= 0x40;
        let flipped = Group { records: bytes.into(), ..whole };
        prop_assert_ne!(sum, flipped.checksum(ShardId::new(1)));
    }
}
