//! The lines of the picture: the very fields that scripts count on, and the rows that people read.

use catena_proto::wire;
use serde::Serialize;

use crate::output::JsonBytes;

/// The whole cluster.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StatusLine {
    pub(crate) cluster_id: String,
    pub(crate) config_version: u64,
    pub(crate) control_plane: &'static str,
    pub(crate) masters: Vec<MasterLine>,
    pub(crate) nodes: Vec<NodeLine>,
    pub(crate) chains: Vec<ChainLine>,
    pub(crate) alarms: Vec<AlarmLine>,
    /// Controllers that an operator has switched off.
    pub(crate) paused_controllers: Vec<String>,
}

/// One master.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MasterLine {
    pub(crate) id: u64,
    pub(crate) addr: String,
    /// `leader`, `follower`, `candidate`, `learner`; `down` when it does not answer.
    pub(crate) role: String,
    pub(crate) term: Option<u64>,
    pub(crate) applied: Option<u64>,
    pub(crate) why: String,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct NodeLine {
    pub(crate) id: u64,
    pub(crate) addr: String,
    pub(crate) incarnation: Option<u64>,
    /// The leader's view; without one, `up` if the node answers us, else `down`.
    pub(crate) state: String,
    pub(crate) zone: String,
    /// 0 while no leader tells what it sent.
    pub(crate) sent_version: u64,
    pub(crate) acked_version: Option<u64>,
    /// Absent while a replica that the config names is not yet in its epoch.
    pub(crate) effective_version: Option<u64>,
    pub(crate) config_source: Option<String>,
    pub(crate) why: String,
    /// Since the leader's last report from it.
    #[serde(skip)]
    pub(crate) report_age_ms: Option<u64>,
    /// The last config item that it refused, and the reason.
    #[serde(skip)]
    pub(crate) refusal: String,
}

/// One chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ChainLine {
    pub(crate) shard: u64,
    pub(crate) start: JsonBytes,
    pub(crate) end: Option<JsonBytes>,
    pub(crate) epoch: u64,
    pub(crate) state: &'static str,
    pub(crate) members: Vec<MemberLine>,
    pub(crate) learners: Vec<LearnerLine>,
    pub(crate) why: String,
    #[serde(skip)]
    pub(crate) range: String,
}

/// One member of a chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MemberLine {
    pub(crate) node: u64,
    pub(crate) role: &'static str,
    pub(crate) in_sync: bool,
    pub(crate) last_seq: Option<u64>,
    pub(crate) commit_seq: Option<u64>,
    #[serde(skip)]
    pub(crate) details: Option<wire::ReplicaStatus>,
}

/// One learner of a chain.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LearnerLine {
    pub(crate) node: u64,
    /// 0 to 1; absent while nobody can tell.
    pub(crate) progress: Option<f64>,
}

/// Something that a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct AlarmLine {
    pub(crate) name: String,
    pub(crate) since: String,
    pub(crate) detail: String,
}

/// A number, or a dash for one that nobody tells.
pub(crate) fn number(n: Option<u64>) -> String {
    n.map_or_else(|| "-".into(), |n| n.to_string())
}

impl StatusLine {
    /// The first line of the screen.
    pub(crate) fn headline(&self) -> String {
        let up = self.nodes.iter().filter(|n| n.state == "up").count();
        let healthy = self.chains.iter().filter(|c| c.state == "healthy").count();
        let away = self.masters.iter().filter(|m| m.role == "down").count();
        let masters = match (self.masters.len(), away) {
            (0, _) => "no masters".into(),
            (all, away) => format!("{} of {all} masters answer", all - away),
        };
        format!(
            "cluster {}   config version {}   control plane: {} ({masters})   nodes {up}/{} up   chains {healthy}/{} healthy",
            self.cluster_id,
            self.config_version,
            self.control_plane,
            self.nodes.len(),
            self.chains.len(),
        )
    }

    /// What a control plane that is not healthy means, in a line; empty when it is.
    pub(crate) fn control_plane_note(&self) -> &'static str {
        match self.control_plane {
            "healthy" => "",
            "degraded" => "a master is away: changes go on, with less to spare",
            _ if self.masters.is_empty() => {
                "this cluster has no masters: reads and writes go on, nothing replaces a node that stays away"
            }
            _ => {
                "the control plane is unreachable: reads and writes go on, nothing changes hands until a majority of masters is back"
            }
        }
    }
}

impl MasterLine {
    /// Headings of [`MasterLine::row`].
    pub(crate) const HEADS: [&'static str; 6] =
        ["master", "address", "role", "term", "applied", "why"];

    /// The master as a row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.addr.clone(),
            self.role.clone(),
            number(self.term),
            number(self.applied),
            self.why.clone(),
        ]
    }
}

impl NodeLine {
    /// Headings of [`NodeLine::row`].
    pub(crate) const HEADS: [&'static str; 8] = [
        "node",
        "address",
        "state",
        "sent",
        "acked",
        "effective",
        "source",
        "why",
    ];

    /// The node as a row of a table.
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.addr.clone(),
            self.state.clone(),
            number(Some(self.sent_version).filter(|sent| *sent > 0)),
            number(self.acked_version),
            number(self.effective_version),
            self.config_source.clone().unwrap_or_else(|| "-".into()),
            self.why.clone(),
        ]
    }
}

impl ChainLine {
    /// Headings of [`ChainLine::row`].
    pub(crate) const HEADS: [&'static str; 7] = [
        "shard",
        "keys",
        "epoch",
        "state",
        "members, head first",
        "learners",
        "why",
    ];

    /// The chain as a row of a table; a member that is not in sync carries an exclamation mark.
    pub(crate) fn row(&self) -> Vec<String> {
        let members = self.members.iter().map(|member| {
            let mark = if member.in_sync { "" } else { "!" };
            format!("{}{mark}@{}", member.node, number(member.commit_seq))
        });
        let learners = self.learners.iter().map(LearnerLine::text);
        vec![
            self.shard.to_string(),
            self.range.clone(),
            self.epoch.to_string(),
            self.state.into(),
            members.collect::<Vec<_>>().join(" > "),
            learners.collect::<Vec<_>>().join(" "),
            self.why.clone(),
        ]
    }
}

impl LearnerLine {
    /// The node, and how far it has come.
    pub(crate) fn text(&self) -> String {
        match self.progress {
            Some(part) => format!("{} ({:.0} %)", self.node, part * 100.0),
            None => self.node.to_string(),
        }
    }
}
