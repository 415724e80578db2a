//! `control.proto`: subscriptions, pushes and reports.

use std::time::Duration;

use super::config::ParsedDelta;
use super::{ParseError, bounded, counted, each, id_bytes};
use crate::config::{ConfigPosition, Delta, Role};
use crate::ids::{ClusterId, DiskId, Epoch, Incarnation, NodeId, Seq, ShardId};
use crate::report::{
    ItemRefused, LinkReport, MasterFrame, NodeFrame, NodeOpen, PushOutcome, ReplicaReport, Report,
    Standing,
};
use crate::{limits, wire};

impl From<NodeOpen> for wire::NodeOpen {
    fn from(open: NodeOpen) -> Self {
        Self {
            cluster_id: id_bytes(open.cluster.to_bytes()),
            node_id: open.node.get(),
            disk_id: id_bytes(open.disk.to_bytes()),
            incarnation: open.incarnation.get(),
            addr: open.addr,
            http: open.http,
            zone: open.zone,
            position: Some(open.position.into()),
            version: open.version,
        }
    }
}

impl TryFrom<wire::NodeOpen> for NodeOpen {
    type Error = ParseError;

    fn try_from(from: wire::NodeOpen) -> Result<Self, ParseError> {
        if from.node_id == 0 {
            return Err(ParseError::Missing("node_id"));
        }
        Ok(Self {
            cluster: ClusterId::from_slice(&from.cluster_id)?,
            node: NodeId::new(from.node_id),
            disk: DiskId::from_slice(&from.disk_id)?,
            incarnation: Incarnation::new(from.incarnation),
            addr: bounded("addr", from.addr, limits::ADDR_BYTES_MAX)?,
            http: bounded("http", from.http, limits::ADDR_BYTES_MAX)?,
            zone: bounded("zone", from.zone, limits::ZONE_BYTES_MAX)?,
            position: position("position", from.position)?,
            version: bounded("version", from.version, limits::ZONE_BYTES_MAX)?,
        })
    }
}

fn position(
    field: &'static str,
    from: Option<wire::ConfigPosition>,
) -> Result<ConfigPosition, ParseError> {
    Ok(from.ok_or(ParseError::Missing(field))?.into())
}

const fn standing_to_wire(standing: Standing) -> wire::Standing {
    match standing {
        Standing::Member(Role::Head) => wire::Standing::Head,
        Standing::Member(Role::Middle) => wire::Standing::Middle,
        Standing::Member(Role::Tail) => wire::Standing::Tail,
        Standing::Member(Role::Solo) => wire::Standing::Solo,
        Standing::Learner => wire::Standing::Learner,
        Standing::Outside => wire::Standing::Outside,
    }
}

fn standing(from: i32) -> Result<Standing, ParseError> {
    Ok(match wire::Standing::try_from(from) {
        Ok(wire::Standing::Head) => Standing::Member(Role::Head),
        Ok(wire::Standing::Middle) => Standing::Member(Role::Middle),
        Ok(wire::Standing::Tail) => Standing::Member(Role::Tail),
        Ok(wire::Standing::Solo) => Standing::Member(Role::Solo),
        Ok(wire::Standing::Learner) => Standing::Learner,
        Ok(wire::Standing::Outside) => Standing::Outside,
        Ok(wire::Standing::Unspecified) | Err(_) => return Err(ParseError::Missing("standing")),
    })
}

impl From<ReplicaReport> for wire::ReplicaReport {
    fn from(replica: ReplicaReport) -> Self {
        Self {
            shard_id: replica.shard.get(),
            epoch: replica.epoch.get(),
            joined_epoch: replica.joined_epoch.get(),
            standing: standing_to_wire(replica.standing).into(),
            synced: replica.synced,
            in_sync: replica.in_sync,
            last_seq: replica.last.get(),
            durable_seq: replica.durable.get(),
            commit_seq: replica.commit.get(),
            applied_seq: replica.applied.get(),
            fenced: replica.fenced,
            why: replica.why,
            serving_reads: replica.serving_reads,
        }
    }
}

impl TryFrom<wire::ReplicaReport> for ReplicaReport {
    type Error = ParseError;

    fn try_from(from: wire::ReplicaReport) -> Result<Self, ParseError> {
        Ok(Self {
            shard: ShardId::new(from.shard_id),
            epoch: Epoch::new(from.epoch),
            joined_epoch: Epoch::new(from.joined_epoch),
            standing: standing(from.standing)?,
            synced: from.synced,
            in_sync: from.in_sync,
            last: Seq::new(from.last_seq),
            durable: Seq::new(from.durable_seq),
            commit: Seq::new(from.commit_seq),
            applied: Seq::new(from.applied_seq),
            fenced: from.fenced,
            serving_reads: from.serving_reads,
            why: bounded("why", from.why, limits::REFUSAL_MESSAGE_BYTES_MAX)?,
        })
    }
}

impl From<LinkReport> for wire::LinkReport {
    fn from(link: LinkReport) -> Self {
        let silent = link.silent.map_or(0, |s| millis(s).max(1));
        Self {
            node_id: link.fellow.get(),
            alive: link.alive,
            silent_ms: silent,
        }
    }
}

impl TryFrom<wire::LinkReport> for LinkReport {
    type Error = ParseError;

