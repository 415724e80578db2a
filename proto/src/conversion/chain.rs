//! `chain.proto`: what nodes say to each other.

use bytes::{Bytes, BytesMut};

use super::{ParseError, bounded, counted, id_bytes};
use crate::ids::{
    ClusterId, DiskId, Epoch, Incarnation, LinkId, LogTime, NodeId, Origin, RequestNo, RoundNo,
    Seq, SessionId, ShardId, SlotNo,
};
use crate::message::{
    Body, CommitUp, Forward, Hello, Message, OriginSpan, PullPage, Round, SessionState, SlotState,
    StatePage, StateRow, Welcome,
};
use crate::record::{self, Group};
use crate::{limits, wire};

/// Who opens a stream, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkOpen {
    /// The sender's cluster.
    pub cluster: ClusterId,
    /// The sender.
    pub node: NodeId,
    /// The sender's disk.
    pub disk: DiskId,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The node that the sender means to reach.
    pub to: NodeId,
}

impl From<LinkOpen> for wire::LinkOpen {
    fn from(open: LinkOpen) -> Self {
        Self {
            cluster_id: id_bytes(open.cluster.to_bytes()),
            node_id: open.node.get(),
            disk_id: id_bytes(open.disk.to_bytes()),
            incarnation: open.incarnation.get(),
            to_node_id: open.to.get(),
        }
    }
}

impl TryFrom<wire::LinkOpen> for LinkOpen {
    type Error = ParseError;

    fn try_from(from: wire::LinkOpen) -> Result<Self, ParseError> {
        Ok(Self {
            cluster: ClusterId::from_slice(&from.cluster_id)?,
            node: NodeId::new(from.node_id),
            disk: DiskId::from_slice(&from.disk_id)?,
            incarnation: Incarnation::new(from.incarnation),
            to: NodeId::new(from.to_node_id),
        })
    }
}

impl From<Message> for wire::ShardMessage {
    fn from(message: Message) -> Self {
        use wire::shard_message::Body as Wire;
        let shard = message.shard;
        let body = match message.body {
            Body::Hello(hello) => Wire::Hello(hello.into()),
            Body::Welcome(welcome) => Wire::Welcome(wire::Welcome {
                link: Some(link_ref(welcome.link)),
                incarnation: welcome.incarnation.get(),
                disk_id: id_bytes(welcome.disk.to_bytes()),
                resume_after_seq: welcome.resume_after.get(),
                scan_wanted: welcome.scan_wanted,
            }),
            Body::Forward(forward) => Wire::Forward(wire::Forward {
                link: Some(link_ref(forward.link)),
                groups: forward
                    .groups
                    .into_iter()
                    .map(|g| group_out(shard, g))
                    .collect(),
                watermark_seq: forward.watermark.get(),
                commit_seq: forward.commit.get(),
                round: forward.round.map(wire::Round::from),
                completed: forward.completed.map(wire::Round::from),
            }),
            Body::Commit(commit) => Wire::Commit(wire::Commit {
                link: Some(link_ref(commit.link)),
                commit_seq: commit.commit.get(),
                received_seq: commit.received.get(),
                durable_seq: commit.durable.get(),
                round: commit.round.map(wire::Round::from),
            }),
            Body::Announce { reply_wanted } => Wire::Announce(wire::Announce { reply_wanted }),
            Body::Refuse(chain) => Wire::Refuse(wire::Refuse {
                chain: Some((&*chain).into()),
            }),
            Body::Follow { disk, incarnation } => Wire::Follow(wire::Follow {
                disk_id: id_bytes(disk.to_bytes()),
                incarnation: incarnation.get(),
            }),
            Body::PullPage(pull) => Wire::PullPage(wire::PullPage {
                link: Some(link_ref(pull.link)),
                page_no: pull.page_no,
                first: pull.after.is_none(),
                after_key: pull.after.unwrap_or_default(),
            }),
            Body::StatePage(page) => Wire::StatePage(page_out(*page)),
            Body::Unlink { link } => Wire::Unlink(wire::Unlink {
                link: Some(link_ref(link)),
            }),
            Body::Fork { link, at, evidence } => Wire::Fork(wire::Fork {
                link: Some(link_ref(link)),
                at_seq: at.get(),
                evidence,
            }),
        };
        Self {
            shard_id: shard.get(),
            epoch: message.epoch.get(),
            body: Some(body),
        }
    }
}

impl TryFrom<wire::ShardMessage> for Message {
    type Error = ParseError;

