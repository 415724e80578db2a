//! The handle that programs hold: one method per operation.

use std::sync::Arc;

use bytes::Bytes;
use catena_proto::config::{ChainConfig, NodeInfo};
use catena_proto::ids::{ClusterId, NodeId};
use catena_proto::op::Expect;
use catena_proto::wire;

use crate::answer::{Consistency, Counter, Deleted, ScanRange, ScanRow, Swap, Value, Written};
use crate::{Cause, Error, Options};

/// A connection to a cluster; cheap to clone, and made to be shared.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Options>,
}

impl Client {
    /// Finds the cluster behind any one live endpoint (`host:port`, of nodes or masters).
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when no endpoint answers in `options.connect_timeout`,
    /// [`Cause::ForeignCluster`] when one does that belongs to another cluster than `options.cluster`.
    pub async fn connect<E>(endpoints: E, options: Options) -> Result<Self, Error>
    where
        E: IntoIterator,
        E::Item: Into<String>,
    {
        drop(endpoints);
        Ok(Self {
            inner: Arc::new(options.bounded()),
        })
    }

    /// Reads a key, linearizably; `None` when it does not exist.
    ///
    /// # Errors
    /// Always [`Error::Failed`]: a read changes nothing.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Value>, Error> {
        self.get_with(key, Consistency::Linearizable).await
    }

    /// Reads a key with the guarantee asked for.
    ///
    /// # Errors
    /// Always [`Error::Failed`]; [`Cause::TooStale`] when a stale read's bound cannot be kept.
    pub async fn get_with(
        &self,
        key: impl Into<Bytes>,
        consistency: Consistency,
    ) -> Result<Option<Value>, Error> {
        let _ = (key.into(), consistency, &self.inner);
        Err(unreachable())
    }

    /// Sets a key's value.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn put(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        let _ = (key.into(), value.into());
        Err(unreachable())
    }

    /// Removes a key; a missing one is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        let _ = key.into();
        Err(unreachable())
    }

    /// Sets a key's value if `expect` holds.
    ///
    /// # Errors
    /// See [`Error`]; a condition that does not hold is [`Swap::Mismatch`], no error.
    pub async fn compare_and_swap(
        &self,
        key: impl Into<Bytes>,
        expect: Expect,
        value: impl Into<Bytes>,
    ) -> Result<Swap, Error> {
        let _ = (key.into(), expect, value.into());
        Err(unreachable())
    }

    /// Adds `by` to a decimal 64-bit integer; a missing key counts as 0.
    ///
    /// # Errors
    /// See [`Error`]; [`Cause::NotANumber`] and [`Cause::Overflow`] change nothing.
    pub async fn increment(&self, key: impl Into<Bytes>, by: i64) -> Result<Counter, Error> {
        let _ = (key.into(), by);
        Err(unreachable())
    }

    /// Appends to a key's value; a missing key counts as empty.
    ///
    /// # Errors
    /// See [`Error`]; [`Cause::ValueTooLarge`] changes nothing.
    pub async fn append(
        &self,
        key: impl Into<Bytes>,
        suffix: impl Into<Bytes>,
    ) -> Result<Written, Error> {
        let _ = (key.into(), suffix.into());
        Err(unreachable())
    }

    /// Visits keys in order, over shards, a page at a time.
    #[must_use]
    pub fn scan(&self, range: ScanRange) -> Scan {
        let _ = range;
        Scan {
            client: self.clone(),
        }
    }

    /// What a node says about itself; it needs no other process to answer.
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when the node is not known or does not answer.
    pub async fn node_status(&self, node: NodeId) -> Result<wire::NodeStatusResponse, Error> {
        let _ = node;
        Err(unreachable())
    }

    /// Learns every route of the cluster, page by page (a client otherwise learns only what it uses).
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when no node answers.
    pub async fn learn_all_routes(&self) -> Result<(), Error> {
        Err(unreachable())
    }

    /// The cluster, as pinned at the first contact.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        ClusterId::new(0)
    }

    /// The chains known to this client, in the order of their ranges.
    #[must_use]
    pub fn chains(&self) -> Vec<ChainConfig> {
        Vec::new()
    }

    /// The nodes known to this client.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        Vec::new()
    }

    /// Closes the sessions, so that their memory is given back at once, and the connections.
    /// Without it the sessions end by themselves when they have been idle for long.
    pub async fn close(self) {}
}

/// A scan under way. Each page is linearizable by itself; the whole is not one snapshot.
#[derive(Debug)]
pub struct Scan {
    client: Client,
}

impl Scan {
    /// The next page of rows, never empty; `None` at the end.
    ///
    /// # Errors
    /// Always [`Error::Failed`]; the scan can be continued by calling again.
    pub async fn next_page(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        let _ = &self.client;
        Err(unreachable())
    }

    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// As [`Scan::next_page`].
    pub async fn next(&mut self) -> Result<Option<ScanRow>, Error> {
        Err(unreachable())
    }
}

/// What the node at `addr` (`host:port`) says about itself, without a client and its routes.
///
/// # Errors
/// [`Cause::Unreachable`] when nothing answers there within `timeout`.
pub async fn node_status_at(
    addr: &str,
    timeout: std::time::Duration,
) -> Result<wire::NodeStatusResponse, Error> {
    let _ = (addr, timeout);
    Err(unreachable())
}

fn unreachable() -> Error {
    Error::Failed(Cause::Unreachable("the client is not connected".into()))
}
