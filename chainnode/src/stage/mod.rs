//! A stage: a few production replicas, their disks and the wires between them, stepped by hand.
//!
//! Golden scenarios, the simulation's directed schedules and the model check's
//! replay all play on it. It is pure: one script gives one transcript, and an
//! [`Oracle`] watches every step for what must never happen.

mod configs;
mod decided;
mod disk;
mod oracle;
mod requests;
mod script;
mod show;
mod world;

pub use self::disk::{Disk, State};
pub use self::oracle::{Durable, Oracle, Violation};
pub use self::script::{Played, ScriptError, execute, play};
pub use self::world::{Answer, Node, World};
