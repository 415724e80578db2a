//! Waits until a change that the masters have decided is in force where it counts: on the nodes.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Global;
use crate::status::{ChainLine, MemberLine, gather, picture};

/// Pause between two looks at the nodes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the progress bar counts to.
const BAR: u64 = 100;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The node is out, from this epoch on, and every member is in the chain's newest epoch.
    Gone(u64, u64),
    /// The node is a member and in sync.
    Member(u64),
    /// Every member is in sync, in this epoch or a newer one.
    InSync(u64),
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Done,
    /// What it waits for, and a part of one where that can be said.
    Waits(String, Option<f64>),
}

/// Looks until the goal is reached; shows what it waits for when stderr is a terminal.
pub(crate) async fn until(shard: u64, goal: Goal, global: &Global) -> ChainLine {
    let bar = ProgressBar::new(BAR);
    // A template that does not parse leaves the default one: it is only for the eye.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    loop {
        // Nobody answers now and then, while much restarts; it is looked at again.
        let chain = match gather(global).await {
            Ok(seen) => picture(&seen).chains.into_iter().find(|c| c.shard == shard),
            Err(failure) => {
                bar.set_message(failure.why);
                None
            }
        };
        if let Some(chain) = chain {
            match look(&chain, goal) {
                Step::Done => {
                    bar.finish_and_clear();
                    return chain;
                }
                Step::Waits(what, part) => {
                    let part = part.map_or_else(String::new, |p| format!(" ({:.0} %)", p * 100.0));
                    bar.set_message(format!("shard {shard}: {what}{part}"));
                }
            }
        }
        bar.tick();
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn look(chain: &ChainLine, goal: Goal) -> Step {
    let waits = |what: String| Step::Waits(what, None);
    match goal {
        Goal::Gone(node, epoch) => {
            if chain.epoch < epoch || chain.members.iter().any(|m| m.node == node) {
                return waits(format!("no member knows of epoch {epoch} yet"));
            }
            match chain.members.iter().find(|m| !in_epoch(m, chain.epoch)) {
                Some(member) => waits(format!(
                    "node {} is not in epoch {} yet",
                    member.node, chain.epoch
                )),
                None => Step::Done,
            }
        }
        Goal::Member(node) => match chain.members.iter().find(|m| m.node == node) {
            Some(member) if member.in_sync && in_epoch(member, chain.epoch) => Step::Done,
            Some(_) => waits(format!("node {node} is tail, and not in sync yet")),
            None => match chain.learners.iter().find(|l| l.node == node) {
                Some(learner) => Step::Waits(format!("node {node} catches up"), learner.progress),
                None => waits(format!("node {node} is to follow as learner")),
            },
        },
        Goal::InSync(epoch) => {
            if chain.epoch < epoch {
                return waits(format!("no member knows of epoch {epoch} yet"));
            }
            let behind = |m: &&MemberLine| !m.in_sync || !in_epoch(m, chain.epoch);
            match chain.members.iter().find(behind) {
                Some(member) => waits(format!("node {} is not in sync yet", member.node)),
                None => Step::Done,
            }
        }
    }
}

fn in_epoch(member: &MemberLine, epoch: u64) -> bool {
    let replica = member.details.as_ref();
    let held = replica.and_then(|replica| replica.chain.as_ref());
    held.is_some_and(|held| held.epoch >= epoch)
}

#[cfg(test)]
mod tests {
    use catena_proto::wire;

    use super::*;
    use crate::output::JsonBytes;
    use crate::status::LearnerLine;

    /// A chain in `epoch`; each member with the epoch that is in force on it.
    fn chain(epoch: u64, members: &[(u64, u64)]) -> ChainLine {
        let member = |&(node, held): &(u64, u64)| MemberLine {
            node,
            role: "middle",
            in_sync: true,
            last_seq: None,
            commit_seq: None,
            details: Some(wire::ReplicaStatus {
                chain: Some(wire::ChainConfig {
                    epoch: held,
                    ..Default::default()
                }),
                ..Default::default()
            }),
        };
        ChainLine {
            shard: 1,
            start: JsonBytes::from(&b""[..]),
            end: None,
            epoch,
            state: "healthy",
            members: members.iter().map(member).collect(),
            learners: Vec::new(),
            why: String::new(),
            range: String::new(),
        }
    }

    #[test]
    fn a_removal_is_in_force_when_every_member_left_is_in_the_new_epoch() {
        let goal = Goal::Gone(3, 5);
        let is_done = |chain: &ChainLine| look(chain, goal) == Step::Done;
        assert!(!is_done(&chain(4, &[(1, 4), (2, 4), (3, 4)])));
        assert!(!is_done(&chain(5, &[(1, 5), (2, 4)])));
        assert!(is_done(&chain(5, &[(1, 5), (2, 5)])));
        // The chain has moved on since: the removal is in force all the same.
        assert!(is_done(&chain(6, &[(1, 6)])));
        assert!(!is_done(&chain(6, &[(1, 6), (3, 6)])));
        let mut silent = chain(5, &[(1, 5), (2, 5)]);
        silent.members[1].details = None;
        assert!(!is_done(&silent));
    }

    #[test]
    fn an_addition_is_done_when_the_node_is_a_member_in_sync() {
        let goal = Goal::Member(3);
        let mut following = chain(4, &[(1, 4)]);
        following.learners.push(LearnerLine {
            node: 3,
            progress: Some(0.5),
        });
        let caught = look(&following, goal);
        assert!(matches!(caught, Step::Waits(_, Some(part)) if part > 0.4));
        let mut joined = chain(5, &[(1, 5), (3, 5)]);
        assert_eq!(look(&joined, goal), Step::Done);
        joined.members[1].in_sync = false;
        assert_ne!(look(&joined, goal), Step::Done);
    }

    #[test]
    fn a_recovery_is_done_when_the_chain_serves_from_the_new_epoch() {
        let goal = Goal::InSync(9);
        assert_ne!(look(&chain(8, &[(2, 8)]), goal), Step::Done);
        assert_eq!(look(&chain(9, &[(2, 9)]), goal), Step::Done);
    }
}
