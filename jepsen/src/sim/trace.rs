//! A run as a script of the stage's language: it can be read, replayed, shrunk, and kept as a golden scenario.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::cluster::Cluster;
use super::planted::Planted;

/// The name under which a panic of a replica counts as a broken rule.
pub(super) const PANIC: &str = "a replica's own invariants";

/// Replays that shrinking a failure may cost.
const REPLAYS_MAX: usize = 1_500;

/// Every command of a run, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Vec<String>,
}

impl Trace {
    /// The commands.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// The commands of a script; all else in it is left out.
    #[must_use]
    pub fn from_script(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.strip_prefix("> "));
        Self {
            lines: lines.map(str::to_owned).collect(),
        }
    }

    /// The rule that the run breaks when it is played again, if it does; a panic of a replica counts as one.
    #[must_use]
    pub fn breaks(&self, mutant: Option<Planted>) -> Option<&'static str> {
        Self::rule_broken_by(&self.lines, mutant)
    }

    /// As [`Trace::breaks`], also when the script breaks rules M itself, as a directed schedule may.
    #[must_use]
    pub fn first_broken(&self, mutant: Option<Planted>) -> Option<&'static str> {
        let mut world = Cluster::new(mutant);
        for line in &self.lines {
            if world.execute(line).is_err() {
                return Some("it is no script");
            }
            world.take_transcript();
            if let Some(violation) = world.oracle.violation() {
                return Some(violation.rule);
            }
        }
        None
    }

    /// Adds a command, and plays it.
    pub(super) fn play(&mut self, world: &mut Cluster, line: String) {
        // Noted first: it may be the one that a replica does not survive.
        self.lines.push(line);
        let played = self.lines.last().map(|line| world.execute(line));
        debug_assert!(matches!(played, Some(Ok(()))), "{played:?}");
    }

    /// The script as a file of scenarios has it.
    #[must_use]
    pub fn to_script(&self) -> String {
        self.lines.iter().map(|l| format!("> {l}\n")).collect()
    }

    /// The script with everything that is said at each command, as a golden scenario has it.
    pub(super) fn told(&self, mutant: Option<Planted>) -> String {
        let mut world = Cluster::new(mutant);
        let mut told = String::new();
        for line in &self.lines {
            told.push_str(&format!("> {line}\n"));
            // The run's failure may be that a replica did not survive this command.
            let played = catch_unwind(AssertUnwindSafe(|| world.execute(line)));
            told.push_str(&world.take_transcript());
            if played.is_err() {
                break;
            }
        }
        told
    }

    /// The rule that these commands break, if they break one without breaking rules M themselves.
    fn rule_broken_by(lines: &[String], mutant: Option<Planted>) -> Option<&'static str> {
        catch_unwind(|| Self::replay(lines, mutant)).unwrap_or(Some(PANIC))
    }

    fn replay(lines: &[String], mutant: Option<Planted>) -> Option<&'static str> {
        let mut world = Cluster::new(mutant);
        world.quiet = true;
        for line in lines {
            // A command may make no sense any more without those that were left out.
            if world.execute(line).is_err() {
                continue;
            }
            world.take_transcript();
            if world.foul().is_some() {
                return None;
            }
            if let Some(violation) = world.oracle.violation() {
                return Some(violation.rule);
            }
        }
        None
    }

    /// The shortest trace that was found that breaks the same rule: parts are left out as long as it does.
    #[must_use]
    pub fn shrunk(&self, mutant: Option<Planted>, rule: &str) -> Self {
        let mut lines = self.lines.clone();
        if self.breaks(mutant) != Some(rule) {
            // It shows only at the end of a run, or in the clients' history.
            return self.clone();
        }
        let mut replays = 0;
        let mut part = lines.len().div_ceil(2).max(1);
        while replays < REPLAYS_MAX {
            let mut at = 0;
            let mut any = false;
            while at < lines.len() && replays < REPLAYS_MAX {
                let mut fewer = lines.clone();
                fewer.drain(at..(at + part).min(lines.len()));
                replays += 1;
                if Self::rule_broken_by(&fewer, mutant) == Some(rule) {
                    lines = fewer;
                    any = true;
                } else {
                    at += part;
                }
            }
            if part == 1 && !any {
                break;
            }
            part = (part / 2).max(1);
        }
        Self { lines }
    }
}

#[cfg(test)]
mod tests {
    use catena_chainnode::replica::Mutant;

    use super::*;

    #[test]
    fn a_trace_shrinks_to_what_breaks_the_rule() {
        let mut lines: Vec<String> = ["nodes 1,2,3", "chain 1,2,3", "config 1,2 to 1"]
            .map(str::to_owned)
            .to_vec();
        for at in 0..20 {
            lines.insert(2, format!("tick {at}"));
        }
        let trace = Trace { lines };
        let mutant = Some(Planted::Replica(Mutant::ConfigBeforePersist));
        let rule = trace.breaks(mutant).expect("it breaks a rule");
        let shrunk = trace.shrunk(mutant, rule);
        assert_eq!(shrunk.lines(), ["nodes 1,2,3", "chain 1,2,3"]);
    }
}
