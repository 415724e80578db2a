//! The bytes of a user's row: `crc32 | flags | version | [expires] | value`, all numbers little-endian.
//!
//! The checksum covers the key too, so a row that a damaged index hands out
//! under another key is found as well. The value comes last and is handed out as
//! a slice of what the engine read, without a copy.

use bytes::{BufMut, Bytes, BytesMut};
use catena_proto::ids::{LogTime, Seq};

use super::{EngineError, StoredRow};

/// The row has an expiry.
const EXPIRES: u8 = 1;
/// Checksum, flags and version.
const HEAD_BYTES: usize = 4 + 1 + 8;
/// How much of a key an error shows.
const KEY_SHOWN_BYTES_MAX: usize = 64;

/// The checksum of what is stored under a key: everything behind its own four bytes.
pub(super) fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(rest);
    crc.finalize()
}

/// The error for what is stored under `key`.
pub(super) fn damaged(key: &[u8]) -> EngineError {
    let shown = &key[..key.len().min(KEY_SHOWN_BYTES_MAX)];
    let cut = if shown.len() < key.len() { "…" } else { "" };
    EngineError::Damaged {
        key: format!("key \"{}\"{cut}", shown.escape_ascii()),
    }
}

/// Bytes that [`put_row`] will append.
pub(super) fn row_len(row: &StoredRow) -> usize {
    HEAD_BYTES + row.expires.map_or(0, |_| 8) + row.value.len()
}

/// Appends the encoded row.
pub(super) fn put_row(buf: &mut BytesMut, key: &[u8], row: &StoredRow) {
    let start = buf.len();
    buf.put_u32_le(0);
    buf.put_u8(if row.expires.is_some() { EXPIRES } else { 0 });
    buf.put_u64_le(row.version.get());
    if let Some(expires) = row.expires {
        buf.put_u64_le(expires.get());
    }
    buf.put_slice(&row.value);
    let crc = checksum(key, &buf[start + 4..]);
    buf[start..start + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the row stored under `key`; its value shares `raw`'s memory.
///
/// # Errors
/// [`EngineError::Damaged`].
pub(super) fn read_row(key: &[u8], raw: &Bytes) -> Result<StoredRow, EngineError> {
    parse(key, raw).ok_or_else(|| damaged(key))
}

fn parse(key: &[u8], raw: &Bytes) -> Option<StoredRow> {
    let (crc, rest) = raw.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*crc) != checksum(key, rest) {
        return None;
    }
    let (flags, rest) = rest.split_first()?;
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let expires = match *flags {
        0 => None,
        EXPIRES => {
            let (expires, _) = rest.split_first_chunk::<8>()?;
            Some(LogTime::new(u64::from_le_bytes(*expires)))
        }
        _ => return None,
    };
    let value_at = HEAD_BYTES + expires.map_or(0, |_| 8);
    Some(StoredRow {
        value: raw.slice(value_at..),
        version: Seq::new(u64::from_le_bytes(*version)),
        expires,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(key: &[u8], row: &StoredRow) -> Bytes {
        let mut buf = BytesMut::new();
        put_row(&mut buf, key, row);
        assert_eq!(buf.len(), row_len(row));
        buf.freeze()
    }

    fn any_row() -> impl Strategy<Value = StoredRow> {
        let value = proptest::collection::vec(any::<u8>(), 0..40);
        (value, any::<u64>(), proptest::option::of(any::<u64>())).prop_map(
            |(value, version, expires)| StoredRow {
                value: value.into(),
                version: Seq::new(version),
                expires: expires.map(LogTime::new),
            },
        )
    }

    proptest! {
        #[test]
        fn rows_round_trip(key in proptest::collection::vec(any::<u8>(), 1..20), row in any_row()) {
            let raw = encoded(&key, &row);
            prop_assert_eq!(read_row(&key, &raw).expect("it was just encoded"), row);
        }

        #[test]
        fn every_flipped_bit_and_every_cut_is_found(row in any_row()) {
            let raw = encoded(b"key", &row);
            for bit in 0..raw.len() * 8 {
                let mut bad = BytesMut::from(&raw[..]);
                bad[bit / 8] ^= 1 << (bit % 8);
                prop_assert!(read_row(b"key", &bad.freeze()).is_err(), "bit {}", bit);
            }
            for len in 0..raw.len() {
                prop_assert!(read_row(b"key", &raw.slice(..len)).is_err(), "cut at {}", len);
            }
        }

        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            drop(read_row(b"key", &raw.into()));
        }
    }

    #[test]
    fn a_row_under_another_key_is_damaged_and_the_error_names_the_key() {
        let row = StoredRow {
            value: Bytes::from_static(b"v"),
            version: Seq::new(1),
            expires: None,
        };
        let error = read_row(b"b\xff", &encoded(b"a", &row)).expect_err("the key differs");
        assert!(error.to_string().contains("key \"b\\xff\""), "{error}");
    }

    #[test]
    fn the_value_is_not_copied() {
        let row = StoredRow {
            value: Bytes::from(vec![7; 100]),
            version: Seq::new(1),
            expires: None,
        };
        let raw = encoded(b"k", &row);
        let value = read_row(b"k", &raw).expect("it is whole").value;
        assert_eq!(value.as_ptr(), raw[HEAD_BYTES..].as_ptr());
    }
}
