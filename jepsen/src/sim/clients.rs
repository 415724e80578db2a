//! Clients with sessions that try again, and readers at any node; what they saw is the history.

use std::collections::BTreeMap;

use bytes::Bytes;
use catena_chainnode::replica::Refusal;
use catena_proto::ids::{Seq, SessionId};
use catena_proto::op::Outcome;
use catena_proto::time::Mono;

use super::cluster::Cluster;
use super::configs;
use super::dice::Dice;
use super::trace::Trace;
use crate::check::history::History;
use crate::check::operation::{Answer, Expect, Op, Outcome as Seen, Process};

/// A client waits this long for an answer before it tries again.
const PATIENCE_MS: u64 = 300;
/// Tries before it gives up and calls the outcome unknown.
const TRIES_MAX: u32 = 12;
/// Processes from this number on are readers.
const FIRST_READER: u64 = 1_000;

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
    /// What was asked, as a script says it, with the request's name.
    command: String,
    no: u64,
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
    keys: Vec<&'static str>,
    /// Whose request it is, and the number of the write that it belongs to (0 opens a session).
    by_request: BTreeMap<u64, (usize, u64)>,
    /// Reads between their halves, by node.
    reads: BTreeMap<u64, u64>,
    readers_made: u64,
    values: u64,
    /// The newest version of each key that a client saw, for `cas`.
    versions: BTreeMap<&'static str, Seq>,
    pub(super) history: History,
    /// Writes that were acknowledged.
    pub(super) acknowledged: u64,
}

impl Clients {
    pub(super) fn new(dice: &mut Dice) -> Self {
        let clients = (0..=dice.below(3)).map(|_| Client::default()).collect();
        // Few keys meet each other; many make a scan long.
        let most = [2, 8][dice.index(2)];
        let keys = ["a", "b", "c", "d", "e", "f", "g", "h"][..=dice.index(most)].to_vec();
        Self {
            clients,
            keys,
            ..Self::default()
        }
    }

    /// One client does the next thing it has to do.
    pub(super) fn act(&mut self, world: &mut Cluster, dice: &mut Dice, trace: &mut Trace) {
        let i = dice.index(self.clients.len());
        if self.clients[i].write.is_some() {
            self.try_again(i, world, dice, trace);
        } else if let Some(session) = self.clients[i].session {
            self.begin(i, session, world.now, dice);
            self.try_again(i, world, dice, trace);
        } else {
            self.open(i, world, trace);
        }
    }

    fn open(&mut self, i: usize, world: &mut Cluster, trace: &mut Trace) {
        let now = world.now;
        let opening = self.clients[i].opening;
        if opening.is_some_and(|(_, at)| waits(at, now)) {
            return;
        }
        if let Some(head) = configs::head(world).filter(|h| world.is_up(*h)) {
            let number = world.next_request();
            self.by_request.insert(number, (i, 0));
            self.clients[i].opening = Some((number, now));
            trace.play(world, format!("at {head} open"));
        }
    }

    /// Chooses a write; the recorder is told before the request leaves.
    fn begin(&mut self, i: usize, session: SessionId, now: Mono, dice: &mut Dice) {
        self.values += 1;
        let text = format!("v{}", self.values);
        let value = Bytes::from(text.clone());
        let key = dice.pick(&self.keys).unwrap_or("a");
        let (command, op, key) = match dice.below(12) {
            0..=3 => (format!("put {key} {text}"), Op::Put { value }, key),
            4 => (format!("del {key}"), Op::Delete, key),
            5 => {
                let expect = Expect::Absent;
                let op = Op::Cas { expect, value };
                (format!("cas {key} absent {text}"), op, key)
            }
            6 | 7 => {
                let version = self.versions.get(key).copied().unwrap_or(Seq::new(1));
                let expect = Expect::Version(version);
                let op = Op::Cas { expect, value };
                (format!("cas {key} {version} {text}"), op, key)
            }
            8 => (format!("append l {text},"), append(&text), "l"),
            _ => ("incr n 1".to_owned(), Op::Incr { by: 1 }, "n"),
        };
        let client = &mut self.clients[i];
        client.no += 1;
        let no = client.no;
        let recorded = self
            .history
            .invoke(Process::new(i as u64), key.into(), op, None);
        debug_assert!(recorded.is_ok(), "{recorded:?}");
        client.write = Some(Write {
            command: format!("{command} @{session}/0/{no}"),
            no,
            tries: 0,
            sent: None,
            due: now,
            maybe: false,
        });
    }

    fn try_again(&mut self, i: usize, world: &mut Cluster, dice: &mut Dice, trace: &mut Trace) {
        let now = world.now;
        let Some(write) = &mut self.clients[i].write else {
            return;
        };
        if write.sent.is_some_and(|(_, at)| waits(at, now)) || now < write.due {
            return;
        }
        write.maybe |= write.sent.take().is_some();
        if write.tries >= TRIES_MAX {
            let seen = if write.maybe {
                Seen::Unknown
            } else {
                Seen::Failed
            };
            return self.finish(i, seen);
        }
        // Mostly the head; now and then somebody who once was, or thinks so.
        let up: Vec<u64> = world
            .nodes
            .keys()
            .copied()
            .filter(|n| world.is_up(*n))
            .collect();
        let target = if dice.one_in(5) {
            dice.pick(&up)
        } else {
            configs::head(world).filter(|h| up.contains(h))
        };
        let Some(target) = target else {
            write.due = after(now, 20);
            return;
        };
        write.tries += 1;
        let number = world.next_request();
        write.sent = Some((number, now));
        self.by_request.insert(number, (i, write.no));
        let command = format!("at {target} {}", write.command);
        trace.play(world, command);
    }