    fn try_from(from: wire::ShardMessage) -> Result<Self, ParseError> {
        use wire::shard_message::Body as Wire;
        let shard = ShardId::new(from.shard_id);
        let body = match from.body.ok_or(ParseError::Missing("body"))? {
            Wire::Hello(hello) => Body::Hello(hello.try_into()?),
            Wire::Welcome(welcome) => Body::Welcome(Welcome {
                link: link(welcome.link)?,
                incarnation: Incarnation::new(welcome.incarnation),
                disk: DiskId::from_slice(&welcome.disk_id)?,
                resume_after: Seq::new(welcome.resume_after_seq),
                scan_wanted: welcome.scan_wanted,
            }),
            Wire::Forward(forward) => Body::Forward(Forward {
                link: link(forward.link)?,
                groups: forward
                    .groups
                    .into_iter()
                    .map(|g| group(shard, g))
                    .collect::<Result<_, _>>()?,
                watermark: Seq::new(forward.watermark_seq),
                commit: Seq::new(forward.commit_seq),
                round: forward.round.map(Round::from),
                completed: forward.completed.map(Round::from),
            }),
            Wire::Commit(commit) => Body::Commit(CommitUp {
                link: link(commit.link)?,
                commit: Seq::new(commit.commit_seq),
                received: Seq::new(commit.received_seq),
                durable: Seq::new(commit.durable_seq),
                round: commit.round.map(Round::from),
            }),
            Wire::Announce(announce) => Body::Announce {
                reply_wanted: announce.reply_wanted,
            },
            Wire::Refuse(refuse) => {
                let chain = refuse.chain.ok_or(ParseError::Missing("chain"))?;
                Body::Refuse(Box::new(chain.try_into()?))
            }
            Wire::Follow(follow) => Body::Follow {
                disk: DiskId::from_slice(&follow.disk_id)?,
                incarnation: Incarnation::new(follow.incarnation),
            },
            Wire::PullPage(pull) => Body::PullPage(PullPage {
                link: link(pull.link)?,
                page_no: pull.page_no,
                after: if pull.first {
                    None
                } else {
                    Some(bounded("after_key", pull.after_key, limits::KEY_BYTES_MAX)?)
                },
            }),
            Wire::StatePage(page) => Body::StatePage(Box::new(page_in(page)?)),
            Wire::Unlink(unlink) => Body::Unlink {
                link: link(unlink.link)?,
            },
            Wire::Fork(fork) => Body::Fork {
                link: link(fork.link)?,
                at: Seq::new(fork.at_seq),
                evidence: bounded("evidence", fork.evidence, EVIDENCE_BYTES_MAX)?,
            },
        };
        Ok(Self {
            shard,
            epoch: Epoch::new(from.epoch),
            body,
        })
    }
}

/// An alarm's evidence is a sentence or two.
const EVIDENCE_BYTES_MAX: usize = 4 << 10;
/// A log's origins: one span per change of head; more than this was never made.
const ORIGINS_MAX: usize = 1 << 20;

const fn link_ref(link: LinkId) -> wire::LinkRef {
    wire::LinkRef {
        incarnation: link.incarnation.get(),
        no: link.no,
    }
}

fn link(from: Option<wire::LinkRef>) -> Result<LinkId, ParseError> {
    let from = from.ok_or(ParseError::Missing("link"))?;
    Ok(LinkId {
        incarnation: Incarnation::new(from.incarnation),
        no: from.no,
    })
}

impl From<Round> for wire::Round {
    fn from(round: Round) -> Self {
        Self {
            incarnation: round.incarnation.get(),
            no: round.no.get(),
            lease_ms: round.lease_ms,
        }
    }
}

impl From<wire::Round> for Round {
    fn from(from: wire::Round) -> Self {
        Self {
            incarnation: Incarnation::new(from.incarnation),
            no: RoundNo::new(from.no),
            lease_ms: from.lease_ms,
        }
    }
}

impl From<Hello> for wire::Hello {
    fn from(hello: Hello) -> Self {
        let span = |s: OriginSpan| wire::OriginSpan {
            epoch: s.origin.epoch.get(),
            incarnation: s.origin.incarnation.get(),
            first_seq: s.first.get(),
        };
        Self {
            link: Some(link_ref(hello.link)),
            learner: hello.learner,
            from_disk_id: id_bytes(hello.from_disk.to_bytes()),
            to_disk_id: id_bytes(hello.to_disk.to_bytes()),
            retained_after_seq: hello.retained_after.get(),
            last_seq: hello.last.get(),
            commit_seq: hello.commit.get(),
            origins: hello.origins.into_iter().map(span).collect(),
        }
    }
}

impl TryFrom<wire::Hello> for Hello {
    type Error = ParseError;

