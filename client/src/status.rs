//! What nodes say about themselves, for operators.

#![allow(clippy::disallowed_methods, reason = "runtime: bounds its waits")]

use std::time::Duration;

use bytes::Bytes;
use catena_proto::errors::Refusal;
use catena_proto::ids::NodeId;
use catena_proto::limits::CONFIG_BYTES_MAX;
use catena_proto::wire;
use catena_proto::wire::admin_client::AdminClient;
use tonic::transport::Channel;

use crate::node::endpoint;
use crate::shared::Shared;
use crate::{Cause, Error};

impl Shared {
    /// What a known node says.
    pub(crate) async fn node_status(&self, id: NodeId) -> Result<wire::NodeStatusResponse, Error> {
        let ground = self.topology.ground();
        let node = self.topology.node(id).ok_or_else(|| {
            Error::Failed(Cause::Unreachable(format!(
                "the address of node {id} is not known"
            )))
        })?;
        let cluster = Bytes::copy_from_slice(&ground.cluster.to_bytes());
        ask(
            node.channel(),
            cluster,
            &node.info.addr,
            ground.options.timeout,
        )
        .await
    }
}

/// What the node at `addr` (`host:port`) says about itself, without a client and its routes.
///
/// # Errors
/// [`Cause::Unreachable`] when nothing answers there within `timeout`.
pub async fn node_status_at(
    addr: &str,
    timeout: Duration,
) -> Result<wire::NodeStatusResponse, Error> {
    let channel = endpoint(addr)?.connect_lazy();
    ask(channel, Bytes::new(), addr, timeout).await
}

async fn ask(
    channel: Channel,
    cluster_id: Bytes,
    addr: &str,
    timeout: Duration,
) -> Result<wire::NodeStatusResponse, Error> {
    let mut admin = AdminClient::new(channel).max_decoding_message_size(CONFIG_BYTES_MAX);
    let asked = admin.node_status(wire::NodeStatusRequest { cluster_id });
    let words = match tokio::time::timeout(timeout, asked).await {
        Ok(Ok(response)) => return Ok(response.into_inner()),
        Ok(Err(status)) => match std::error::Error::source(&status) {
            Some(source) => crate::pipe::root(source),
            None => Refusal::from_status(&status).message,
        },
        Err(_) => format!("no answer within {timeout:?}"),
    };
    Err(Error::Failed(Cause::Unreachable(format!(
        "{addr}: {words}"
    ))))
}
