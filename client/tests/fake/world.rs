//! The state that the fake's nodes share, and what each of them was told to do wrong.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use catena_proto::call::*;
use catena_proto::config::*;
use catena_proto::errors::{Reason, Refusal};
use catena_proto::ids::*;
use catena_proto::op::*;

/// What a node does to the next request, or to each.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Refuses it.
    Refuse(Refusal),
    /// Never answers, and does nothing.
    Ignore,
    /// Executes it and never answers.
    Swallow,
    /// Executes it and breaks the connection.
    Break,
}

/// What a node does, and what it has seen.
#[derive(Debug, Default)]
pub struct NodeState {
    /// For the next requests, one each.
    pub script: VecDeque<Fault>,
    /// For every request, once the script is over.
    pub habit: Option<Fault>,
    /// The chains as this node knows them, if it is behind.
    pub old_chains: Option<Vec<ChainConfig>>,
    pub frames: usize,
    pub reads: usize,
    pub writes: usize,
    pub unary: usize,
    pub route_questions: usize,
    pub frame_requests_max: usize,
}

/// See the module.
#[derive(Debug)]
pub struct World {
    pub cluster: ClusterId,
    pub chains: Vec<ChainConfig>,
    pub infos: Vec<NodeInfo>,
    pub data: BTreeMap<Bytes, Row>,
    pub seq: Seq,
    pub sessions: BTreeMap<SessionId, BTreeMap<SlotNo, (RequestNo, Outcome)>>,
    pub nodes: BTreeMap<NodeId, NodeState>,
    /// Answers that exceed this many bytes do not fit the pipe.
    pub pipe_value_max: usize,
    pub scan_page_rows: usize,
}

/// What becomes of a request.
pub enum Reply {
    Answer(Answer),
    Nothing,
    Break,
}

impl World {
    pub fn new(chains: Vec<ChainConfig>, infos: Vec<NodeInfo>) -> Self {
        Self {
            cluster: ClusterId::new(0xca7e4a),
            chains,
            nodes: (infos.iter())
                .map(|info| (info.node, NodeState::default()))
                .collect(),
            infos,
            data: BTreeMap::new(),
            seq: Seq::new(100),
            sessions: BTreeMap::new(),
            pipe_value_max: 64 << 10,
            scan_page_rows: 10,
        }
    }

    pub fn addr(&self, node: u64) -> String {
        self.infos[node as usize - 1].addr.clone()
    }

    pub fn node(&mut self, node: u64) -> &mut NodeState {
        self.nodes.entry(NodeId::new(node)).or_default()
    }

    /// A new epoch of a shard, with these members, head first.
    pub fn reconfigure(&mut self, shard: u64, members: &[u64]) {
        let chain = &mut self.chains[shard as usize - 1];
        chain.epoch = chain.epoch.next();
        chain.members = (members.iter())
            .map(|id| Member {
                node: NodeId::new(*id),
                disk: DiskId::new((*id).into()),
                joined_epoch: Epoch::new(1),
            })
            .collect();
    }

    pub fn chains_of(&self, node: NodeId) -> &[ChainConfig] {
        let old = self.nodes.get(&node).and_then(|n| n.old_chains.as_deref());
        old.unwrap_or(&self.chains)
    }

    /// Answers a request on the pipe of `node`.
    pub fn call(&mut self, node: NodeId, call: &Call) -> Reply {
        let state = self.nodes.entry(node).or_default();
        match &call.body {
            CallBody::Get { .. } => state.reads += 1,
            CallBody::Command { .. } => state.writes += 1,
        }
        let fault = state.script.pop_front().or_else(|| state.habit.clone());
        match fault {
            Some(Fault::Refuse(refusal)) => return Reply::Answer(Answer::Refused(refusal)),
            Some(Fault::Ignore) => return Reply::Nothing,
            Some(Fault::Swallow) => {
                self.execute(node, call);
                return Reply::Nothing;
            }
            Some(Fault::Break) => {
                self.execute(node, call);
                return Reply::Break;
            }
            None => {}
        }
        Reply::Answer(self.execute(node, call))
    }

