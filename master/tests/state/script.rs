//! The small language of the scenarios and of the table: one command a line, and what comes of it in words.

use std::time::Duration;

use catena_master::state::{
    Applied, ChainStep, Change, Controller, Event, Evidence, Refused, Removal,
};
use catena_proto::config::{
    ChainConfig, ChainPhase, ConfigPosition, Delta, DeltaItem, Learner, Settings,
};
use catena_proto::ids::{
    ClusterId, ConfigVersion, DiskId, Epoch, Generation, Incarnation, NodeId, ShardId,
};

use crate::witness::{Witness, chain};

/// Plays a script and shows what came of each line.
pub(crate) struct Play {
    pub(crate) witness: Witness,
    pub(crate) by: Controller,
    events_shown: u64,
}

/// The disk that a node of these scripts has unless the script says otherwise: node 3 has disk 300.
pub(crate) fn disk_of(node: NodeId) -> DiskId {
    DiskId::new(u128::from(node.get()) * 100)
}

impl Play {
    pub(crate) fn new() -> Self {
        Self {
            witness: Witness::default(),
            by: Controller::Membership,
            events_shown: 0,
        }
    }

    /// One line; the lines that it gives.
    pub(crate) fn line(&mut self, line: &str) -> Result<Vec<String>, String> {
        let (line, cause) = line.split_once(" because ").unwrap_or((line, "a test"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let (verb, rest) = words.split_first().ok_or("an empty line")?;
        match *verb {
            "by" => {
                self.by = match rest {
                    ["loop"] => Controller::Membership,
                    ["operator"] => Controller::Operator,
                    ["system"] => Controller::System,
                    _ => return Err("by loop, operator or system".into()),
                };
                return Ok(Vec::new());
            }
            "show" => return Ok(self.show()),
            "events" => return Ok(self.events()),
            "since" => {
                let position = position(rest.first().ok_or("since VERSION")?)?;
                return Ok(vec![match self.witness.state.delta_since(position) {
                    Some(delta) => shown_delta(&delta),
                    None => "no way is known from there".into(),
                }]);
            }
            _ => {}
        }
        let change = self.change(verb, rest)?;
        Ok(vec![
            match self.witness.run(self.by.clone(), cause, change) {
                Applied::Changed(delta) => shown_delta(&delta),
                Applied::Kept => "kept".into(),
                Applied::Refused(why) => format!("refused: {why}"),
            },
        ])
    }

    fn change(&self, verb: &str, words: &[&str]) -> Result<Change, String> {
        let first = words.first().copied().unwrap_or_default();
        Ok(match verb {
            "create" => Change::CreateCluster {
                cluster: ClusterId::new(option(words, "cluster")?.unwrap_or(7).into()),
                split_keys: match words.iter().position(|w| *w == "split") {
                    Some(at) => words[at + 1..]
                        .iter()
                        .map(|w| w.to_string().into())
                        .collect(),
                    None => Vec::new(),
                },
                replicas: number(first)? as usize,
                settings: Settings::default(),
            },
            "register" => {
                let node = NodeId::new(number(first)?);
                let port = option(words, "port")?.unwrap_or(7_000 + node.get());
                Change::RegisterNode {
                    node,
                    disk: self.disk(node, words)?,
                    addr: format!("127.0.0.1:{port}"),
                    http: String::new(),
                    zone: String::new(),
                }
            }
            "begin" => {
                let shard = ShardId::new(number(first)?);
                Change::BeginServing {
                    shard,
                    expected_epoch: self.epoch(shard, words)?,
                }
            }
            "confirm" => {
                let (shard, node) = pair(first)?;
                let stint = self.stint(shard, node);
                Change::ConfirmInSync {
                    shard,
                    node,
                    epoch: self.epoch(shard, words)?,
                    joined_epoch: option(words, "joined")?.map_or(stint.1, Epoch::new),
                    disk: option(words, "disk")?.map_or(stint.0, |d| DiskId::new(d.into())),
                }
            }
            "lose" => {
                let (shard, node) = pair(first)?;
                let stint = self.stint(shard, node);
                Change::LoseSync {
                    shard,
                    node,
                    joined_epoch: option(words, "joined")?.map_or(stint.1, Epoch::new),
                    disk: stint.0,
                }
            }
            "remove" | "append" | "reissue" | "recover" => {
                let shard = ShardId::new(number(first)?);
                let text = words[1..].join(" ");
                Change::ReconfigureChain {
                    shard,
                    expected_epoch: self.epoch(shard, words)?,
                    step: self.step(shard, &format!("{verb} {text}"))?,
                }
            }
            "learner" | "drop" | "want" | "unwant" => {
                let (shard, node) = pair(first)?;
                match verb {
                    "learner" => Change::AddLearner { shard, node },
                    "drop" => Change::DropLearner { shard, node },
                    "want" => Change::WantMember { shard, node },
                    _ => Change::UnwantMember { shard, node },
                }
            }
            "lease" => Change::SetSettings(Settings {
                lease_ms: number(first)?,
                ..Settings::default()
            }),
            "pause" | "resume" => Change::SwitchController {
                name: first.to_owned(),
                paused: verb == "pause",
            },
            "note" => Change::Note {
                what: first.to_owned(),
                subject: words[1..].join(" "),
            },
            "stored" => Change::SnapshotStored(position(first)?),
            _ => return Err(format!("no such command: {verb}")),
        })
    }

    /// A chain's step: `remove 3 dead by 1 witness 2, 2 unsynced`, `append 4`, `reissue`, `recover 2`.
    pub(crate) fn step(&self, shard: ShardId, text: &str) -> Result<ChainStep, String> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        Ok(match verb {
            "remove" => ChainStep::Remove(
                rest.split(',')
                    .map(|one| self.removal(shard, one))
                    .collect::<Result<_, _>>()?,
            ),
            "append" => {
                let node = NodeId::new(number(words.first().ok_or("append NODE")?)?);
                ChainStep::Append {
                    node,
                    disk: self.disk(node, &words)?,
                }
            }
            "reissue" => ChainStep::Reissue,
            "recover" => ChainStep::Recover {
                node: NodeId::new(number(words.first().ok_or("recover NODE")?)?),
            },
            _ => return Err(format!("no such step: {verb}")),
        })
    }

    fn removal(&self, shard: ShardId, text: &str) -> Result<Removal, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let node = NodeId::new(number(words.first().ok_or("a removal names a node")?)?);
        let by = option(&words, "by")?.map(NodeId::new);
        let named = || by.ok_or("by whom?");
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(2));
        let evidence = match words.get(1) {
            Some(&"dead") => Evidence::SeemsDead {
                survivor: named()?,
                survivor_reported: if words.contains(&"late") || words.contains(&"tie") {
                    early
                } else {
                    late
                },
                last_sign: if words.contains(&"late") { late } else { early },
                witness: option(&words, "witness")?.map_or(named()?, NodeId::new),
            },
            Some(&"lives") => Evidence::Lives {
                fellow: named()?,
                epoch: match option(&words, "at")? {
                    Some(epoch) => Epoch::new(epoch),
                    None => self.epoch(shard, &[])?,
                },
                incarnation: Incarnation::new(1),
            },
            Some(&"unsynced") => Evidence::Unsynced,
            _ => return Err(format!("no such evidence: {text}")),
        };
        Ok(Removal { node, evidence })
    }

    /// The chain's present epoch, or the one after the word `epoch`.
    fn epoch(&self, shard: ShardId, words: &[&str]) -> Result<Epoch, String> {
        let held = chain(&self.witness.state, shard).map(|c| c.epoch);
        Ok(option(words, "epoch")?.map_or(held.unwrap_or_default(), Epoch::new))
    }

    /// The registered disk, or the one after the word `disk`.
    fn disk(&self, node: NodeId, words: &[&str]) -> Result<DiskId, String> {
        Ok(option(words, "disk")?.map_or(disk_of(node), |d| DiskId::new(d.into())))
    }

    fn stint(&self, shard: ShardId, node: NodeId) -> (DiskId, Epoch) {
        let entry = chain(&self.witness.state, shard)
            .and_then(|c| c.members.iter().find(|m| m.node == node));
        entry.map_or((disk_of(node), Epoch::ZERO), |m| (m.disk, m.joined_epoch))
    }

    fn show(&self) -> Vec<String> {
        let state = &self.witness.state;
        let Some(config) = state.config() else {
            return vec!["no cluster".into()];
        };
        let mut lines = vec![format!(
            "version {}, {} nodes, lease {} ms{}",
            config.position.version,
            config.nodes.len(),
            config.settings.lease_ms,
            if state.is_paused("membership") {
                ", membership is paused"
            } else {
                ""
            }
        )];
        for (shard, record) in state.shards() {
            let mut line = format!("shard {shard}: {}", self.shown_chain(*shard));
            let learners = config.learners.iter().filter(|l| l.shard == *shard);
            for (word, nodes) in [
                ("learners", learners.map(|l| l.node).collect::<Vec<_>>()),
                ("wanted", record.wanted().iter().copied().collect()),
                ("unwanted", record.unwanted().iter().copied().collect()),
            ] {
                if !nodes.is_empty() {
                    line += &format!(", {word} {}", list(&nodes));
                }
            }
            lines.push(line);
        }
        lines
    }

    /// Epoch and members; `*` in sync, `+` the stint began in this epoch.
    pub(crate) fn shown_chain(&self, shard: ShardId) -> String {
        let state = &self.witness.state;
        let Some(chain) = chain(state, shard) else {
            return "no chain".into();
        };
        format!("epoch {}, {}", chain.epoch, self.shown_members(shard))
    }

    pub(crate) fn shown_members(&self, shard: ShardId) -> String {
        let state = &self.witness.state;
        let (Some(chain), Some(record)) = (chain(state, shard), state.shard(shard)) else {
            return "no chain".into();
        };
        let members: Vec<String> = chain
            .members
            .iter()
            .map(|m| {
                let in_sync = record.in_sync().contains(&m.node);
                let fresh = m.joined_epoch == chain.epoch && chain.phase == ChainPhase::Serving;
                format!(
                    "{}{}{}",
                    m.node,
                    if in_sync { "*" } else { "" },
                    if fresh { "+" } else { "" }
                )
            })
            .collect();
        let phase = match chain.phase {
            ChainPhase::Creating => "creating ",
            ChainPhase::Serving => "",
        };
        format!("{phase}{}", members.join(" "))
    }

    fn events(&mut self) -> Vec<String> {
        let fresh: Vec<&Event> = self
            .witness
            .state
            .events()
            .filter(|e| e.no > self.events_shown)
            .collect();
        let lines = fresh
            .iter()
            .map(|e| {
                let by = match e.by {
                    Controller::Membership => "loop",
                    Controller::Operator => "operator",
                    Controller::System => "system",
                };
                format!(
                    "{} v{} {by}: {} {}: {}",
                    e.no, e.version, e.action, e.subject, e.cause
                )
            })
            .collect();
        self.events_shown = fresh.last().map_or(self.events_shown, |e| e.no);
        lines
    }
}

