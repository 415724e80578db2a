//! A scenario's language: commands after `> `, prose after `#`, the rest is output.
//!
//! | command | what it does |
//! |---|---|
//! | `nodes 1,2,3` | starts nodes on empty disks |
//! | `chain 1,2,3` | makes a chain that serves, everything quiet |
//! | `config 1,2 [to 1,3\|nobody]` | the next config, offered to all or some |
//! | `offer 2`, `again 2 EPOCH` | the newest config again; one that was made before |
//! | `older 2 EPOCH`, `creating 2`, `conflict 2` | configs that nobody made: an older one; the first one; another one of the same epoch |
//! | `recover 2` | an operator makes one member's data count (M3) |
//! | `learn 3 [off]` | asks a node to follow, or no longer |
//! | `clock 1 PPM` | how fast a clock runs, before `nodes` |
//! | `at 1 put k v [@session/slot/no]` | a request: `put del incr append cas open` |
//! | `deliver 1->2 [N\|all]`, `break 1->2` | messages arrive; a stream breaks and loses them |
//! | `persist 1`, `hold 1`, `release 1`, `apply 1 [lazy]` | a sync; its two halves; the engine, with or without a flush |
//! | `crash 1 [keep [WRITES]]`, `restart 1 [damaged]`, `empty 1`, `rollback 1 SEQ`, `trim 1 SEQ` | processes and disks |
//! | `pause 1`, `resume 1` | a process stops where it is (SIGSTOP), and goes on |
//! | `full 1`, `room 1`, `settings 1 LEASE_MS ROUND_MS` | the disk's room; the lease's settings |
//! | `partition 1-2`, `heal 1-2`, `oneway 1->2` | the network |
//! | `tick MS`, `run MS`, `stabilize` | time; time and everything else; everything else |
//! | `admit 2 k`, `answer 2`, `read 2 k` | the halves of a read; both |
//! | `status` | a table |

use bytes::Bytes;
use catena_proto::config::ChainPhase;
use catena_proto::ids::{Epoch, RequestNo, Seq, SessionId, SlotNo};
use catena_proto::op::{Command, Expect, RequestId, WriteOp};

use super::oracle::Violation;
use super::world::World;
use crate::replica::{Input, LeaseSettings, Mutant};

/// A scenario after it was played.
#[derive(Clone, Debug)]
pub struct Played {
    /// Prose, commands and outputs.
    pub transcript: String,
    /// The first broken rule.
    pub violation: Option<Violation>,
}

/// A line of a script that is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{text}` is no command of a scenario; `chainnode::stage::script` lists them")]
pub struct ScriptError {
    line: usize,
    text: String,
}

/// Plays a script; outputs that the text may hold already are made anew.
///
/// # Errors
/// A line that is no command.
pub fn play(text: &str, mutant: Option<Mutant>) -> Result<Played, ScriptError> {
    let mut world = World::with_mutant(mutant);
    let mut transcript = String::new();
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') || line.is_empty() {
            transcript.push_str(line);
            transcript.push('\n');
            continue;
        }
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        transcript.push_str(line);
        transcript.push('\n');
        execute(&mut world, command).map_err(|error| ScriptError {
            line: at + 1,
            ..error
        })?;
        transcript.push_str(&world.take_transcript());
    }
    Ok(Played {
        transcript,
        violation: world.oracle.violation().cloned(),
    })
}

fn number(word: &str) -> Option<u64> {
    word.parse().ok()
}

fn list(word: &str) -> Option<Vec<u64>> {
    word.split(',').map(number).collect()
}

fn pair(word: &str) -> Option<(u64, u64)> {
    let (a, b) = word.split_once("->").or(word.split_once('-'))?;
    Some((number(a)?, number(b)?))
}

/// Plays one command, without the `> ` before it.
///
/// # Errors
/// Text that is no command.
pub fn execute(world: &mut World, command: &str) -> Result<(), ScriptError> {
    let words: Vec<&str> = command.split_whitespace().collect();
    network(world, &words)
        .or_else(|| processes(world, &words))
        .or_else(|| configs(world, &words))
        .or_else(|| clients(world, &words))
        .ok_or_else(|| ScriptError {
            line: 1,
            text: command.to_owned(),
        })
}

