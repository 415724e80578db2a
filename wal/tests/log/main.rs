//! The log over a faulty disk: what was synced survives, what is damaged is said, nothing is made up.
#![allow(missing_docs, reason = "a test")]

mod appending;
mod crashes;
mod damage;
mod disks;
mod full;
mod kit;
mod properties;
mod trimming;
