//! Clients of a stage: requests to a node, and reads in two halves (DESIGN §3.3).

use bytes::Bytes;
use catena_proto::ids::{NodeId, Seq};
use catena_proto::op::{Command, RequestId, Row};
use catena_proto::time::Mono;

use super::world::{Admitted, Answer, World};
use crate::replica::{Input, KeyState, Prior, ReplyTo, Request};

impl World {
    /// The number that the next request will have.
    #[must_use]
    pub const fn next_request(&self) -> u64 {
        self.requests_made + 1
    }

    /// Hands a request to a node; its number names it in [`World::replies`].
    pub fn submit(&mut self, n: u64, id: Option<RequestId>, command: Command) -> u64 {
        self.requests_made += 1;
        let number = self.requests_made;
        let key = match &command {
            Command::Write { key, .. } => Some(key.clone()),
            Command::OpenSession | Command::CloseSession(_) => None,
        };
        let prior = self.nodes.get(&n).and_then(|node| {
            let as_of = node.replica.as_ref()?.applied();
            let row = node.disk.state.rows.get(key.as_ref()?);
            let row = row.map(|(value, version)| Row {
                value: value.clone(),
                version: *version,
            });
            Some(Prior { as_of, row })
        });
        self.requests.insert(number, (n, key));
        let reply_to = ReplyTo {
            connection: 0,
            request: number,
        };
        let deadline = Mono::from_nanos(u64::MAX);
        self.step(
            n,
            Input::Requests(vec![Request {
                reply_to,
                id,
                command,
                prior,
                deadline,
            }]),
        );
        number
    }

    /// A read up to the point where its answer is about to leave.
    ///
    /// # Errors
    /// Why it is refused, or what it waits for.
    pub fn admit(&mut self, n: u64, key: &[u8]) -> Result<(), String> {
        let now = self.clock(n);
        let key = Bytes::copy_from_slice(key);
        let least = self.oracle.least_version(&key);
        let node = self.node(n);
        let Some(replica) = node.replica.as_ref().filter(|_| node.paused.is_none()) else {
            return Err("the node is down".into());
        };
        let view = replica.read_view();
        view.admit(now)
            .map_err(|refusal| format!("refused: {refusal}"))?;
        let found = match replica.key_state(&key) {
            KeyState::WaitFor(seq) => return Err(format!("waits until {seq} is committed")),
            KeyState::Committed { value, version } => value.map(|v| (v, version)),
            KeyState::InEngine => node.disk.state.rows.get(&key).cloned(),
        };
        node.admitted = Some(Admitted {
            view,
            key,
            found,
            least,
        });
        Ok(())
    }

    /// The answer of an admitted read leaves, or is thrown away (R2).
    ///
    /// # Errors
    /// Why it is thrown away; also if there was none.
    pub fn answer(&mut self, n: u64) -> Result<Answer, String> {
        let now = self.clock(n);
        let node = self.node(n);
        if node.paused.is_some() {
            return Err("the process is stopped".into());
        }
        let Some(read) = node.admitted.take() else {
            return Err("nothing was read".into());
        };
        let Some(replica) = &node.replica else {
            return Err("the node is down".into());
        };
        read.view
            .verify(&replica.read_view(), now)
            .map_err(|refusal| format!("thrown away: {refusal}"))?;
        self.judge_lease(n);
        let version = read
            .found
            .as_ref()
            .map_or(Seq::ZERO, |(_, version)| *version);
        self.oracle
            .on_read(NodeId::new(n), &read.key, version, read.least);
        let answer = Answer {
            key: read.key,
            row: read.found,
        };
        self.answers.push(answer.clone());
        Ok(answer)
    }
}