/// The rule that a refusal names; `–` for what makes no sense.
pub(crate) fn shown_refusal(why: &Refused) -> String {
    match why {
        Refused::Rule { rule, .. } => rule.clone(),
        Refused::EpochMoved { .. } => "epoch".into(),
        Refused::NoNode(_) | Refused::NoShard(_) | Refused::Invalid(_) => "–".into(),
    }
}

fn shown_delta(delta: &Delta) -> String {
    let items: Vec<String> = delta.items.iter().map(shown_item).collect();
    format!(
        "version {} to {}: {}",
        delta.base.version,
        delta.to.version,
        if items.is_empty() {
            "nothing".to_owned()
        } else {
            items.join("; ")
        }
    )
}

fn shown_item(item: &DeltaItem) -> String {
    match item {
        DeltaItem::Chain(ChainConfig {
            shard,
            epoch,
            phase,
            members,
            ..
        }) => {
            let members: Vec<String> = members
                .iter()
                .map(|m| format!("{}/{}@{}", m.node, m.disk.get(), m.joined_epoch))
                .collect();
            let phase = match phase {
                ChainPhase::Creating => "creating ",
                ChainPhase::Serving => "",
            };
            format!("shard {shard} epoch {epoch} {phase}{}", members.join(" "))
        }
        DeltaItem::Node(info) => {
            format!(
                "node {} at {} disk {}",
                info.node,
                info.addr,
                info.disk.get()
            )
        }
        DeltaItem::NodeForgotten(node) => format!("node {node} forgotten"),
        DeltaItem::Learners(shard, learners) => {
            let nodes: Vec<NodeId> = learners.iter().map(|l: &Learner| l.node).collect();
            format!("shard {shard} learners [{}]", list(&nodes))
        }
        DeltaItem::Settings(settings) => format!("settings, lease {} ms", settings.lease_ms),
    }
}

fn list(nodes: &[NodeId]) -> String {
    let words: Vec<String> = nodes.iter().map(ToString::to_string).collect();
    words.join(" ")
}

fn pair(text: &str) -> Result<(ShardId, NodeId), String> {
    let (shard, node) = text.split_once('.').ok_or("SHARD.NODE is wanted")?;
    Ok((ShardId::new(number(shard)?), NodeId::new(number(node)?)))
}

fn position(text: &str) -> Result<ConfigPosition, String> {
    let version = number(text)?;
    Ok(ConfigPosition {
        generation: Generation::new(u64::from(version > 0)),
        version: ConfigVersion::new(version),
    })
}

fn option(words: &[&str], name: &str) -> Result<Option<u64>, String> {
    let at = words.iter().position(|w| *w == name);
    at.map(|at| number(words.get(at + 1).copied().unwrap_or_default()))
        .transpose()
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is no number"))
}
