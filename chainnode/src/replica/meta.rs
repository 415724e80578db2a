//! What a replica must remember over a restart besides its log and state.
//!
//! It lives in the log, beside the replica's data, so that a lost or older
//! config file can never take a replica back (DESIGN §3.1).

use bytes::{Buf, BufMut, Bytes, BytesMut};
use catena_proto::config::{ChainConfig, ChainPhase, KeyRange, Member};
use catena_proto::ids::{DiskId, Epoch, NodeId, ShardId};
use catena_proto::limits;

/// A replica's durable metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The newest accepted chain config (rule C1).
    pub chain: ChainConfig,
    /// The stint for which the replica is synced: disk and joined epoch (rule S1).
    pub synced_for: Option<(DiskId, Epoch)>,
    /// The newest epoch whose debts are all paid (rules R3, R4).
    pub paid: Epoch,
    /// The alarm that stopped it (rules C2, L2).
    pub fenced: Option<String>,
    /// The recovery that log and state descend from (rule M3): if the chain's is another one, they count for nothing.
    pub descends: Epoch,
}

/// Why bytes are not metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a replica's metadata is {0}: the log is damaged, or of a newer build")]
pub struct MetaError(&'static str);

const FORMAT: u8 = 2;
const EVIDENCE_BYTES_MAX: usize = 4096;

impl Meta {
    /// Encodes it for the log; the log's frame carries the checksum.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(FORMAT);
        let chain = &self.chain;
        out.put_u64_le(chain.shard.get());
        out.put_u64_le(chain.epoch.get());
        out.put_u8(match chain.phase {
            ChainPhase::Creating => 1,
            ChainPhase::Serving => 2,
        });
        out.put_u64_le(chain.recovered.get());
        put_bytes(&mut out, &chain.range.start);
        out.put_u8(u8::from(chain.range.end.is_some()));
        if let Some(end) = &chain.range.end {
            put_bytes(&mut out, end);
        }
        out.put_u32_le(chain.members.len() as u32);
        for member in &chain.members {
            out.put_u64_le(member.node.get());
            out.put_u128_le(member.disk.get());
            out.put_u64_le(member.joined_epoch.get());
        }
        out.put_u8(u8::from(self.synced_for.is_some()));
        if let Some((disk, joined)) = self.synced_for {
            out.put_u128_le(disk.get());
            out.put_u64_le(joined.get());
        }
        out.put_u64_le(self.paid.get());
        out.put_u64_le(self.descends.get());
        out.put_u8(u8::from(self.fenced.is_some()));
        if let Some(evidence) = &self.fenced {
            let end = evidence.floor_char_boundary(EVIDENCE_BYTES_MAX);
            put_bytes(&mut out, &evidence.as_bytes()[..end]);
        }
        out.freeze()
    }

    /// Reads what [`Meta::encode`] wrote.
    ///
    /// # Errors
    /// Bytes that are cut short, followed by others, or of an unknown format.
    pub fn decode(mut from: Bytes) -> Result<Self, MetaError> {
        let from = &mut from;
        if from.try_get_u8().map_err(|_| CUT)? != FORMAT {
            return Err(MetaError("of an unknown format"));
        }
        let shard = ShardId::new(get_u64(from)?);
        let epoch = Epoch::new(get_u64(from)?);
        let phase = match from.try_get_u8().map_err(|_| CUT)? {
            1 => ChainPhase::Creating,
            2 => ChainPhase::Serving,
            _ => return Err(MetaError("of an unknown phase")),
        };
        let recovered = Epoch::new(get_u64(from)?);
        let start = get_bytes(from, limits::KEY_BYTES_MAX)?;
        let end = if get_bool(from)? {
            Some(get_bytes(from, limits::KEY_BYTES_MAX)?)
        } else {
            None
        };
        let count = from.try_get_u32_le().map_err(|_| CUT)? as usize;
        if count > limits::CHAIN_MEMBERS_MAX {
            return Err(MetaError("naming too many members"));
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            members.push(Member {
                node: NodeId::new(get_u64(from)?),
                disk: DiskId::new(from.try_get_u128_le().map_err(|_| CUT)?),
                joined_epoch: Epoch::new(get_u64(from)?),
            });
        }
        let synced_for = if get_bool(from)? {
            let disk = DiskId::new(from.try_get_u128_le().map_err(|_| CUT)?);
            Some((disk, Epoch::new(get_u64(from)?)))
        } else {
            None
        };
        let paid = Epoch::new(get_u64(from)?);
        let descends = Epoch::new(get_u64(from)?);
        let fenced = if get_bool(from)? {
            let text = get_bytes(from, EVIDENCE_BYTES_MAX)?;
            Some(String::from_utf8(text.to_vec()).map_err(|_| MetaError("not text"))?)
        } else {
            None
        };
        if from.has_remaining() {
            return Err(MetaError("followed by stray bytes"));
        }
        let chain = ChainConfig {
            shard,
            epoch,
            range: KeyRange { start, end },
            phase,
            recovered,
            members,
        };
        chain
            .check()
            .map_err(|_| MetaError("naming an impossible chain"))?;
        Ok(Self {
            chain,
            synced_for,
            paid,
            fenced,
            descends,
        })
    }
}

const CUT: MetaError = MetaError("cut short");

fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u32_le(bytes.len() as u32);
    out.extend_from_slice(bytes);
}

fn get_u64(from: &mut Bytes) -> Result<u64, MetaError> {
    from.try_get_u64_le().map_err(|_| CUT)
}

fn get_bool(from: &mut Bytes) -> Result<bool, MetaError> {
    match from.try_get_u8().map_err(|_| CUT)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(MetaError("of an unknown flag")),
    }
}

fn get_bytes(from: &mut Bytes, max: usize) -> Result<Bytes, MetaError> {
    let len = from.try_get_u32_le().map_err(|_| CUT)? as usize;
    if len > max || len > from.len() {
        return Err(CUT);
    }
    Ok(from.split_to(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_round_trips_and_refuses_every_truncation() {
        let member = Member {
            node: NodeId::new(1),
            disk: DiskId::new(7),
            joined_epoch: Epoch::new(2),
        };
        let meta = Meta {
            chain: ChainConfig {
                shard: ShardId::new(4),
                epoch: Epoch::new(5),
                range: KeyRange {
                    start: Bytes::from_static(b"a"),
                    end: Some("b".into()),
                },
                phase: ChainPhase::Serving,
                recovered: Epoch::new(3),
                members: vec![member],
            },
            synced_for: Some((DiskId::new(7), Epoch::new(2))),
            paid: Epoch::new(5),
            fenced: Some("why".into()),
            descends: Epoch::new(3),
        };
        let bytes = meta.encode();
        assert_eq!(Meta::decode(bytes.clone()), Ok(meta));
        for len in 0..bytes.len() {
            assert!(Meta::decode(bytes.slice(..len)).is_err(), "{len} bytes");
        }
    }
}
