//! The master's state: a pure machine, commands in, deltas and events out (DESIGN §4.1).

pub mod command;
pub mod event;

pub use command::{
    Applied, ChainStep, Change, Command, Controller, Evidence, Refused, Removal, WallMs,
};
pub use event::Event;