    fn try_from(from: wire::Hello) -> Result<Self, ParseError> {
        let span = |s: wire::OriginSpan| OriginSpan {
            origin: origin(s.epoch, s.incarnation),
            first: Seq::new(s.first_seq),
        };
        let origins: Vec<OriginSpan> = counted("origins", from.origins, ORIGINS_MAX)?
            .into_iter()
            .map(span)
            .collect();
        if origins
            .windows(2)
            .any(|pair| pair[0].first >= pair[1].first)
        {
            return Err(ParseError::Invalid {
                field: "origins",
                why: "they are not in order".into(),
            });
        }
        Ok(Self {
            link: link(from.link)?,
            learner: from.learner,
            from_disk: DiskId::from_slice(&from.from_disk_id)?,
            to_disk: DiskId::from_slice(&from.to_disk_id)?,
            retained_after: Seq::new(from.retained_after_seq),
            last: Seq::new(from.last_seq),
            commit: Seq::new(from.commit_seq),
            origins,
        })
    }
}

const fn origin(epoch: u64, incarnation: u64) -> Origin {
    Origin {
        epoch: Epoch::new(epoch),
        incarnation: Incarnation::new(incarnation),
    }
}

fn group_out(shard: ShardId, group: Group) -> wire::Group {
    wire::Group {
        epoch: group.origin.epoch.get(),
        incarnation: group.origin.incarnation.get(),
        first_seq: group.first.get(),
        last_seq: group.last.get(),
        checksum: group.checksum(shard),
        records: group.records,
    }
}

fn group(shard: ShardId, from: wire::Group) -> Result<Group, ParseError> {
    let group = Group {
        origin: origin(from.epoch, from.incarnation),
        first: Seq::new(from.first_seq),
        last: Seq::new(from.last_seq),
        records: bounded("records", from.records, limits::GROUP_BYTES_MAX)?,
    };
    if group.checksum(shard) != from.checksum {
        return Err(ParseError::Invalid {
            field: "records",
            why: format!(
                "the group at seq {} does not match its checksum",
                group.first
            ),
        });
    }
    Ok(group)
}

fn page_out(page: StatePage) -> wire::StatePage {
    let mut out = wire::StatePage {
        link: Some(link_ref(page.link)),
        page_no: page.page_no,
        applied_seq: page.applied.get(),
        log_ms: page.log_time.get(),
        rows: page.rows.into_iter().map(row_out).collect(),
        last: page.last,
        sessions: page.sessions.into_iter().map(session_out).collect(),
        checksum: 0,
        applied_origin: Some(wire::Origin {
            epoch: page.applied_origin.epoch.get(),
            incarnation: page.applied_origin.incarnation.get(),
        }),
    };
    out.checksum = page_checksum(&out);
    out
}

fn page_in(from: wire::StatePage) -> Result<StatePage, ParseError> {
    if page_checksum(&from) != from.checksum {
        return Err(ParseError::Invalid {
            field: "checksum",
            why: format!("page {} of the state was damaged on its way", from.page_no),
        });
    }
    let applied_origin = from
        .applied_origin
        .ok_or(ParseError::Missing("applied_origin"))?;
    Ok(StatePage {
        link: link(from.link)?,
        page_no: from.page_no,
        applied: Seq::new(from.applied_seq),
        applied_origin: origin(applied_origin.epoch, applied_origin.incarnation),
        log_time: LogTime::new(from.log_ms),
        rows: counted("rows", from.rows, limits::SCAN_PAGE_ROWS_MAX)?
            .into_iter()
            .map(row_in)
            .collect::<Result<_, _>>()?,
        last: from.last,
        sessions: counted("sessions", from.sessions, limits::SESSIONS_PER_SHARD_MAX)?
            .into_iter()
            .map(session_in)
            .collect::<Result<_, _>>()?,
    })
}

/// Binds a page's rows and where they belong; fields that the receiver acts on are all in it.
fn page_checksum(page: &wire::StatePage) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    for part in [
        page.page_no,
        page.applied_seq,
        page.log_ms,
        u64::from(page.last),
    ] {
        crc.update(&part.to_le_bytes());
    }
    for row in &page.rows {
        crc.update(&(row.key.len() as u64).to_le_bytes());
        crc.update(&row.key);
        crc.update(&row.value);
        crc.update(&row.version.to_le_bytes());
        crc.update(&row.expires_log_ms.to_le_bytes());
    }
    for session in &page.sessions {
        crc.update(&session.session_id.to_le_bytes());
        for slot in &session.slots {
            crc.update(&slot.slot.to_le_bytes());
            crc.update(&slot.request_no.to_le_bytes());
            crc.update(&slot.seq.to_le_bytes());
            crc.update(&slot.outcome);
        }
    }
    crc.finalize()
}

