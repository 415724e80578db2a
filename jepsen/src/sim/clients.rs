//! Clients with sessions that try again, and readers at any member; what they saw is the history.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_chainnode::replica::Refusal;
use catena_chainnode::stage::World;
use catena_proto::ids::{RequestNo, SessionId, SlotNo};
use catena_proto::op::{Command, Outcome, RequestId, WriteOp};
use catena_proto::time::Mono;

use super::configs;
use super::dice::Dice;
use crate::check::history::History;
use crate::check::operation::{Answer, Expect, Op, Outcome as Seen, Process};

/// A client waits this long for an answer before it tries again.
const PATIENCE_MS: u64 = 300;
/// Tries before it gives up and calls the outcome unknown.
const TRIES_MAX: u32 = 12;
const KEYS: [&str; 3] = ["a", "b", "n"];

#[derive(Debug, Default)]
struct Client {
    session: Option<SessionId>,
    /// A session is being opened, by this request.
    opening: Option<(u64, Mono)>,
    no: u64,
    write: Option<Write>,
}

#[derive(Debug)]
struct Write {
    id: RequestId,
    command: Command,
    tries: u32,
    /// The newest try, and when it was sent.
    sent: Option<(u64, Mono)>,
    due: Mono,
    /// An earlier try may have been executed.
    maybe: bool,
}

/// Every client and reader of a run.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: Vec<Client>,
    /// Who waits for which request.
    by_request: BTreeMap<u64, (usize, Option<RequestId>)>,
    /// Reads between their halves, by node.
    reads: BTreeMap<u64, u64>,
    readers_made: u64,
    values: u64,
    pub(super) history: History,
}

impl Clients {
    pub(super) fn new(count: usize) -> Self {
        let clients = (0..count).map(|_| Client::default()).collect();
        Self {
            clients,
            ..Self::default()
        }
    }

    /// One client does the next thing it has to do.
    pub(super) fn act(&mut self, world: &mut World, dice: &mut Dice) {
        let i = usize::try_from(dice.below(self.clients.len() as u64)).unwrap_or(0);
        let now = world.now;
        let client = &self.clients[i];
        if client.write.is_some() {
            return self.try_again(i, world, dice);
        }
        let Some(session) = client.session else {
            let waiting = client
                .opening
                .is_some_and(|(_, at)| now.since(at).as_millis() < u128::from(PATIENCE_MS));
            if !waiting && let Some(head) = configs::head(world) {
                let number = world.submit(head, None, Command::OpenSession);
                self.by_request.insert(number, (i, None));
                self.clients[i].opening = Some((number, now));
            }
            return self.take_replies(world);
        };
        self.values += 1;
        let value = Bytes::from(format!("v{}", self.values));
        let (key, op, seen) = match dice.below(8) {
            0..=3 => {
                let key = KEYS[usize::try_from(dice.below(2)).unwrap_or(0)];
                (
                    key,
                    WriteOp::Put {
                        value: value.clone(),
                    },
                    Op::Put { value },
                )
            }
            4 => ("a", WriteOp::Delete, Op::Delete),
            5 => {
                let expect = catena_proto::op::Expect::Absent;
                let seen = Op::Cas {
                    expect: Expect::Absent,
                    value: value.clone(),
                };
                ("b", WriteOp::Cas { expect, value }, seen)
            }
            _ => ("n", WriteOp::Incr { by: 1 }, Op::Incr { by: 1 }),
        };
        let client = &mut self.clients[i];
        client.no += 1;
        let id = RequestId {
            session,
            slot: SlotNo::new(0),
            no: RequestNo::new(client.no),
        };
        let key = Bytes::from_static(key.as_bytes());
        // The recorder is told before the request leaves.
        let process = Process::new(i as u64);
        if self
            .history
            .invoke(process, key.clone(), seen, None)
            .is_err()
        {
            return;
        }
        let command = Command::Write { key, op };
        self.clients[i].write = Some(Write {
            id,
            command,
            tries: 0,
            sent: None,
            due: now,
            maybe: false,
        });
        self.try_again(i, world, dice);
    }

