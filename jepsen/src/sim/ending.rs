//! The end of a run: everything is healed, and then the chain must be whole, equal, and serve.

use std::collections::BTreeMap;

use catena_chainnode::stage::Node;
use catena_proto::op::Outcome;
use catena_proto::report::Standing;

use super::configs;
use super::council;
use super::faults;
use super::random::{Broken, Company, Sim};

/// Time that a healed chain has to be in sync on all members: debts of a restart (`L_max`), then catching up.
const IN_SYNC_WITHIN_MS: u64 = 5_000;
/// Time that masters have to make the chain whole again: the damping of a flapping node, and copying.
const WHOLE_WITHIN_MS: u64 = 300_000;
const WHOLE_LOOK_MS: u64 = 1_000;
/// The usual settings.
const LEASE_MS: u64 = 500;
const ROUND_MS: u64 = 100;
/// Time that a write has on a chain that is in sync.
const WRITE_WITHIN_MS: u64 = 1_000;

fn broken(what: String) -> Broken {
    Broken {
        rule: "liveness after healing".to_owned(),
        what,
    }
}

/// Wires, processes, disks: all faults end.
pub(super) fn heal(sim: &mut Sim) -> Result<(), Broken> {
    for (a, b) in faults::cuts(&sim.world) {
        sim.play(format!("heal {a}-{b}"))?;
    }
    let nodes: Vec<u64> = sim.world.nodes.keys().copied().collect();
    for n in nodes {
        if sim.world.is_up(n) {
            sim.play(format!("resume {n}"))?;
            sim.play(format!("room {n}"))?;
            sim.play(format!("settings {n} {LEASE_MS} {ROUND_MS}"))?;
        }
        if sim.world.is_held(n) {
            sim.play(format!("release {n}"))?;
        }
        if !sim.world.is_up(n) {
            sim.play(format!("restart {n}"))?;
            if sim.company == Company::Alone
                && let Some(command) = sim.configs.restarted(n)
            {
                sim.play(command)?;
            }
        }
    }
    if sim.company == Company::Masters {
        return heal_by_masters(sim);
    }
    for command in sim.configs.heal(&sim.world) {
        sim.play(command)?;
    }
    sim.play(format!("run {IN_SYNC_WITHIN_MS}"))
}

/// The masters bring everything back without anybody's help: the wanted length, all in sync, every config in force.
fn heal_by_masters(sim: &mut Sim) -> Result<(), Broken> {
    for command in council::heal(&sim.world) {
        sim.play(command)?;
    }
    let mut lacks = None;
    for _ in 0..WHOLE_WITHIN_MS / WHOLE_LOOK_MS {
        sim.play(format!("run {WHOLE_LOOK_MS}"))?;
        let masters = sim.world.masters.as_ref();
        lacks = masters.and_then(|m| m.lacks(&sim.world));
        if lacks.is_none() {
            // What follows from the last change: leases, learners that go.
            return sim.play(format!("run {IN_SYNC_WITHIN_MS}"));
        }
    }
    let story = sim.world.masters.as_ref().map(|m| m.story());
    let what = format!(
        "{}\n{}{}",
        lacks.unwrap_or_default(),
        story.unwrap_or_default(),
        statuses(sim)
    );
    Err(Broken {
        rule: "the masters restore the wanted length".to_owned(),
        what,
    })
}

/// The chain serves, everything acknowledged is there, and replicas that are equally far are equal.
pub(super) fn check(sim: &mut Sim) -> Result<(), Broken> {
    let members = configs::members(&sim.world);
    let head = members
        .first()
        .copied()
        .ok_or_else(|| broken("no chain is left".into()))?;
    for n in &members {
        let status = replica_status(sim, *n);
        if !status
            .as_ref()
            .is_some_and(|s| s.in_sync && s.serving_reads)
        {
            let what = format!("node {n} does not serve: {status:?}\n{}", statuses(sim));
            return Err(broken(what));
        }
    }
    let number = sim.world.next_request();
    // Without the clients: they would take the answer.
    sim.trace
        .play(&mut sim.world, format!("at {head} put last x"));
    sim.trace
        .play(&mut sim.world, format!("run {WRITE_WITHIN_MS}"));
    let answer = sim.world.replies.iter().find(|(no, _)| *no == number);
    let answer = answer.map(|(_, result)| result.clone());
    sim.look()?;
    if !matches!(answer, Some(Ok(Outcome::Written { .. }))) {
        let what = format!("a write got {answer:?}\n{}", statuses(sim));
        return Err(broken(what));
    }
    // What was acknowledged is read back: the history's checker knows what that must be.
    for n in &members {
        let all = sim.clients.read_all(*n, &mut sim.world, &mut sim.trace);
        sim.look()?;
        if !all {
            let what = format!("node {n} refuses reads\n{}", statuses(sim));
            return Err(broken(what));
        }
    }
    check_equal(sim)?;
    check_committed(sim, head)?;
    check_bounds(sim)
}

