//! The client SDK: finds the cluster behind any live node, keeps one batched
//! stream to each node it needs, and gives every operation one of three outcomes:
//! `Ok`, [`Error::Failed`] or [`Error::Unknown`].

mod admin;
mod answer;
mod client;
mod contact;
mod data;
mod error;
mod limits;
mod node;
mod options;
mod pipe;
mod plan;
mod refresh;
mod scan;
mod session;
mod shared;
mod status;
mod topology;

pub use admin::{Events, Masters, Told, status_at};
pub use answer::{Consistency, Counter, Deleted, ScanRange, ScanRow, Swap, Value, Written};
pub use catena_proto::call::Freshness;
pub use catena_proto::config::{ChainConfig, KeyRange, NodeInfo};
pub use catena_proto::ids::{ClusterId, NodeId, Seq, ShardId};
pub use catena_proto::op::Expect;
pub use client::Client;
pub use error::{Cause, Error};
pub use options::{Options, ReadFrom};
pub use scan::Scan;
pub use status::node_status_at;
