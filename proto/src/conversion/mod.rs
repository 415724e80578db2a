//! The one place that knows both the wire types and ours: it parses, bounds and refuses.
//!
//! Bytes from outside are only ever looked at here. Nothing in it panics, and what
//! it lets through is well formed and within `limits`.

pub mod chain;
pub mod config;
pub mod control;
pub mod kv;
pub mod pipe;

use bytes::Bytes;

use crate::config::ConfigError;
use crate::ids::IdError;
use crate::limits;

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// A part that every such message has is missing, or of a kind that this version does not know.
    #[error("`{0}` is missing or unknown: does the sender run a newer version?")]
    Missing(&'static str),
    /// Too many bytes.
    #[error("`{field}` takes {bytes} bytes; at most {max} are allowed")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// Too many elements.
    #[error("`{field}` has {count} elements; at most {max} are allowed")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many it has.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A value that makes no sense in its place.
    #[error("`{field}` is refused: {why}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// An id of the wrong length.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A configuration that no master would make.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

fn bounded<T: AsRef<[u8]>>(field: &'static str, part: T, max: usize) -> Result<T, ParseError> {
    let bytes = part.as_ref().len();
    if bytes > max {
        return Err(ParseError::TooLong { field, bytes, max });
    }
    Ok(part)
}

fn counted<T>(field: &'static str, parts: Vec<T>, max: usize) -> Result<Vec<T>, ParseError> {
    let count = parts.len();
    if count > max {
        return Err(ParseError::TooMany { field, count, max });
    }
    Ok(parts)
}

fn each<W, D>(parts: Vec<W>) -> Result<Vec<D>, ParseError>
where
    D: TryFrom<W, Error = ParseError>,
{
    parts.into_iter().map(D::try_from).collect()
}

fn key(key: Bytes) -> Result<Bytes, ParseError> {
    if key.is_empty() {
        return Err(ParseError::Invalid {
            field: "key",
            why: "it is empty".into(),
        });
    }
    bounded("key", key, limits::KEY_BYTES_MAX)
}

fn value(field: &'static str, value: Bytes) -> Result<Bytes, ParseError> {
    bounded(field, value, limits::VALUE_BYTES_MAX)
}

fn id_bytes(id: [u8; 16]) -> Bytes {
    Bytes::copy_from_slice(&id)
}