fn network(world: &mut World, words: &[&str]) -> Option<()> {
    match words {
        ["deliver", wire, rest @ ..] => {
            let (from, to) = pair(wire)?;
            let times = match rest {
                [] => 1,
                ["all"] => usize::MAX,
                [n] => n.parse().ok()?,
                _ => return None,
            };
            for _ in 0..times {
                if !world.deliver(from, to) {
                    break;
                }
            }
        }
        ["break", wire] => {
            let (from, to) = pair(wire)?;
            world.break_wire(from, to);
        }
        ["partition", wire] => {
            let (a, b) = pair(wire)?;
            world.partition(a, b, true, true);
        }
        ["oneway", wire] => {
            let (a, b) = pair(wire)?;
            world.partition(a, b, true, false);
        }
        ["heal", wire] => {
            let (a, b) = pair(wire)?;
            world.partition(a, b, false, true);
        }
        ["tick", ms] => world.tick(number(ms)?),
        ["run", ms] => world.run(number(ms)?),
        ["stabilize"] => {
            if !world.stabilize() {
                world.say("  does not come to rest");
            }
        }
        _ => return None,
    }
    Some(())
}

fn processes(world: &mut World, words: &[&str]) -> Option<()> {
    match words {
        ["nodes" | "restart", nodes] => {
            for n in list(nodes)? {
                // A process that runs cannot be started.
                if !world.is_up(n) {
                    world.start(n, None);
                }
            }
        }
        ["restart", n, "damaged"] => {
            let n = number(n)?;
            if !world.is_up(n) {
                world.start(n, Some("a frame does not match its checksum".into()));
            }
        }
        ["crash", nodes] => list(nodes)?.into_iter().for_each(|n| world.crash(n, 0)),
        ["crash", nodes, "keep"] => {
            list(nodes)?
                .into_iter()
                .for_each(|n| world.crash(n, usize::MAX));
        }
        ["crash", n, "keep", writes] => world.crash(number(n)?, writes.parse().ok()?),
        ["clock", n, ppm] => world.set_clock(number(n)?, ppm.parse().ok()?),
        ["pause", n] => world.pause(number(n)?),
        ["resume", n] => world.resume(number(n)?),
        ["settings", n, lease_ms, round_ms] => {
            let settings = LeaseSettings {
                lease_ms: lease_ms.parse().ok()?,
                round_ms: round_ms.parse().ok()?,
            };
            world.step(number(n)?, Input::Settings(settings));
        }
        ["full", n] => world.step(number(n)?, Input::ReadOnly(true)),
        ["room", n] => world.step(number(n)?, Input::ReadOnly(false)),
        ["empty", n] => world.empty_disk(number(n)?),
        ["persist", n] => {
            world.persist(number(n)?);
        }
        ["hold", n] => world.hold(number(n)?),
        ["release", n] => world.release(number(n)?),
        ["apply", n] => {
            world.apply(number(n)?, true);
        }
        ["apply", n, "lazy"] => {
            world.apply(number(n)?, false);
        }
        ["rollback", n, to] => {
            world.forks_expected = true;
            world
                .nodes
                .get_mut(&number(n)?)?
                .disk
                .rollback(Seq::new(number(to)?));
        }
        ["trim", n, to] => {
            let n = number(n)?;
            world.judge_trim(n, Seq::new(number(to)?));
            let disk = &mut world.nodes.get_mut(&n)?.disk;
            disk.trim(Seq::new(number(to)?));
            let start = disk.start();
            world.step(n, Input::LogTrimmed { start });
        }
        _ => return None,
    }
    Some(())
}

fn configs(world: &mut World, words: &[&str]) -> Option<()> {
    match words {
        ["chain", members] => {
            let members = list(members)?;
            world.configure(&members, ChainPhase::Creating, &members);
            world.stabilize();
            world.configure(&members, ChainPhase::Serving, &members);
            world.run(250);
            world.take_transcript();
        }
        ["config", members] => {
            let all: Vec<u64> = world.nodes.keys().copied().collect();
            world.configure(&list(members)?, ChainPhase::Serving, &all);
        }
        ["config", members, "to", to] => {
            let to = if *to == "nobody" {
                Vec::new()
            } else {
                list(to)?
            };
            world.configure(&list(members)?, ChainPhase::Serving, &to);
        }
        ["recover", n] => world.recover(number(n)?)?,
        ["offer", to] => world.offer(&list(to)?),
        ["older", n, epoch] => {
            let chain = world.chain()?.clone();
            let epoch = Epoch::new(number(epoch)?);
            let mut members = chain.members.clone();
            members
                .iter_mut()
                .for_each(|m| m.joined_epoch = m.joined_epoch.min(epoch));
            let older = catena_proto::config::ChainConfig {
                epoch,
                members,
                ..chain
            };
            world.offer_config(number(n)?, older);
        }
        ["creating", n] => {
            let chain = world.chain()?.clone();
            let epoch = Epoch::new(1);
            let mut members = chain.members.clone();
            members.iter_mut().for_each(|m| m.joined_epoch = epoch);
            let phase = ChainPhase::Creating;
            let older = catena_proto::config::ChainConfig {
                epoch,
                members,
                phase,
                ..chain
            };
            world.offer_config(number(n)?, older);
        }
        ["conflict", n] => {
            world.forks_expected = true;
            let mut chain = world.chain()?.clone();
            chain.members.pop();
            world.offer_config(number(n)?, chain);
        }
        ["again", n, epoch] => {
            let made = world.made(Epoch::new(number(epoch)?))?.clone();
            world.offer_config(number(n)?, made);
        }
        ["learn", n, "off"] => world.step(number(n)?, Input::Learn(false)),
        ["learn", n] => world.step(number(n)?, Input::Learn(true)),
        _ => return None,
    }
    Some(())
}

