//! The handle that programs hold: one method per operation.

use std::sync::Arc;

use bytes::Bytes;
use catena_proto::config::{ChainConfig, KeyRange, NodeInfo};
use catena_proto::ids::{ClusterId, NodeId, ShardId};
use catena_proto::op::{Expect, Outcome, WriteOp};
use catena_proto::wire;

use crate::answer::{Consistency, Counter, Deleted, ScanRange, Swap, Value, Written};
use crate::contact::{self, Core};
use crate::plan::retry::Kind;
use crate::scan::Scan;
use crate::shared::Shared;
use crate::{Cause, Error, Options};

/// A connection to a cluster; cheap to clone, and made to be shared.
///
/// Many tasks that share one client fill its frames; a client each would send
/// them one by one.
///
/// ```no_run
/// # async fn example() -> Result<(), catena_client::Error> {
/// use catena_client::{Client, Expect, Options, Swap};
///
/// let client = Client::connect(["127.0.0.1:7101"], Options::default()).await?;
/// let written = client.put("colour", "green").await?;
/// let swap = client.compare_and_swap("colour", Expect::Version(written.version), "blue").await?;
/// assert!(matches!(swap, Swap::Swapped(_)));
/// let value = client.get("colour").await?.expect("it was just written");
/// assert_eq!(&value.value[..], b"blue");
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Finds the cluster behind any one live endpoint (`host:port`, of nodes or masters).
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when no endpoint answers in `options.connect_timeout`,
    /// [`Cause::ForeignCluster`] when one does that belongs to another cluster than `options.cluster`,
    /// [`Cause::Invalid`] when an endpoint is not `host:port`.
    pub async fn connect<E>(endpoints: E, options: Options) -> Result<Self, Error>
    where
        E: IntoIterator,
        E::Item: Into<String>,
    {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let core = Arc::new(contact::connect(endpoints, options).await?);
        Ok(Self { core })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.core.shared
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
        self.shared().get(key.into(), consistency).await
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
        let value = value.into();
        let (shard, outcome) = self.write(key.into(), WriteOp::Put { value }).await?;
        written(shard, outcome)
    }

    /// Removes a key; a missing one is no error.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Deleted, Error> {
        let (shard, outcome) = self.write(key.into(), WriteOp::Delete).await?;
        match outcome {
            Outcome::Deleted { version, existed } => Ok(Deleted {
                version,
                existed,
                shard,
            }),
            other => Err(unexpected(other)),
        }
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
        let value = value.into();
        let write = WriteOp::Cas { expect, value };
        let (shard, outcome) = self.write(key.into(), write).await?;
        match outcome {
            Outcome::CasFailed { actual } => Ok(Swap::Mismatch { actual, shard }),
            outcome => written(shard, outcome).map(Swap::Swapped),
        }
    }

    /// Adds `by` to a decimal 64-bit integer; a missing key counts as 0.
    ///
    /// # Errors
    /// See [`Error`]; [`Cause::NotANumber`] and [`Cause::Overflow`] change nothing.
    pub async fn increment(&self, key: impl Into<Bytes>, by: i64) -> Result<Counter, Error> {
        let (shard, outcome) = self.write(key.into(), WriteOp::Incr { by }).await?;
        match outcome {
            Outcome::Incremented { version, value } => Ok(Counter {
                value,
                version,
                shard,
            }),
            other => Err(unexpected(other)),
        }
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
        let suffix = suffix.into();
        let (shard, outcome) = self.write(key.into(), WriteOp::Append { suffix }).await?;
        written(shard, outcome)
    }

    async fn write(&self, key: Bytes, write: WriteOp) -> Result<(ShardId, Outcome), Error> {
        self.shared().write(key, write).await
    }

    /// Visits keys in order, over shards, a page at a time.
    ///
    /// ```no_run
    /// # async fn example(client: catena_client::Client) -> Result<(), catena_client::Error> {
    /// use catena_client::ScanRange;
    ///
    /// let mut scan = client.scan(ScanRange::prefix("user/").limited(100));
    /// while let Some(row) = scan.next().await? {
    ///     println!("{:?} = {:?}", row.key, row.value);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn scan(&self, range: ScanRange) -> Scan {
        Scan::new(self.clone(), range)
    }

    /// What a node says about itself; it needs no other process to answer.
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when the node is not known or does not answer.
    pub async fn node_status(&self, node: NodeId) -> Result<wire::NodeStatusResponse, Error> {
        self.shared().node_status(node).await
    }

    /// Learns every route of the cluster, page by page (a client otherwise learns only what it uses).
    ///
    /// # Errors
    /// [`Cause::Unreachable`] when no node answers.
    pub async fn learn_all_routes(&self) -> Result<(), Error> {
        let deadline = self.shared().begin(Kind::Repeatable).deadline();
        self.shared().learn_routes(&KeyRange::all(), deadline).await
    }

    /// The cluster, as pinned at the first contact.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared().topology.ground().cluster
    }

    /// The chains known to this client, in the order of their ranges.
    #[must_use]
    pub fn chains(&self) -> Vec<ChainConfig> {
        self.shared()
            .topology
            .look(|table| table.chains().cloned().collect())
    }

    /// The nodes known to this client.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        self.shared()
            .topology
            .look(|table| table.nodes().values().cloned().collect())
    }

    /// Closes the sessions, so that their memory is given back at once. Without it they end by
    /// themselves when they have been idle for long. Connections close with the last clone.
    pub async fn close(self) {
        self.shared().close_sessions().await;
    }
}

fn written(shard: ShardId, outcome: Outcome) -> Result<Written, Error> {
    match outcome {
        Outcome::Written { version } => Ok(Written { version, shard }),
        other => Err(unexpected(other)),
    }
}

/// An outcome that is an error to the caller, or that does not belong to what was asked.
fn unexpected(outcome: Outcome) -> Error {
    match outcome {
        Outcome::NotANumber => Error::Failed(Cause::NotANumber),
        Outcome::Overflow => Error::Failed(Cause::Overflow),
        Outcome::ValueTooLarge => Error::Failed(Cause::ValueTooLarge),
        // Something was done, but not what was asked: nobody may take it for a failure.
        other => Error::Unknown(Cause::Internal(format!(
            "the node answered with the outcome of another operation: {other:?}"
        ))),
    }
}