    fn try_again(&mut self, i: usize, world: &mut World, dice: &mut Dice) {
        let now = world.now;
        let Some(write) = &mut self.clients[i].write else {
            return;
        };
        let out_of_patience = write
            .sent
            .is_some_and(|(_, at)| now.since(at).as_millis() >= u128::from(PATIENCE_MS));
        if (write.sent.is_some() && !out_of_patience) || now < write.due {
            return;
        }
        write.maybe |= write.sent.is_some();
        if write.tries >= TRIES_MAX {
            return self.finish(
                i,
                if self.clients[i].write.as_ref().is_some_and(|w| w.maybe) {
                    Seen::Unknown
                } else {
                    Seen::Failed
                },
            );
        }
        write.tries += 1;
        let members = configs::members(world);
        // Mostly the head; now and then somebody who once was.
        let target = if dice.one_in(6) {
            dice.pick(&members)
        } else {
            configs::head(world)
        };
        let Some(target) = target else { return };
        if world.nodes.get(&target).is_none_or(|n| n.replica.is_none()) {
            write.due = Mono::from_millis(now.as_millis() + 20);
            return;
        }
        let (id, command) = (write.id, write.command.clone());
        write.sent = Some((world.next_request(), now));
        self.by_request.insert(world.next_request(), (i, Some(id)));
        world.submit(target, Some(id), command);
        self.take_replies(world);
    }

    /// Works off what the replicas answered.
    pub(super) fn take_replies(&mut self, world: &mut World) {
        for (number, result) in std::mem::take(&mut world.replies) {
            let Some((i, id)) = self.by_request.remove(&number) else {
                continue;
            };
            let now = world.now;
            let client = &mut self.clients[i];
            if client.opening.is_some_and(|(n, _)| n == number) {
                client.opening = None;
                if let Ok(Outcome::SessionOpened { session }) = result {
                    client.session = Some(session);
                    client.no = 0;
                }
                continue;
            }
            // An answer to an operation that was given up long ago changes nothing.
            let Some(write) = client.write.as_mut().filter(|w| Some(w.id) == id) else {
                continue;
            };
            let newest = write.sent.is_some_and(|(n, _)| n == number);
            match result {
                Ok(outcome) => {
                    let seen = seen(&write.command, outcome);
                    self.finish(i, seen);
                }
                Err(Refusal::Interrupted) => {
                    write.maybe = true;
                    if newest {
                        write.sent = None;
                    }
                }
                Err(Refusal::UnknownSession) => {
                    // The first try only: then nothing was done.
                    let maybe = write.maybe || write.tries > 1;
                    client.session = None;
                    self.finish(i, if maybe { Seen::Unknown } else { Seen::Failed });
                }
                Err(Refusal::Superseded) => self.finish(i, Seen::Unknown),
                Err(_) => {
                    // Definite: this try did nothing.
                    if newest {
                        write.sent = None;
                        write.due = Mono::from_millis(now.as_millis() + 20);
                    }
                }
            }
        }
    }

    fn finish(&mut self, i: usize, seen: Seen) {
        self.clients[i].write = None;
        // Only a recorder that is told twice complains; each write is finished once.
        let done = self.history.complete(Process::new(i as u64), seen, None);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// A reader begins or ends a read at some node.
    pub(super) fn read(&mut self, world: &mut World, dice: &mut Dice) {
        let nodes: Vec<u64> = world.nodes.keys().copied().collect();
        let Some(n) = dice.pick(&nodes) else { return };
        if let Some(reader) = self.reads.remove(&n) {
            let seen = match world.answer(n) {
                Ok(answer) => {
                    let version = answer.row.as_ref().map(|(_, version)| *version);
                    let value = answer.row.map(|(value, _)| value);
                    Seen::Ok(Answer::Read { value, version })
                }
                // Thrown away: nobody saw anything.
                Err(_) => Seen::Failed,
            };
            let done = self.history.complete(Process::new(reader), seen, None);
            debug_assert!(done.is_ok(), "{done:?}");
            return;
        }
        let key = KEYS[usize::try_from(dice.below(3)).unwrap_or(0)];
        self.readers_made += 1;
        let reader = 1_000 + self.readers_made;
        if self
            .history
            .invoke(Process::new(reader), key.into(), Op::Get, None)
            .is_err()
        {
            return;
        }
        if world.admit(n, key.as_bytes()).is_ok() {
            self.reads.insert(n, reader);
        } else {
            let done = self
                .history
                .complete(Process::new(reader), Seen::Failed, None);
            debug_assert!(done.is_ok(), "{done:?}");
        }
    }
}

fn seen(command: &Command, outcome: Outcome) -> Seen {
    Seen::Ok(match outcome {
        Outcome::Written { version } => Answer::Written {
            version: Some(version),
        },
        Outcome::Deleted { version, existed } => Answer::Deleted {
            existed: Some(existed),
            version: existed.then_some(version),
        },
        Outcome::CasFailed { actual } => Answer::Mismatch { version: actual },
        Outcome::Incremented { version, value } => Answer::Counted {
            value: Some(value),
            version: Some(version),
        },
        // Values of this workload are always numbers on `n`, small, and no session is written to a key.
        _ => {
            debug_assert!(false, "{command:?} cannot end with {outcome:?}");
            return Seen::Failed;
        }
    })
}
