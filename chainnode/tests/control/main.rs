//! A node and its master, as the node sees it: subscriptions, pushes, reports, and what happens without any.
#![allow(
    clippy::disallowed_methods,
    reason = "these tests run real nodes: threads, files, sockets, time-outs"
)]

mod links;
mod master;
mod nodes;
mod pushes;
mod sources;
#[cfg(feature = "testing")]
mod switch;
