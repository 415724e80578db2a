//! A trace of the model as a script for the production replicas.
//!
//! The model's steps are larger than the stage's: a handshake is two messages,
//! a round four. The script delivers what such a step needs between the two
//! nodes, and nothing else; the stage's oracle judges the replicas.

use std::fmt::Write as _;

use super::rules::{Bounds, Step};

/// The script that plays these steps on a stage. Nodes count from 1 there.
#[must_use]
pub fn script(bounds: Bounds, steps: &[Step]) -> String {
    let names = |mask: u8| -> String {
        (0..3_u8)
            .filter(|n| mask & (1 << n) != 0)
            .map(|n| (n + 1).to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let first = (1_u8 << bounds.members) - 1;
    let mut members: Vec<u8> = (0..bounds.members).collect();
    let mut text = format!("> nodes 1,2,3\n> chain {}\n", names(first));
    let mut say = |line: String| {
        let _ = writeln!(text, "> {line}");
    };
    let pass = |a: u8, b: u8| {
        [
            format!("deliver {}->{} all", a + 1, b + 1),
            format!("deliver {}->{} all", b + 1, a + 1),
        ]
    };
    let mut writes = 0;
    for step in steps {
        match step {
            Step::Write(n) => {
                writes += 1;
                say(format!("at {} put k v{writes}", n + 1));
            }
            Step::Sync(n) => say(format!("persist {}", n + 1)),
            Step::Handshake(a, b) | Step::Forward(a, b) | Step::CommitUp(b, a) => {
                pass(*a, *b)
                    .into_iter()
                    .chain(pass(*a, *b))
                    .for_each(&mut say);
            }
            Step::Round(_) | Step::LostRound(_) => {
                say("tick 100".into());
                for pair in members.windows(2) {
                    pass(pair[0], pair[1]).into_iter().for_each(&mut say);
                }
                for pair in members.windows(2).rev() {
                    pass(pair[0], pair[1]).into_iter().for_each(&mut say);
                }
            }
            Step::LeaseEnds(_) => say("tick 10".into()),
            // The model lets time pass at one node only; on the stage it passes everywhere.
            Step::PromiseEnds(..) => say("tick 510".into()),
            Step::Accept(n, _) => {
                say(format!("offer {}", n + 1));
                say(format!("persist {}", n + 1));
            }
            Step::Announced(n, fellow) => pass(*fellow, *n).into_iter().for_each(&mut say),
            Step::Remove(kept) => {
                members.retain(|m| kept & (1 << m) != 0);
                let list: Vec<String> = members.iter().map(|m| (m + 1).to_string()).collect();
                say(format!("config {} to nobody", list.join(",")));
            }
            Step::Append(n) => {
                members.push(*n);
                let list: Vec<String> = members.iter().map(|m| (m + 1).to_string()).collect();
                say(format!("config {} to nobody", list.join(",")));
            }
            Step::Crash(n) => say(format!("crash {}", n + 1)),
            Step::Restart(n) => say(format!("restart {}", n + 1)),
        }
        // Whoever may read does so, and the oracle compares.
        for n in 1..=3 {
            say(format!("read {n} k"));
        }
    }
    text
}