    fn execute(&mut self, node: NodeId, call: &Call) -> Answer {
        let key = match &call.body {
            CallBody::Get { key, .. }
            | CallBody::Command {
                command: Command::Write { key, .. },
                ..
            } => Some(key),
            CallBody::Command { .. } => None,
        };
        let held = self.chains_of(node).iter().find(|c| match key {
            Some(key) => c.range.contains(key),
            None => c.shard == call.shard,
        });
        let Some(chain) = held.cloned() else {
            return Answer::Refused(Refusal::new(Reason::WrongChain, "no such shard"));
        };
        let reads = matches!(call.body, CallBody::Get { .. });
        let serves = match reads {
            true => chain.position(node).is_some(),
            false => chain.head().is_some_and(|m| m.node == node),
        };
        let newer = call.epoch.is_some_and(|epoch| epoch > chain.epoch);
        if !serves || chain.shard != call.shard || newer {
            return Answer::Refused(self.wrong_chain(chain));
        }
        match &call.body {
            CallBody::Get { key, .. } => self.read(key),
            CallBody::Command { request, command } => self.command(*request, command),
        }
    }

    pub fn wrong_chain(&self, chain: ChainConfig) -> Refusal {
        Refusal::new(Reason::WrongChain, "ask the members of this chain")
            .route(chain, self.infos.clone())
    }

    fn read(&self, key: &Bytes) -> Answer {
        let freshness = Freshness {
            applied: self.seq,
            lag_ms: 7,
        };
        match self.data.get(key) {
            Some(row) if row.value.len() > self.pipe_value_max => {
                Answer::Refused(Refusal::new(Reason::UseUnary, "too large for the pipe"))
            }
            Some(row) => Answer::Row {
                row: row.clone(),
                freshness,
            },
            None => Answer::Absent { freshness },
        }
    }

    pub fn command(&mut self, request: Option<RequestId>, command: &Command) -> Answer {
        if let Some(request) = request {
            let Some(slots) = self.sessions.get(&request.session) else {
                let refusal = Refusal::new(Reason::UnknownSession, "no such session");
                return Answer::Refused(refusal);
            };
            match slots.get(&request.slot) {
                Some((no, outcome)) if *no == request.no => return Answer::Outcome(*outcome),
                Some((no, _)) if *no > request.no => {
                    return Answer::Refused(Refusal::new(Reason::Superseded, "a later one came"));
                }
                _ => {}
            }
        }
        let outcome = match command {
            Command::OpenSession => {
                self.seq = self.seq.next();
                let session = SessionId::new(self.seq.get());
                self.sessions.insert(session, BTreeMap::new());
                Outcome::SessionOpened { session }
            }
            Command::CloseSession(session) => {
                self.sessions.remove(session);
                Outcome::SessionClosed
            }
            Command::Write { key, op } => self.change(key, op),
        };
        if let Some(request) = request
            && let Some(slots) = self.sessions.get_mut(&request.session)
        {
            slots.insert(request.slot, (request.no, outcome));
        }
        Answer::Outcome(outcome)
    }

    fn change(&mut self, key: &Bytes, op: &WriteOp) -> Outcome {
        let version = self.seq.next();
        let held = self.data.get(key).cloned();
        let mut set = |value: Bytes| {
            self.seq = version;
            self.data.insert(key.clone(), Row { value, version });
        };
        match op {
            WriteOp::Put { value } => set(value.clone()),
            WriteOp::Append { suffix } => {
                let before = held.map_or_else(Bytes::new, |row| row.value);
                set([&before[..], suffix].concat().into());
            }
            WriteOp::Cas { expect, value } => {
                let holds = match (expect, &held) {
                    (Expect::Absent, None) => true,
                    (Expect::Version(v), Some(row)) => row.version == *v,
                    (Expect::Value(v), Some(row)) => row.value == *v,
                    _ => false,
                };
                if !holds {
                    return Outcome::CasFailed {
                        actual: held.map(|row| row.version),
                    };
                }
                set(value.clone());
            }
            WriteOp::Incr { by } => {
                let text = held.map_or_else(|| Bytes::from_static(b"0"), |row| row.value);
                let Some(number) = std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok())
                else {
                    return Outcome::NotANumber;
                };
                let Some(value) = i64::checked_add(number, *by) else {
                    return Outcome::Overflow;
                };
                set(value.to_string().into());
                return Outcome::Incremented { version, value };
            }
            WriteOp::Delete => {
                self.seq = version;
                let existed = self.data.remove(key).is_some();
                return Outcome::Deleted { version, existed };
            }
        }
        Outcome::Written { version }
    }
}
