//! The client SDK: finds the cluster behind any live node, keeps one batched
//! stream to each node it needs, and gives every operation one of three outcomes:
//! `Ok`, [`Error::Failed`] or [`Error::Unknown`].

mod answer;
mod client;
mod error;
mod limits;
mod options;
mod plan;

pub use answer::{
    Consistency, Counter, Deleted, Freshness, ScanRange, ScanRow, Swap, Value, Written,
};
pub use catena_proto::config::{ChainConfig, KeyRange, NodeInfo};
pub use catena_proto::ids::{ClusterId, NodeId, Seq, ShardId};
pub use catena_proto::op::Expect;
pub use client::{Client, Scan, node_status_at};
pub use error::{Cause, Error};
pub use options::{Options, ReadFrom};
