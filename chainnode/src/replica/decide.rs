//! What becomes of a write, given the key's present state: the head's decisions (DESIGN §3.1).

use bytes::{Bytes, BytesMut};
use catena_proto::ids::Seq;
use catena_proto::limits;
use catena_proto::op::{Expect, Outcome, WriteOp};

/// A key's present value and version, as the decision sees them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    pub(super) value: &'a Bytes,
    pub(super) version: Seq,
}

/// The result, and the key's new value (`Some(None)` is a tombstone) if it changes.
pub(super) type Decision = (Outcome, Option<Option<Bytes>>);

/// Decides `op` for the record that will be at `seq`.
pub(super) fn decide(op: &WriteOp, present: Option<Present<'_>>, seq: Seq) -> Decision {
    let written = Outcome::Written { version: seq };
    match op {
        WriteOp::Put { value } => (written, Some(Some(value.clone()))),
        WriteOp::Delete => match present {
            Some(_) => (
                Outcome::Deleted {
                    version: seq,
                    existed: true,
                },
                Some(None),
            ),
            None => (
                Outcome::Deleted {
                    version: seq,
                    existed: false,
                },
                None,
            ),
        },
        WriteOp::Cas { expect, value } => {
            let holds = match (expect, present) {
                (Expect::Absent, None) => true,
                (Expect::Version(version), Some(p)) => p.version == *version,
                (Expect::Value(old), Some(p)) => p.value == old,
                _ => false,
            };
            if holds {
                (written, Some(Some(value.clone())))
            } else {
                (
                    Outcome::CasFailed {
                        actual: present.map(|p| p.version),
                    },
                    None,
                )
            }
        }
        WriteOp::Incr { by } => {
            let Some(old) = present.map_or(Some(0), |p| parse_number(p.value)) else {
                return (Outcome::NotANumber, None);
            };
            match old.checked_add(*by) {
                Some(value) => (
                    Outcome::Incremented {
                        version: seq,
                        value,
                    },
                    Some(Some(Bytes::from(value.to_string()))),
                ),
                None => (Outcome::Overflow, None),
            }
        }
        WriteOp::Append { suffix } => {
            let old = present.map_or(&[][..], |p| p.value);
            if old.len() + suffix.len() > limits::VALUE_BYTES_MAX {
                return (Outcome::ValueTooLarge, None);
            }
            let mut value = BytesMut::with_capacity(old.len() + suffix.len());
            value.extend_from_slice(old);
            value.extend_from_slice(suffix);
            (written, Some(Some(value.freeze())))
        }
    }
}

/// A decimal 64-bit integer as `incr` writes it; a sign `+` or stray blanks are none.
fn parse_number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    if text.starts_with('+') {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQ: Seq = Seq::new(9);

    fn run(op: WriteOp, present: Option<&'static str>) -> Decision {
        let value = present.map(Bytes::from_static_str);
        let present = value.as_ref().map(|value| Present {
            value,
            version: Seq::new(4),
        });
        decide(&op, present, SEQ)
    }

    trait FromStaticStr {
        fn from_static_str(text: &'static str) -> Bytes;
    }
    impl FromStaticStr for Bytes {
        fn from_static_str(text: &'static str) -> Self {
            Self::from_static(text.as_bytes())
        }
    }

    #[test]
    fn incr_counts_from_zero_and_refuses_overflow_and_text() {
        let one = run(WriteOp::Incr { by: 1 }, None);
        assert_eq!(
            one,
            (
                Outcome::Incremented {
                    version: SEQ,
                    value: 1
                },
                Some(Some("1".into()))
            )
        );
        assert_eq!(
            run(WriteOp::Incr { by: 1 }, Some("9223372036854775807")).0,
            Outcome::Overflow
        );
        for text in ["x", "+1", " 1", "1.0", ""] {
            assert_eq!(
                run(WriteOp::Incr { by: 1 }, Some(text)),
                (Outcome::NotANumber, None)
            );
        }
    }

    #[test]
    fn cas_compares_version_value_or_absence() {
        let cas = |expect| WriteOp::Cas {
            expect,
            value: "n".into(),
        };
        let held = (
            Outcome::Written { version: SEQ },
            Some(Some(Bytes::from("n"))),
        );
        assert_eq!(run(cas(Expect::Absent), None), held);
        assert_eq!(run(cas(Expect::Version(Seq::new(4))), Some("o")), held);
        assert_eq!(run(cas(Expect::Value("o".into())), Some("o")), held);
        let failed = (
            Outcome::CasFailed {
                actual: Some(Seq::new(4)),
            },
            None,
        );
        assert_eq!(run(cas(Expect::Absent), Some("o")), failed);
        assert_eq!(run(cas(Expect::Value("x".into())), Some("o")), failed);
        assert_eq!(
            run(cas(Expect::Value("x".into())), None).0,
            Outcome::CasFailed { actual: None }
        );
    }

    #[test]
    fn a_missing_key_is_deleted_without_an_effect() {
        assert_eq!(
            run(WriteOp::Delete, None),
            (
                Outcome::Deleted {
                    version: SEQ,
                    existed: false
                },
                None
            )
        );
        assert_eq!(run(WriteOp::Delete, Some("o")).1, Some(None));
    }
}
