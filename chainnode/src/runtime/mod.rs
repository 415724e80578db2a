//! The runtime around the replicas: threads, tasks, files and sockets. Thin on purpose.
//!
//! ```text
//! connections ─┐                    ┌─▶ log thread ──┐
//! links in ────┼─▶ inbox ─▶ driver ─┼─▶ apply thread ─┼─▶ inbox
//! timers ──────┘     (replicas)     ├─▶ links out     │
//!                                   └─▶ connections   ┘
//! ```
//!
//! Reads never pass the driver: a connection takes a replica's read lock, looks
//! at the overlay, reads the engine, and checks the lease again (`reads`).

mod admin;
mod apply_thread;
mod clock;
mod company;
mod configs;
mod control;
mod driver;
mod fellows;
pub mod folder;
mod forward;
mod inbox;
mod kv;
mod link_in;
mod link_out;
mod link_queue;
mod log_thread;
mod masters;
mod metrics;
mod node;
mod pages;
mod pipe;
mod prior;
mod reads;
mod report;
mod shared;
mod store;
mod switch;
mod waiting;

pub use self::node::{Node, NodeConfig, RunningNode, StartError};
pub use self::shared::Fatal;
pub use self::switch::TESTING;
