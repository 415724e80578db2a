//! Histories for tests: random runs that are linearizable by construction, and small falsifications of them.

use bytes::Bytes;
use catena_proto::ids::Seq;

use super::history::History;
use super::model::Model;
use super::operation::{Answer, Expect, Op, Operation, Outcome, Process};

/// SplitMix64: all choices come from one printed seed.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound.max(1)
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What a generated run looks like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) model: Model,
    pub(super) clients: u64,
    pub(super) operations: u64,
    /// How many different values are written; 0 = each write has its own.
    pub(super) values: u64,
    pub(super) reads_percent: u64,
    pub(super) unknown_percent: u64,
    /// Of 100 answers that could tell a version, how many do.
    pub(super) versions_percent: u64,
}

/// The key of all generated operations.
pub(super) const KEY: Bytes = Bytes::from_static(b"k");

/// A straightforward key, written apart from `key_state` on purpose.
#[derive(Clone, Debug, Default)]
struct Key {
    value: Option<Vec<u8>>,
    version: u64,
    seq: u64,
}

impl Key {
    fn write(&mut self, value: Option<Vec<u8>>, gap: u64) -> Option<Seq> {
        self.seq += 1 + gap;
        self.version = self.seq;
        self.value = value;
        Some(Seq::new(self.version))
    }

    fn apply(&mut self, op: &Op, gap: u64) -> Option<Answer> {
        Some(match op {
            Op::Get => Answer::Read {
                value: self.value.clone().map(Bytes::from),
                version: self.value.is_some().then_some(Seq::new(self.version)),
            },
            Op::Put { value } => Answer::Written {
                version: self.write(Some(value.to_vec()), gap),
            },
            Op::Delete if self.value.is_none() => Answer::Deleted {
                existed: Some(false),
                version: None,
            },
            Op::Delete => Answer::Deleted {
                existed: Some(true),
                version: self.write(None, gap),
            },
            Op::Cas { expect, value } => {
                let holds = match expect {
                    Expect::Absent => self.value.is_none(),
                    Expect::Value(old) => self.value.as_deref() == Some(&old[..]),
                    Expect::Version(old) => self.value.is_some() && self.version == old.get(),
                };
                if holds {
                    Answer::Written {
                        version: self.write(Some(value.to_vec()), gap),
                    }
                } else {
                    Answer::Mismatch { version: None }
                }
            }
            Op::Incr { by } => {
                let old: i64 = match &self.value {
                    None => 0,
                    Some(value) => std::str::from_utf8(value).ok()?.parse().ok()?,
                };
                let sum = old.checked_add(*by)?;
                let version = self.write(Some(sum.to_string().into_bytes()), gap);
                Answer::Counted {
                    value: Some(sum),
                    version,
                }
            }
            Op::Append { value } => {
                let mut whole = self.value.clone().unwrap_or_default();
                whole.extend_from_slice(value);
                Answer::Written {
                    version: self.write(Some(whole), gap),
                }
            }
        })
    }
}

struct Pending {
    process: Process,
    op: Op,
    /// Its answer (`None` inside = refused), once it took effect.
    applied: Option<Option<Answer>>,
    /// Its client has given it up.
    ghost: bool,
}

/// A linearizable history.
pub(super) fn linearizable(seed: u64, shape: Shape) -> History {
    let mut rng = Rng(seed);
    let mut history = History::new();
    let mut key = Key::default();
    if shape.model == Model::KvAppend {
        key.value = Some(Vec::new());
    } else if shape.model == Model::Counter {
        key.value = Some(b"0".to_vec());
    }
    let mut pending: Vec<Pending> = Vec::new();
    let mut idle: Vec<u64> = (0..shape.clients).collect();
    let mut left = shape.operations;
    while left > 0 || pending.iter().any(|op| !op.ghost) {
        let choice = rng.below(3);
        if choice == 0 && left > 0 && !idle.is_empty() {
            let process = Process::new(idle.swap_remove(rng.below(idle.len() as u64) as usize));
            let op = random_op(&mut rng, shape, left, &key);
            history
                .invoke(process, KEY, op.clone(), None)
                .expect("it is idle");
            pending.push(Pending {
                process,
                op,
                applied: None,
                ghost: false,
            });
            left -= 1;
        } else if !pending.is_empty() {
            let at = rng.below(pending.len() as u64) as usize;
            step_pending(
                &mut rng,
                shape,
                &mut history,
                &mut key,
                &mut pending,
                at,
                &mut idle,
            );
        }
    }
    history
}