/// Members, and learners that follow, hold the same rows and sessions at the same position.
fn check_equal(sim: &Sim) -> Result<(), Broken> {
    let members = configs::members(&sim.world);
    let Some(head) = members.first().and_then(|n| sim.world.nodes.get(n)) else {
        return Ok(());
    };
    let applied = head.disk.state.progress.applied;
    for (n, node) in &sim.world.nodes {
        let standing = replica_status(sim, *n).map(|s| s.standing);
        let follows = matches!(standing, Some(Standing::Member(_) | Standing::Learner));
        if !follows {
            continue;
        }
        if node.disk.state.progress.applied != applied {
            let what = format!("node {n} is behind seq {applied}\n{}", statuses(sim));
            return Err(broken(what));
        }
        if digest(node) != digest(head) {
            let what = format!(
                "node {n} and the head differ at seq {applied}: {:?}, {:?}",
                digest(node),
                digest(head)
            );
            return Err(Broken {
                rule: "replicas are equal at equal seq".to_owned(),
                what,
            });
        }
    }
    Ok(())
}

/// Live keys with value and version, and sessions with their results.
fn digest(node: &Node) -> String {
    let state = &node.disk.state;
    let sessions: Vec<String> = state
        .sessions
        .values()
        .map(|s| {
            let mut slots = s.slots.clone();
            slots.sort_by_key(|slot| slot.slot);
            format!("{} {:?} {slots:?}", s.session, s.used)
        })
        .collect();
    format!("{:?} {sessions:?}", state.rows)
}

/// Every record that was ever committed is in the final state, as the last word on its key says.
fn check_committed(sim: &Sim, head: u64) -> Result<(), Broken> {
    let mut expected = BTreeMap::new();
    for (seq, record) in sim.world.oracle.committed() {
        for effect in &record.effects {
            expected.insert(effect.key.clone(), effect.value.clone().map(|v| (v, *seq)));
        }
    }
    let Some(node) = sim.world.nodes.get(&head) else {
        return Ok(());
    };
    for (key, row) in expected {
        let found = node.disk.state.rows.get(&key).cloned();
        if found != row {
            return Err(Broken {
                rule: "what was committed stays".to_owned(),
                what: format!("{key:?} is {found:?}, committed was {row:?}"),
            });
        }
    }
    Ok(())
}

/// Nothing is kept that nobody needs any more.
fn check_bounds(sim: &Sim) -> Result<(), Broken> {
    let keys = sim.world.nodes.values().map(|n| n.disk.state.rows.len());
    let keys = keys.max().unwrap_or(0) + 1;
    for n in configs::members(&sim.world) {
        let Some(status) = replica_status(sim, n) else {
            continue;
        };
        if status.pending_bytes > 0 || status.overlay_len > keys {
            return Err(Broken {
                rule: "memory is bounded".to_owned(),
                what: format!("node {n} at rest keeps {status:?}"),
            });
        }
    }
    Ok(())
}

fn replica_status(sim: &Sim, n: u64) -> Option<catena_chainnode::replica::Status> {
    let replica = sim.world.nodes.get(&n)?.replica.as_ref()?;
    Some(replica.status(sim.world.clock(n)))
}

fn statuses(sim: &Sim) -> String {
    let mut text = String::new();
    for n in sim.world.nodes.keys() {
        let replica = sim.world.nodes[n].replica.as_ref();
        let epoch = replica.and_then(|r| r.chain()).map(|c| c.epoch);
        let status = replica_status(sim, *n);
        text.push_str(&format!("  node {n}, epoch {epoch:?}: {status:?}\n"));
    }
    text
}