    fn try_from(from: wire::LinkReport) -> Result<Self, ParseError> {
        Ok(Self {
            fellow: NodeId::new(from.node_id),
            alive: from.alive,
            silent: (from.silent_ms > 0).then(|| Duration::from_millis(from.silent_ms)),
        })
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        Self {
            no: report.no,
            acked: Some(report.acked.into()),
            effective: Some(report.effective.into()),
            config_source: report.config_source,
            replicas: report.replicas.into_iter().map(Into::into).collect(),
            links: report.links.into_iter().map(Into::into).collect(),
            read_only: report.read_only,
            uptime_ms: millis(report.uptime),
            alarms: report
                .alarms
                .into_iter()
                .map(|(name, detail)| wire::ReportedAlarm { name, detail })
                .collect(),
        }
    }
}

impl TryFrom<wire::Report> for Report {
    type Error = ParseError;

    fn try_from(from: wire::Report) -> Result<Self, ParseError> {
        let alarms = counted("alarms", from.alarms, limits::REPORT_ALARMS_MAX)?;
        Ok(Self {
            no: from.no,
            acked: position("acked", from.acked)?,
            effective: position("effective", from.effective)?,
            config_source: bounded("config_source", from.config_source, limits::ZONE_BYTES_MAX)?,
            replicas: each(counted("replicas", from.replicas, limits::SHARDS_MAX)?)?,
            links: each(counted("links", from.links, limits::NODES_MAX)?)?,
            read_only: from.read_only,
            uptime: Duration::from_millis(from.uptime_ms),
            alarms: alarms
                .into_iter()
                .map(|alarm| {
                    let name = bounded("name", alarm.name, limits::ZONE_BYTES_MAX)?;
                    let max = limits::REFUSAL_MESSAGE_BYTES_MAX;
                    Ok((name, bounded("detail", alarm.detail, max)?))
                })
                .collect::<Result<_, ParseError>>()?,
        })
    }
}

impl From<PushOutcome> for wire::PushOutcome {
    fn from(outcome: PushOutcome) -> Self {
        let item = |refused: ItemRefused| wire::ItemRefused {
            index: u32::try_from(refused.index).unwrap_or(u32::MAX),
            reason: refused.reason,
        };
        Self {
            to: Some(outcome.to.into()),
            refused: outcome.refused.into_iter().map(item).collect(),
        }
    }
}

impl TryFrom<wire::PushOutcome> for PushOutcome {
    type Error = ParseError;

    fn try_from(from: wire::PushOutcome) -> Result<Self, ParseError> {
        let refused = counted("refused", from.refused, limits::DELTA_ITEMS_MAX)?;
        Ok(Self {
            to: position("to", from.to)?,
            refused: refused
                .into_iter()
                .map(|item| {
                    let max = limits::REFUSAL_MESSAGE_BYTES_MAX;
                    Ok(ItemRefused {
                        index: usize::try_from(item.index).unwrap_or(usize::MAX),
                        reason: bounded("reason", item.reason, max)?,
                    })
                })
                .collect::<Result<_, ParseError>>()?,
        })
    }
}

impl From<NodeFrame> for wire::NodeFrame {
    fn from(frame: NodeFrame) -> Self {
        use wire::node_frame::Frame;
        let frame = match frame {
            NodeFrame::Open(open) => Frame::Open(open.into()),
            NodeFrame::Report(report) => Frame::Report(report.into()),
            NodeFrame::Outcome(outcome) => Frame::Outcome(outcome.into()),
        };
        Self { frame: Some(frame) }
    }
}

impl TryFrom<wire::NodeFrame> for NodeFrame {
    type Error = ParseError;

    fn try_from(from: wire::NodeFrame) -> Result<Self, ParseError> {
        use wire::node_frame::Frame;
        Ok(match from.frame.ok_or(ParseError::Missing("frame"))? {
            Frame::Open(open) => Self::Open(open.try_into()?),
            Frame::Report(report) => Self::Report(report.try_into()?),
            Frame::Outcome(outcome) => Self::Outcome(outcome.try_into()?),
        })
    }
}

impl From<MasterFrame> for wire::MasterFrame {
    fn from(frame: MasterFrame) -> Self {
        use wire::master_frame::Frame;
        let frame = match frame {
            MasterFrame::Push(delta) => Frame::Push(wire::Delta::from(&delta)),
            MasterFrame::ReadSnapshot(newest) => Frame::ReadSnapshot(wire::ReadSnapshot {
                newest: Some(newest.into()),
            }),
            MasterFrame::Alive => Frame::Alive(wire::Alive {}),
        };
        Self { frame: Some(frame) }
    }
}

/// What came down a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// A delta, its items judged one by one.
    Delta(ParsedDelta),
    /// Read the snapshot store.
    ReadSnapshot(ConfigPosition),
    /// Nothing to push.
    Alive,
}

impl TryFrom<wire::MasterFrame> for Pushed {
    type Error = ParseError;

    fn try_from(from: wire::MasterFrame) -> Result<Self, ParseError> {
        use wire::master_frame::Frame;
        Ok(match from.frame.ok_or(ParseError::Missing("frame"))? {
            Frame::Push(delta) => Self::Delta(delta.try_into()?),
            Frame::ReadSnapshot(read) => Self::ReadSnapshot(position("newest", read.newest)?),
            Frame::Alive(_) => Self::Alive,
        })
    }
}

impl From<Delta> for MasterFrame {
    fn from(delta: Delta) -> Self {
        Self::Push(delta)
    }
}