fn step_pending(
    rng: &mut Rng,
    shape: Shape,
    history: &mut History,
    key: &mut Key,
    pending: &mut Vec<Pending>,
    at: usize,
    idle: &mut Vec<u64>,
) {
    let op = &mut pending[at];
    if op.applied.is_none() && (!op.ghost || rng.percent(20)) {
        let gap = rng.below(3);
        op.applied = Some(key.apply(&op.op, gap));
        return;
    }
    if op.ghost {
        if op.applied.is_some() || rng.percent(5) {
            pending.swap_remove(at);
        }
        return;
    }
    let process = op.process;
    idle.push(process.get());
    if rng.percent(shape.unknown_percent) {
        history
            .complete(process, Outcome::Unknown, None)
            .expect("it is in flight");
        // Half of them have not happened yet.
        op.ghost = true;
        if rng.percent(50) {
            pending.swap_remove(at);
        }
        return;
    }
    let outcome = match pending.swap_remove(at).applied.flatten() {
        Some(answer) => Outcome::Ok(hide_version(rng, shape, answer)),
        None => Outcome::Failed,
    };
    history
        .complete(process, outcome, None)
        .expect("it is in flight");
}

fn hide_version(rng: &mut Rng, shape: Shape, answer: Answer) -> Answer {
    if rng.percent(shape.versions_percent) {
        return answer;
    }
    match answer {
        Answer::Read { value, .. } => Answer::Read {
            value,
            version: None,
        },
        Answer::Written { .. } => Answer::Written { version: None },
        Answer::Mismatch { .. } => Answer::Mismatch { version: None },
        Answer::Deleted { existed, .. } => Answer::Deleted {
            existed,
            version: None,
        },
        Answer::Counted { value, .. } => Answer::Counted {
            value,
            version: None,
        },
    }
}

fn random_op(rng: &mut Rng, shape: Shape, left: u64, key: &Key) -> Op {
    if rng.percent(shape.reads_percent) {
        return Op::Get;
    }
    let no = if shape.values == 0 {
        left
    } else {
        rng.below(shape.values)
    };
    let value = Bytes::from(format!("{no}"));
    let old = match &key.value {
        Some(old) if rng.percent(60) => Expect::Value(Bytes::from(old.clone())),
        _ => Expect::Value(Bytes::from(format!("{}", rng.below(shape.values.max(4))))),
    };
    match shape.model {
        Model::Register if rng.percent(40) => Op::Cas { expect: old, value },
        Model::Register => Op::Put { value },
        Model::KvAppend if rng.percent(10) => Op::Put { value },
        Model::KvAppend => Op::Append {
            value: Bytes::from(format!("{no},")),
        },
        Model::Counter => Op::Incr {
            by: 1 + no as i64 % 3,
        },
        Model::Catena => match rng.below(7) {
            0 => Op::Delete,
            1 => Op::Incr {
                by: 1 + no as i64 % 3,
            },
            2 => Op::Append { value },
            3 => Op::Cas { expect: old, value },
            4 if shape.versions_percent > 0 => Op::Cas {
                expect: Expect::Version(Seq::new(key.version + rng.below(2))),
                value,
            },
            5 => Op::Cas {
                expect: Expect::Absent,
                value,
            },
            _ => Op::Put { value },
        },
    }
}

/// The same history with the answer of one operation falsified; `None` when it has no answer to falsify.
pub(super) fn falsify(history: &History, seed: u64) -> Option<History> {
    let mut rng = Rng(seed);
    let told = |operation: &&Operation| {
        matches!(
            operation.outcome,
            Outcome::Ok(Answer::Read { .. } | Answer::Counted { .. } | Answer::Mismatch { .. })
        )
    };
    let candidates: Vec<Operation> = history.operations().iter().filter(told).cloned().collect();
    let victim = candidates.get(rng.below(candidates.len() as u64) as usize)?;
    let other = &candidates[rng.below(candidates.len() as u64) as usize];
    let answer = match (&victim.outcome, &other.outcome) {
        (Outcome::Ok(Answer::Mismatch { .. }), _) => Answer::Written { version: None },
        (Outcome::Ok(Answer::Read { .. }), Outcome::Ok(Answer::Read { value, version }))
            if other != victim =>
        {
            Answer::Read {
                value: value.clone(),
                version: *version,
            }
        }
        (Outcome::Ok(Answer::Read { .. }), _) => Answer::Read {
            value: Some(Bytes::from(format!("{}", rng.below(4)))),
            version: None,
        },
        (_, _) => Answer::Counted {
            value: Some(rng.below(6) as i64),
            version: None,
        },
    };
    Some(with_outcome(history, |operation| {
        if operation.call == victim.call {
            Outcome::Ok(answer.clone())
        } else {
            operation.outcome.clone()
        }
    }))
}

/// The same calls and ends with other outcomes.
pub(super) fn with_outcome(history: &History, outcome: impl Fn(&Operation) -> Outcome) -> History {
    let mut events: Vec<_> = Vec::new();
    for operation in history.operations() {
        events.push((operation.call, operation, None));
        if let Some(end) = operation.end {
            events.push((end, operation, Some(outcome(operation))));
        }
    }
    events.sort_by_key(|(moment, ..)| *moment);
    let mut again = History::new();
    for (_, operation, outcome) in events {
        match outcome {
            None => {
                let Operation {
                    process, key, op, ..
                } = operation.clone();
                again.invoke(process, key, op, None).expect("as before");
            }
            Some(outcome) => {
                again
                    .complete(operation.process, outcome, None)
                    .expect("as before");
            }
        }
    }
    again
}

