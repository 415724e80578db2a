//! Snapshot objects: the whole cluster state, checksummed, under a name that orders it (DESIGN §4.2).
//!
//! The master writes them, nodes read them; whoever reads takes the highest
//! that is whole and of its own cluster. Absent never means "delete".

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::config::{ClusterConfig, ConfigPosition};
use crate::conversion::ParseError;
use crate::ids::{ClusterId, ConfigVersion, Generation};
use crate::{limits, wire};

/// What a snapshot begins with: a name and a format version.
const MAGIC: &[u8; 8] = b"CATSNAP\x01";
const PREFIX: &str = "snapshot-";

/// Why bytes are no snapshot that may be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a snapshot, or of another format.
    #[error("it is no snapshot of this format")]
    Foreign,
    /// Cut short, or flipped.
    #[error("its checksum does not match: it is damaged or only partly written")]
    Damaged,
    /// Of another cluster.
    #[error("it belongs to cluster {0}, not to this one")]
    OtherCluster(ClusterId),
    /// Its contents make no sense.
    #[error("its contents are refused: {0}")]
    Contents(#[from] ParseError),
}

/// The name of the object that holds the state at `position`: names sort as positions do.
#[must_use]
pub fn name(position: ConfigPosition) -> String {
    let ConfigPosition {
        generation,
        version,
    } = position;
    format!("{PREFIX}{:020}-{:020}", generation.get(), version.get())
}

/// The position in an object's name; `None` for any other object.
#[must_use]
pub fn position(name: &str) -> Option<ConfigPosition> {
    let (generation, version) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let number = |text: &str| -> Option<u64> {
        (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    Some(ConfigPosition {
        generation: Generation::new(number(generation)?),
        version: ConfigVersion::new(number(version)?),
    })
}

/// The bytes of a snapshot.
#[must_use]
pub fn encode(config: &ClusterConfig) -> Bytes {
    let body = wire::ClusterConfig::from(config);
    let mut out = BytesMut::with_capacity(12 + body.encoded_len());
    out.put_slice(MAGIC);
    out.put_u32_le(0);
    // A BytesMut grows as needed; prost only fails for want of room.
    body.encode(&mut out).expect("a growing buffer has room");
    let crc = crc32fast::hash(&out[12..]);
    out[8..12].copy_from_slice(&crc.to_le_bytes());
    out.freeze()
}

/// Reads a snapshot, and refuses one that is damaged, or of another cluster than `cluster` (if that is known).
///
/// # Errors
/// [`SnapshotError`]; nothing may be done with such bytes.
pub fn decode(bytes: &Bytes, cluster: Option<ClusterId>) -> Result<ClusterConfig, SnapshotError> {
    if bytes.len() < 12 || &bytes[..8] != MAGIC {
        return Err(SnapshotError::Foreign);
    }
    if bytes.len() > limits::CONFIG_BYTES_MAX {
        return Err(SnapshotError::Damaged);
    }
    let crc = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if crc != crc32fast::hash(&bytes[12..]) {
        return Err(SnapshotError::Damaged);
    }
    let body =
        wire::ClusterConfig::decode(bytes.slice(12..)).map_err(|_| SnapshotError::Damaged)?;
    let config = ClusterConfig::try_from(body)?;
    match cluster {
        Some(ours) if ours != config.cluster => Err(SnapshotError::OtherCluster(config.cluster)),
        _ => Ok(config),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_round_trips_and_every_flipped_byte_is_refused() {
        let mut config = ClusterConfig::empty(ClusterId::new(7));
        config.position.version = ConfigVersion::new(3);
        let bytes = encode(&config);
        assert_eq!(decode(&bytes, Some(config.cluster)), Ok(config.clone()));
        let other = decode(&bytes, Some(ClusterId::new(8)));
        assert_eq!(other, Err(SnapshotError::OtherCluster(config.cluster)));
        for at in 0..bytes.len() {
            let mut bad = bytes.to_vec();
            bad[at] ^= 0x10;
            assert!(decode(&bad.into(), None).is_err(), "byte {at}");
            assert!(decode(&bytes.slice(..at), None).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn names_sort_as_positions_do() {
        let at = |generation, version| ConfigPosition {
            generation: Generation::new(generation),
            version: ConfigVersion::new(version),
        };
        assert!(name(at(1, 99)) < name(at(1, 100)) && name(at(1, 100)) < name(at(2, 1)));
        assert_eq!(position(&name(at(2, 17))), Some(at(2, 17)));
        for odd in [
            "snapshot-1-2",
            "snapshot-",
            "other",
            "snapshot-+0000000000000000001-1",
        ] {
            assert_eq!(position(odd), None, "{odd}");
        }
    }
}