fn row_out(row: StateRow) -> wire::StateRow {
    wire::StateRow {
        key: row.key,
        value: row.value,
        version: row.version.get(),
        expires_log_ms: row.expires.unwrap_or(LogTime::ZERO).get(),
    }
}

fn row_in(from: wire::StateRow) -> Result<StateRow, ParseError> {
    let expires = LogTime::new(from.expires_log_ms);
    Ok(StateRow {
        key: bounded("key", from.key, limits::KEY_BYTES_MAX)?,
        value: bounded("value", from.value, limits::VALUE_BYTES_MAX)?,
        version: Seq::new(from.version),
        expires: (expires != LogTime::ZERO).then_some(expires),
    })
}

fn session_out(session: SessionState) -> wire::SessionRow {
    let slot = |s: SlotState| {
        let mut outcome = BytesMut::new();
        record::encode_outcome(&s.outcome, &mut outcome);
        wire::SlotRow {
            slot: s.slot.get().into(),
            request_no: s.no.get(),
            seq: s.seq.get(),
            outcome: outcome.freeze(),
        }
    };
    wire::SessionRow {
        session_id: session.session.get(),
        used_log_ms: session.used.get(),
        slots: session.slots.into_iter().map(slot).collect(),
    }
}

fn session_in(from: wire::SessionRow) -> Result<SessionState, ParseError> {
    let slot = |s: wire::SlotRow| -> Result<SlotState, ParseError> {
        let invalid = |why: String| ParseError::Invalid {
            field: "slots",
            why,
        };
        let mut outcome: Bytes = bounded("outcome", s.outcome, limits::RESULT_BYTES_MAX)?;
        Ok(SlotState {
            slot: SlotNo::new(
                u16::try_from(s.slot).map_err(|_| invalid(format!("slot {}", s.slot)))?,
            ),
            no: RequestNo::new(s.request_no),
            seq: Seq::new(s.seq),
            outcome: record::decode_outcome(&mut outcome).map_err(|e| invalid(e.to_string()))?,
        })
    };
    let slots = counted("slots", from.slots, limits::SESSION_SLOTS_MAX.into())?;
    Ok(SessionState {
        session: SessionId::new(from.session_id),
        used: LogTime::new(from.used_log_ms),
        slots: slots.into_iter().map(slot).collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkId = LinkId {
        incarnation: Incarnation::new(5),
        no: 2,
    };

    fn forward() -> Message {
        let group = Group {
            origin: origin(3, 4),
            first: Seq::new(7),
            last: Seq::new(8),
            records: Bytes::from_static(b"records"),
        };
        let forward = Forward {
            link: LINK,
            groups: vec![group],
            watermark: Seq::new(6),
            commit: Seq::ZERO,
            round: Some(Round {
                incarnation: Incarnation::new(4),
                no: RoundNo::new(1),
                lease_ms: 500,
            }),
            completed: None,
        };
        Message {
            shard: ShardId::new(1),
            epoch: Epoch::new(3),
            body: Body::Forward(forward),
        }
    }

    #[test]
    fn a_forward_comes_back_unchanged_and_a_damaged_one_is_refused() {
        let message = forward();
        let wire = wire::ShardMessage::from(message.clone());
        assert_eq!(Message::try_from(wire.clone()), Ok(message));
        let mut moved = wire;
        // The same bytes under another shard do not match: the checksum binds where they belong.
        moved.shard_id = 2;
        assert!(Message::try_from(moved).is_err());
    }

    #[test]
    fn a_page_comes_back_unchanged_and_a_flipped_row_is_refused() {
        let page = StatePage {
            link: LINK,
            page_no: 0,
            applied: Seq::new(9),
            applied_origin: origin(3, 4),
            log_time: LogTime::new(77),
            rows: vec![StateRow {
                key: "k".into(),
                value: "v".into(),
                version: Seq::new(2),
                expires: None,
            }],
            last: true,
            sessions: vec![SessionState {
                session: SessionId::new(1),
                used: LogTime::new(3),
                slots: vec![SlotState {
                    slot: SlotNo::new(4),
                    no: RequestNo::new(5),
                    seq: Seq::new(6),
                    outcome: crate::op::Outcome::Written {
                        version: Seq::new(6),
                    },
                }],
            }],
        };
        let wire = page_out(page.clone());
        assert_eq!(page_in(wire.clone()), Ok(page));
        let mut flipped = wire;
        flipped.rows[0].value = "w".into();
        assert!(page_in(flipped).is_err());
    }
}