fn clients(world: &mut World, words: &[&str]) -> Option<()> {
    match words {
        ["at", n, request @ ..] => {
            let (id, command) = parse_request(request)?;
            // The number is said before what it leads to.
            world.say(&format!("  #{}", world.next_request()));
            world.submit(number(n)?, id, command);
        }
        ["admit", n, key] => {
            if let Err(why) = world.admit(number(n)?, key.as_bytes()) {
                world.say(&format!("  {why}"));
            }
        }
        ["answer", n] => answer(world, number(n)?),
        ["read", n, key] => {
            let n = number(n)?;
            match world.admit(n, key.as_bytes()) {
                Ok(()) => answer(world, n),
                Err(why) => world.say(&format!("  {why}")),
            }
        }
        ["status"] => status(world),
        _ => return None,
    }
    Some(())
}

fn answer(world: &mut World, n: u64) {
    let line = match world.answer(n) {
        Ok(answer) => answer.row.map_or("absent".to_owned(), |(value, version)| {
            format!("{} (version {version})", String::from_utf8_lossy(&value))
        }),
        Err(why) => why,
    };
    world.say(&format!("  {line}"));
}

fn parse_request(words: &[&str]) -> Option<(Option<RequestId>, Command)> {
    let (id, words) = match words.split_last()? {
        (last, rest) if last.starts_with('@') => {
            let parts: Vec<u64> = last[1..].split('/').map(number).collect::<Option<_>>()?;
            let [session, slot, no] = parts[..] else {
                return None;
            };
            let id = RequestId {
                session: SessionId::new(session),
                slot: SlotNo::new(u16::try_from(slot).ok()?),
                no: RequestNo::new(no),
            };
            (Some(id), rest)
        }
        _ => (None, words),
    };
    let bytes = |word: &str| Bytes::copy_from_slice(word.as_bytes());
    let (key, op) = match words {
        ["open"] => return Some((id, Command::OpenSession)),
        ["close", session] => {
            return Some((id, Command::CloseSession(SessionId::new(number(session)?))));
        }
        ["put", key, value] => (
            key,
            WriteOp::Put {
                value: bytes(value),
            },
        ),
        ["del", key] => (key, WriteOp::Delete),
        ["incr", key, by] => (
            key,
            WriteOp::Incr {
                by: by.parse().ok()?,
            },
        ),
        ["append", key, suffix] => (
            key,
            WriteOp::Append {
                suffix: bytes(suffix),
            },
        ),
        ["cas", key, "absent", value] => (
            key,
            WriteOp::Cas {
                expect: Expect::Absent,
                value: bytes(value),
            },
        ),
        ["cas", key, version, value] => {
            let expect = Expect::Version(Seq::new(number(version)?));
            (
                key,
                WriteOp::Cas {
                    expect,
                    value: bytes(value),
                },
            )
        }
        _ => return None,
    };
    Some((
        id,
        Command::Write {
            key: bytes(key),
            op,
        },
    ))
}

fn status(world: &mut World) {
    let mut lines = vec!["  node  role    sync  last  durable  commit  applied  reads".to_owned()];
    for (n, node) in &world.nodes {
        let Some(replica) = &node.replica else {
            lines.push(format!("  {n:<4}  down"));
            continue;
        };
        let s = replica.status(world.now);
        let why = if s.why.is_empty() {
            String::new()
        } else {
            format!("  ({})", s.why)
        };
        let yes = |b: bool| if b { "yes" } else { "no" };
        lines.push(format!(
            "  {n:<4}  {:<6}  {:<4}  {:<4}  {:<7}  {:<6}  {:<7}  {}{why}",
            s.standing.as_str(),
            yes(s.in_sync),
            s.last,
            s.durable,
            s.commit,
            s.applied,
            yes(s.serving_reads),
        ));
    }
    lines.iter().for_each(|line| world.say(line));
}