/// Whether a history of one key is linearizable, by trying every order of every choice of unknown operations.
pub(super) fn brute_force(model: Model, history: &History) -> bool {
    let blank = match model {
        Model::KvAppend => Some(Vec::new()),
        Model::Counter => Some(b"0".to_vec()),
        Model::Register | Model::Catena => None,
    };
    let operations: Vec<&Operation> = history
        .operations()
        .iter()
        .filter(|operation| operation.outcome != Outcome::Failed)
        .collect();
    let mut placed = vec![false; operations.len()];
    // The first "write" is the blank state, with version 0.
    let writes = vec![Some(0)];
    extend(&operations, &mut placed, &blank, &writes, &blank)
}

/// `writes` has what is known of the version of every write so far.
fn extend(
    operations: &[&Operation],
    placed: &mut Vec<bool>,
    value: &Option<Vec<u8>>,
    writes: &[Option<u64>],
    blank: &Option<Vec<u8>>,
) -> bool {
    let certain = |operation: &Operation| matches!(operation.outcome, Outcome::Ok(_));
    if operations
        .iter()
        .zip(placed.iter())
        .all(|(op, placed)| *placed || !certain(op))
    {
        return true;
    }
    for at in 0..operations.len() {
        let operation = operations[at];
        let too_early = operations.iter().zip(placed.iter()).any(|(other, placed)| {
            !placed && certain(other) && other.end.is_some_and(|end| end < operation.call)
        });
        if placed[at] || too_early {
            continue;
        }
        let mut key = Key {
            value: value.clone(),
            version: 0,
            seq: 0,
        };
        let told = match &operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            _ => None,
        };
        for (value, writes) in results(&mut key, operation, told, writes, blank) {
            placed[at] = true;
            let found =
                versions_can_grow(&writes) && extend(operations, placed, &value, &writes, blank);
            placed[at] = false;
            if found {
                return true;
            }
        }
    }
    false
}

type After = (Option<Vec<u8>>, Vec<Option<u64>>);

/// What can follow an operation, if it can have been told that.
fn results(
    key: &mut Key,
    operation: &Operation,
    told: Option<&Answer>,
    writes: &[Option<u64>],
    blank: &Option<Vec<u8>>,
) -> Vec<After> {
    let before = key.value.clone();
    let last = *writes.last().expect("the blank state is there");
    // A condition on the version is decided here, since only the list knows versions.
    let (op, named) = match &operation.op {
        Op::Cas {
            expect: Expect::Version(version),
            value,
        } => {
            let version = version.get();
            let exists = before.is_some();
            match told {
                Some(Answer::Mismatch { .. }) => {
                    let can = !exists || last != Some(version);
                    return if can {
                        vec![(before, writes.to_vec())]
                    } else {
                        Vec::new()
                    };
                }
                _ if !exists || last.is_some_and(|last| last != version) => return Vec::new(),
                _ => (
                    Op::Put {
                        value: value.clone(),
                    },
                    Some(version),
                ),
            }
        }
        op => (op.clone(), None),
    };
    let Some(answer) = key.apply(&op, 0) else {
        return Vec::new();
    };
    let mut writes = writes.to_vec();
    if named.is_some() {
        *writes.last_mut().expect("the blank state is there") = named;
    }
    let wrote = key.version > 0;
    let told_version = match (&answer, told) {
        (_, None) => None,
        (
            Answer::Read { value: is, .. },
            Some(Answer::Read {
                value: told,
                version,
            }),
        ) => {
            let told = told.as_ref().map(|told| told.to_vec()).or(blank.clone());
            if told != is.as_ref().map(|is| is.to_vec()) {
                return Vec::new();
            }
            *version
        }
        (Answer::Written { .. }, Some(Answer::Written { version }))
        | (Answer::Mismatch { .. }, Some(Answer::Mismatch { version })) => *version,
        (
            Answer::Deleted { existed: is, .. },
            Some(Answer::Deleted {
                existed: told,
                version,
            }),
        ) if told.is_none() || is == told => *version,
        (
            Answer::Counted { value: is, .. },
            Some(Answer::Counted {
                value: told,
                version,
            }),
        ) if told.is_none() || is == told => *version,
        _ => return Vec::new(),
    }
    .map(Seq::get);
    if wrote {
        writes.push(told_version);
    } else if let Some(told) = told_version {
        let last = writes.last_mut().expect("the blank state is there");
        if last.is_some_and(|last| last != told) {
            return Vec::new();
        }
        *last = Some(told);
    }
    vec![(key.value.clone(), writes)]
}

/// Whether versions can be given to the untold writes so that all of them grow.
fn versions_can_grow(writes: &[Option<u64>]) -> bool {
    let mut least = 0;
    for version in writes {
        match version {
            Some(version) if *version < least => return false,
            Some(version) => least = *version + 1,
            None => least += 1,
        }
    }
    true
}