    /// Works off what the replicas answered.
    pub(super) fn take_replies(&mut self, world: &mut Cluster) {
        let now = world.now;
        for (number, result) in std::mem::take(&mut world.replies) {
            let Some((i, no)) = self.by_request.remove(&number) else {
                continue;
            };
            let client = &mut self.clients[i];
            if no == 0 {
                let expected = client.opening.is_some_and(|(n, _)| n == number);
                if expected {
                    client.opening = None;
                }
                if let (true, Ok(Outcome::SessionOpened { session })) = (expected, result) {
                    client.session = Some(session);
                }
                continue;
            }
            // An answer to a write that was given up long ago changes nothing.
            let Some(write) = client.write.as_mut().filter(|w| w.no == no) else {
                continue;
            };
            let newest = write.sent.is_some_and(|(n, _)| n == number);
            match result {
                Ok(outcome) => {
                    self.acknowledged += 1;
                    self.finish(i, answer(outcome));
                }
                Err(Refusal::Interrupted) => {
                    write.maybe = true;
                    if newest {
                        write.sent = None;
                    }
                }
                Err(Refusal::UnknownSession) => {
                    let seen = if write.maybe || write.tries > 1 {
                        Seen::Unknown
                    } else {
                        Seen::Failed
                    };
                    client.session = None;
                    self.finish(i, seen);
                }
                Err(Refusal::Superseded) => self.finish(i, Seen::Unknown),
                // Definite: this try did nothing.
                Err(_) if newest => {
                    write.sent = None;
                    write.due = after(now, 20);
                }
                Err(_) => {}
            }
        }
    }

    fn finish(&mut self, i: usize, seen: Seen) {
        self.clients[i].write = None;
        self.record(i as u64, seen);
    }

    fn record(&mut self, process: u64, seen: Seen) {
        let done = self.history.complete(Process::new(process), seen, None);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// A reader begins or ends a read at a node.
    pub(super) fn read(&mut self, n: u64, world: &mut Cluster, dice: &mut Dice, trace: &mut Trace) {
        if world.is_up(n) && !world.is_running(n) {
            // A stopped process keeps what it has in hand (FAULTS 1).
            return;
        }
        if let Some(reader) = self.reads.remove(&n) {
            return self.end_read(n, reader, world, trace);
        }
        let at = dice.index(self.keys.len() + 2);
        let key = self
            .keys
            .get(at)
            .copied()
            .unwrap_or(if at == self.keys.len() { "l" } else { "n" });
        self.begin_read(n, key, world, trace);
        if dice.one_in(2)
            && let Some(reader) = self.reads.remove(&n)
        {
            self.end_read(n, reader, world, trace);
        }
    }

    fn begin_read(&mut self, n: u64, key: &'static str, world: &mut Cluster, trace: &mut Trace) {
        trace.play(world, format!("admit {n} {key}"));
        if !world.is_reading(n) {
            return;
        }
        self.readers_made += 1;
        let reader = FIRST_READER + self.readers_made;
        // Nothing happened between the two: the read begins here.
        let recorded = self
            .history
            .invoke(Process::new(reader), key.into(), Op::Get, None);
        debug_assert!(recorded.is_ok(), "{recorded:?}");
        self.reads.insert(n, reader);
    }

    fn end_read(&mut self, n: u64, reader: u64, world: &mut Cluster, trace: &mut Trace) {
        trace.play(world, format!("answer {n}"));
        let seen = match world.answers.pop() {
            Some(answer) => {
                let version = answer.row.as_ref().map(|(_, version)| *version);
                if let (Some(version), Some(key)) =
                    (version, self.keys.iter().find(|k| answer.key == **k))
                {
                    self.versions.insert(key, version);
                }
                let value = answer.row.map(|(value, _)| value);
                Seen::Ok(Answer::Read { value, version })
            }
            // Thrown away, or the process died: nobody saw anything.
            None => Seen::Failed,
        };
        self.record(reader, seen);
    }

    /// Every key is read once more, at one node; false if it answered one of them not.
    pub(super) fn read_all(&mut self, n: u64, world: &mut Cluster, trace: &mut Trace) -> bool {
        if let Some(reader) = self.reads.remove(&n) {
            self.end_read(n, reader, world, trace);
        }
        let keys: Vec<&'static str> = self.keys.iter().copied().chain(["l", "n"]).collect();
        keys.into_iter().all(|key| {
            self.begin_read(n, key, world, trace);
            let reader = self.reads.remove(&n);
            if let Some(reader) = reader {
                self.end_read(n, reader, world, trace);
            }
            reader.is_some()
        })
    }
}

fn waits(since: Mono, now: Mono) -> bool {
    now.since(since).as_millis() < u128::from(PATIENCE_MS)
}

fn after(now: Mono, ms: u64) -> Mono {
    now.plus(std::time::Duration::from_millis(ms))
}

fn append(text: &str) -> Op {
    let value = Bytes::from(format!("{text},"));
    Op::Append { value }
}

fn answer(outcome: Outcome) -> Seen {
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
        // `n` holds small numbers only, values are short, and no session's request opens or closes one.
        outcome => {
            debug_assert!(false, "no write of this workload ends with {outcome:?}");
            return Seen::Unknown;
        }
    })
}
