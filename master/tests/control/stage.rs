//! The scenarios' language. A line that begins with `>` is a command, `#` a remark; everything else is output and is
//! made anew.
//!
//! `cluster NODES replicas=R [shards=S]`, `spare N`, `run SECONDS`, `kill N`, `start N [new-disk]`, `damage N`, `stop N`, `cont N`,
//! `cut A->B`, `heal A->B` (one direction of a link), `cut master N|all`, `heal master N|all`, `ignore N`, `refuse N`,
//! `ack-only N`, `behave N`, `lag N RECORDS`, `writes PER_SECOND`, `leader` (another one), `wall SECONDS` (the clock
//! jumps), `pause`, `resume`, `want S N`, `unwant S N`, `touch` (a change that has to reach every node), `status`.

use catena_master::state::Change;
use catena_proto::ids::{NodeId, ShardId};

use crate::world::{Manners, World};

pub(crate) fn play(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut world: Option<World> = None;
    for (at, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
        let Some(command) = line.strip_prefix("> ") else {
            continue;
        };
        out.push_str(line);
        out.push('\n');
        let words: Vec<&str> = command.split_whitespace().collect();
        let done = match (words.as_slice(), &mut world) {
            (["cluster", rest @ ..], world) => cluster(rest).map(|made| *world = Some(made)),
            (_, None) => Err("begin with `cluster`".to_owned()),
            (["status"], Some(world)) => {
                let status = world.status();
                world.transcript.push_str(&status);
                Ok(())
            }
            (words, Some(world)) => perform(world, words),
        };
        done.map_err(|why| format!("line {}: {why}", at + 1))?;
        if let Some(world) = &mut world {
            out.push_str(&std::mem::take(&mut world.transcript));
        }
    }
    Ok(out)
}

fn cluster(words: &[&str]) -> Result<World, String> {
    let [nodes, rest @ ..] = words else {
        return Err("which nodes?".into());
    };
    let nodes: Result<Vec<u64>, String> = nodes.split(',').map(number).collect();
    let setting = |name: &str, default: u64| {
        let found = rest.iter().find_map(|w| w.strip_prefix(name));
        found.map_or(Ok(default), number)
    };
    let replicas = usize::try_from(setting("replicas=", 3)?).map_err(|e| e.to_string())?;
    let shards = usize::try_from(setting("shards=", 1)?).map_err(|e| e.to_string())?;
    Ok(World::new(&nodes?, replicas, shards))
}

fn number(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("`{word}` is no number"))
}

fn node(word: &str) -> Result<NodeId, String> {
    number(word).map(NodeId::new)
}

fn link(word: &str) -> Result<(NodeId, NodeId), String> {
    let (from, to) = word.split_once("->").ok_or("a link is A->B")?;
    Ok((node(from)?, node(to)?))
}

fn perform(world: &mut World, words: &[&str]) -> Result<(), String> {
    match words {
        ["run", seconds] => {
            let seconds: f64 = seconds.parse().map_err(|_| "how many seconds?")?;
            world.run((seconds * 1_000.0) as u64);
        }
        ["spare", n] => world.add(number(n)?, ""),
        ["spare", n, zone] => world.add(number(n)?, zone),
        ["kill", n] => world.kill(node(n)?),
        ["start", n] => world.start(node(n)?, false),
        ["start", n, "new-disk"] => world.start(node(n)?, true),
        ["damage", n] => world.damage(node(n)?),
        ["stop", n] => world.stop(node(n)?, true),
        ["cont", n] => world.stop(node(n)?, false),
        [verb @ ("cut" | "heal"), "master", "all"] => {
            for n in world.ids() {
                world.cut_master(n, *verb == "cut");
            }
        }
        [verb @ ("cut" | "heal"), "master", n] => world.cut_master(node(n)?, *verb == "cut"),
        [verb @ ("cut" | "heal"), l] => {
            let (from, to) = link(l)?;
            world.cut(from, to, *verb == "cut");
        }
        ["ignore", n] => world.manners(node(n)?, Manners::Ignores),
        ["refuse", n] => world.manners(node(n)?, Manners::Refuses("it is told to".into())),
        ["ack-only", n] => world.manners(node(n)?, Manners::AcksOnly),
        ["behave", n] => world.manners(node(n)?, Manners::Good),
        ["lag", n, records] => world.lag(node(n)?, number(records)?),
        ["writes", per_second] => world.write_rate(number(per_second)?),
        ["leader"] => world.new_leader(),
        ["wall", seconds] => {
            let seconds: i64 = seconds.parse().map_err(|_| "how many seconds?")?;
            world.shift_wall(seconds * 1_000);
        }
        [verb @ ("pause" | "resume")] => world.propose(Change::SwitchController {
            name: "membership".into(),
            paused: *verb == "pause",
        }),
        ["want", s, n] => world.propose(Change::WantMember {
            shard: ShardId::new(number(s)?),
            node: node(n)?,
        }),
        ["unwant", s, n] => world.propose(Change::UnwantMember {
            shard: ShardId::new(number(s)?),
            node: node(n)?,
        }),
        ["touch"] => world.touch(),
        _ => return Err(format!("no such command: {}", words.join(" "))),
    }
    Ok(())
}
