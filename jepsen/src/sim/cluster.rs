//! The stage, with or without masters beside it: what a script is played on.

use std::ops::{Deref, DerefMut};

use catena_chainnode::stage::{ScriptError, World, execute};

use super::masters::Masters;
use super::planted::Planted;

/// Replicas, disks, wires and clients; and masters, once a script has started them.
#[derive(Debug)]
pub(super) struct Cluster {
    world: World,
    pub(super) masters: Option<Masters>,
    planted: Option<Planted>,
}

impl Deref for Cluster {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl DerefMut for Cluster {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Cluster {
    pub(super) fn new(planted: Option<Planted>) -> Self {
        Self {
            world: World::with_mutant(planted.and_then(Planted::replica)),
            masters: None,
            planted,
        }
    }

    /// Plays one command, of the stage or of the masters.
    pub(super) fn execute(&mut self, line: &str) -> Result<(), ScriptError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["masters", count, replicas] = words[..]
            && let (Ok(count), Ok(replicas)) = (count.parse(), replicas.parse())
        {
            let masters = Masters::new(count, replicas, self.world.now, self.planted);
            self.masters.get_or_insert(masters);
        }
        let Some(masters) = &mut self.masters else {
            return execute(&mut self.world, line);
        };
        let world = &mut self.world;
        match words[..] {
            ["masters", ..] => {}
            ["tick", ms] => pass(world, masters, ms, 1),
            ["run", ms] => pass(world, masters, ms, 10),
            _ => {
                if masters.play(world, &words).is_none() {
                    execute(world, line)?;
                }
            }
        }
        masters.settle(world);
        Ok(())
    }
}

/// Time passes; masters and nodes take their turns in between. With a step of 10 everything is delivered as well.
fn pass(world: &mut World, masters: &mut Masters, ms: &str, step: u64) {
    let mut left: u64 = ms.parse().unwrap_or(0);
    while left > 0 {
        if step > 1 {
            world.run(step.min(left));
            left = left.saturating_sub(step);
        } else {
            let until = masters.next_turn().since(world.now).as_millis();
            let slice = u64::try_from(until).unwrap_or(u64::MAX).clamp(1, left);
            world.tick(slice);
            left -= slice;
        }
        masters.settle(world);
    }
}
